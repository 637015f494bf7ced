//! What two plans that do the same have in common.

use super::{Action, Plan, PlanDigest};

/// What the hash is about; another form of the input is another context.
const CONTEXT: &str = "lifebuoy 2026-11 plan digest v1";

/// The digest of everything that was decided: which objects, where to, what is
/// done, and what is written. Neither the snapshot nor uids nor texts for people
/// are part of it, nor whether this restore began before.
pub(crate) fn digest(plan: &Plan) -> PlanDigest {
    let mut hash = Hash(blake3::Hasher::new_derive_key(CONTEXT));
    for of in &plan.types {
        hash.text("type");
        hash.text(&of.id.group);
        hash.text(&of.id.resource);
        hash.text(&of.kind);
        hash.text(&of.source_version);
        hash.text(&of.target_version);
        hash.text(if of.status_is_data { "status" } else { "" });
    }
    for entry in &plan.entries {
        hash.text("entry");
        hash.0.update(&entry.kind.to_le_bytes());
        hash.0.update(&[entry.wave, u8::from(entry.serves)]);
        for key in [&entry.source, &entry.target] {
            hash.text(&key.namespace);
            hash.text(&key.name);
        }
        // A restore that is resumed goes on with what it was going to do.
        let action = match &entry.action {
            Action::Resume => &Action::Create,
            other => other,
        };
        hash.text(action.as_str());
        if let Action::Withhold { reason, .. } | Action::Refuse { reason, .. } = action {
            hash.text(reason.as_str());
        }
        hash.text(super::document::policy_name(entry.policy));
        for need in &entry.needs {
            hash.0.update(&need.to_le_bytes());
        }
        hash.text("body");
        hash.0.update(&entry.body);
    }
    for left in &plan.left_out {
        hash.text("left out");
        hash.text(&left.of.to_string());
        hash.text(&left.why);
        hash.0.update(&left.objects.to_le_bytes());
    }
    PlanDigest(hash.0.finalize().to_hex().to_string())
}

struct Hash(blake3::Hasher);

impl Hash {
    /// Adds a text so that no two lists of texts look the same.
    fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }
}

//! PersistentVolumes and the claims on them.

use serde_json::Value;

use super::Verdict;
use crate::restore::prepare::Context;

/// The annotation on a volume that a provisioner made for a claim.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// A claim is bound anew, unless the volume that it names comes along.
pub(super) fn claim(body: &mut Value, context: &Context) {
    let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let keeps = spec
        .get("volumeName")
        .and_then(Value::as_str)
        .is_some_and(|volume| context.keeps_volume(volume));
    if !keeps {
        spec.remove("volumeName");
    }
}

/// A volume that was provisioned is provisioned again; one that a person made
/// comes along.
pub(super) fn volume(body: &Value, notes: &mut Vec<String>) -> Verdict {
    if !body["metadata"]["annotations"][PROVISIONED_BY].is_null() {
        return Verdict::Leave("it was provisioned for its claim, and is provisioned again".into());
    }
    let spec = &body["spec"];
    if !spec["hostPath"].is_null() || !spec["local"].is_null() || !spec["nodeAffinity"].is_null() {
        notes.push(
            "it lies on a node of the source cluster: check that the target has such a node"
                .to_owned(),
        );
    }
    Verdict::Restore
}

//! What becomes of a type: its record in the manifest, and what is said of it.

use lifebuoy_api::{Problem, Reason};

use super::{TypeResult, TypeRun};
use crate::{
    Error,
    archive::{Fidelity, TypeId, TypeRecord, TypeTotals},
    capture::{
        choose::{Chosen, Taken},
        domain::{Probed, Standing},
        lister::ListError,
        normalise::TypeName,
    },
};

/// How many malformed objects of one type are named.
pub(super) const MALFORMED_NAMED_MAX: u64 = 20;

impl TypeRun {
    /// Closes the tree and says what became of the type.
    pub(super) async fn finished(self) -> Result<TypeResult, Error> {
        let Self {
            writer,
            chosen,
            fuzzy,
            revision,
            mut problems,
            malformed,
            version,
            version_problem,
            ..
        } = self;
        let totals = writer.finish().await?;
        let id = id_of(&chosen).to_string();
        if malformed > MALFORMED_NAMED_MAX {
            let more = format!(
                "{} more objects are malformed",
                malformed - MALFORMED_NAMED_MAX
            );
            problems.push(Problem::error(Reason::MalformedObject, &*id, &more));
        }
        let used = &chosen.served.served_versions[version];
        if let Some(why) = version_problem {
            let text = format!("read in version {used}: {why}");
            problems.push(Problem::warning(Reason::TypeUnavailable, &*id, &text));
        }
        let fidelity = match fuzzy {
            None => Fidelity::Exact,
            Some(why) => {
                let at = revision.as_deref().unwrap_or("unknown");
                let reason = format!("{why}; read at revision {at}");
                problems.push(Problem::warning(Reason::TypeFuzzy, &*id, &reason));
                Fidelity::Fuzzy { reason }
            }
        };
        let mut record = record(&chosen, fidelity, totals);
        record.version.clone_from(used);
        record.resource_version = revision;
        Ok(TypeResult {
            record: Some(record),
            problems,
        })
    }
}

/// The result of a type whose first object could not even be asked for, all
/// retries included. A type that was not found may be gone: that is looked into.
pub(in crate::capture) fn hopeless(chosen: &Chosen, probed: &Probed) -> Option<TypeResult> {
    match &probed.standing {
        Standing::Unknown(ListError::NotFound { .. }) | Standing::Main | Standing::Elsewhere(_) => {
            None
        }
        Standing::Unknown(error) => Some(unavailable(chosen, &say(chosen, error))),
    }
}

/// The result of a type that cannot be read.
pub(in crate::capture) fn unavailable(chosen: &Chosen, reason: &str) -> TypeResult {
    let fidelity = Fidelity::Unavailable {
        reason: reason.to_owned(),
    };
    let text = format!("it was not saved: {reason}");
    TypeResult {
        record: Some(record(chosen, fidelity, TypeTotals::default())),
        problems: vec![Problem::error(
            Reason::TypeUnavailable,
            id_of(chosen).to_string(),
            &text,
        )],
    }
}

/// The error's words, but for a Secret's: those could quote it.
pub(super) fn say(chosen: &Chosen, error: &ListError) -> String {
    if chosen.served.group.is_empty() && chosen.served.resource == "secrets" {
        return match error {
            ListError::Denied { .. } => "listing it is not permitted",
            ListError::Transport { .. } => "the connection broke",
            ListError::Throttled { .. } => "the API server is overloaded",
            _ => "the API server could not list it",
        }
        .to_owned();
    }
    error.to_string()
}

pub(super) fn id_of(chosen: &Chosen) -> TypeId {
    TypeId::new(&*chosen.served.group, &*chosen.served.resource)
}

pub(super) fn type_name(chosen: &Chosen) -> TypeName<'_> {
    TypeName {
        group: &chosen.served.group,
        resource: &chosen.served.resource,
        namespaced: chosen.served.namespaced,
        added: chosen.taken == Taken::Needed,
    }
}

/// Whether something is learned of the type in every capture.
pub(super) fn matters_always(chosen: &Chosen) -> bool {
    chosen.served.group.is_empty()
        && matches!(
            &*chosen.served.resource,
            "persistentvolumeclaims" | "services"
        )
}

fn record(chosen: &Chosen, fidelity: Fidelity, totals: TypeTotals) -> TypeRecord {
    let TypeTotals {
        objects,
        bytes,
        tree,
    } = totals;
    TypeRecord {
        group: chosen.served.group.clone(),
        version: chosen.served.version.clone(),
        served_versions: chosen.served.served_versions.clone(),
        kind: chosen.served.kind.clone(),
        resource: chosen.served.resource.clone(),
        namespaced: chosen.served.namespaced,
        fidelity,
        resource_version: None,
        objects,
        bytes,
        tree,
    }
}

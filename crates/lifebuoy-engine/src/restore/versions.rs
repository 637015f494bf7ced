//! In which version of its API a type is written. Pure.

use crate::archive::TypeRecord;
use crate::discovery::ServedType;

/// The version in which objects are written, or why they cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The version in which they were captured.
    Same,
    /// Another one that both clusters serve.
    Other(String),
    /// The definition is restored first, and serves the captured version.
    WithDefinition,
    /// None; the text says what the target serves.
    None(String),
}

/// Chooses a version. `served` is what the target serves of the type, and
/// `restored` what the restored definition of the type is going to serve.
pub(crate) fn choose(
    t: &TypeRecord,
    served: Option<&ServedType>,
    restored: Option<&[String]>,
) -> Choice {
    let Some(served) = served else {
        return match restored {
            Some(versions) if versions.contains(&t.version) => Choice::WithDefinition,
            Some(versions) => Choice::None(format!(
                "its CustomResourceDefinition serves {}, and it was captured in {}",
                versions.join(", "),
                t.version
            )),
            None => Choice::None(format!(
                "the target does not serve {}: install what defines it, or select its CustomResourceDefinition as well",
                t.id()
            )),
        };
    };
    if served.namespaced != t.namespaced {
        return Choice::None(format!(
            "{} are {} in the target, and were not in the source",
            t.id(),
            if served.namespaced {
                "in namespaces"
            } else {
                "cluster-scoped"
            }
        ));
    }
    if served.served_versions.contains(&t.version) {
        return Choice::Same;
    }
    let common = std::iter::once(&served.version)
        .chain(&served.served_versions)
        .find(|version| t.served_versions.contains(version));
    match common {
        Some(version) => Choice::Other(version.clone()),
        None => Choice::None(format!(
            "the target serves {} in {}, and the source served {}: they have no version in common",
            t.id(),
            served.served_versions.join(", "),
            t.served_versions.join(", ")
        )),
    }
}

//! Which types share one sequence of revisions, and which revision the capture
//! reads at.
//!
//! A revision is etcd's, for everything in it at once. A type that lives
//! elsewhere (another etcd, an aggregated API) counts differently: between two
//! lists of namespaces, its own revision does not fit.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::{
    fetch::glimpse,
    lister::{ListError, ListRequest, Lister},
};
use crate::discovery::ServedType;

/// Small lists in flight while types are told apart.
const PROBES_IN_FLIGHT: usize = 8;
const NAMESPACES: &str = "/api/v1/namespaces";

/// What is known of a type before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It can be read at the capture's revision.
    Main,
    /// It has revisions of its own.
    Elsewhere(String),
    /// It could not be asked.
    Unknown(ListError),
}

/// A type, and what asking for its first object told.
#[derive(Clone, Debug)]
pub(super) struct Probed {
    pub(super) standing: Standing,
    /// How many objects it has, about.
    pub(super) objects: u64,
    /// The version in which it can be listed, as an index into the served ones.
    pub(super) version: usize,
}

/// What the sandwich found.
pub(super) struct Sandwich {
    /// The newest revision at which all types of the main store were seen.
    pub(super) revision: String,
    /// For each type, in the order that was given.
    pub(super) types: Vec<Probed>,
}

/// Lists namespaces, then one object of every type, then namespaces again.
///
/// # Errors
/// The error of a list of namespaces: without it there is no revision at all.
pub(super) async fn sandwich(
    lister: &Arc<dyn Lister>,
    types: &[ServedType],
) -> Result<Sandwich, ListError> {
    let before = revision_now(&**lister).await?;
    let answers = stream::iter(types)
        .map(|t| first_of_type(&**lister, t))
        .buffered(PROBES_IN_FLIGHT)
        .collect::<Vec<_>>()
        .await;
    let after = revision_now(&**lister).await?;
    let types = answers
        .into_iter()
        .map(|(version, answer)| match answer {
            Ok((revision, objects)) => Probed {
                standing: standing(&before, &revision, &after),
                objects,
                version,
            },
            Err(error) => Probed {
                standing: Standing::Unknown(error),
                objects: 0,
                version: 0,
            },
        })
        .collect();
    Ok(Sandwich {
        revision: after,
        types,
    })
}

async fn revision_now(lister: &dyn Lister) -> Result<String, ListError> {
    let request = ListRequest::first_of(NAMESPACES.to_owned());
    Ok(glimpse(lister, &request).await?.meta.resource_version)
}

/// Asks for one object of a type, in the preferred version if that works: a
/// conversion webhook that is down breaks only some versions.
async fn first_of_type(
    lister: &dyn Lister,
    t: &ServedType,
) -> (usize, Result<(String, u64), ListError>) {
    let mut first_error = None;
    for (index, version) in t.served_versions.iter().enumerate() {
        let request = ListRequest::first_of(t.path(version, None));
        match glimpse(lister, &request).await {
            Ok(found) => return (index, Ok((found.meta.resource_version, found.objects))),
            Err(error @ ListError::Failed { .. }) => first_error = first_error.or(Some(error)),
            Err(error) => return (0, Err(first_error.unwrap_or(error))),
        }
    }
    let none = || ListError::Refused {
        message: "no version of it is served".to_owned(),
    };
    (0, Err(first_error.unwrap_or_else(none)))
}

/// Whether a type's revision fits between two of the main store.
fn standing(before: &str, of_type: &str, after: &str) -> Standing {
    let number = |text: &str| text.parse::<u64>().ok();
    match (number(before), number(of_type), number(after)) {
        (Some(before), Some(revision), Some(after)) if (before..=after).contains(&revision) => {
            Standing::Main
        }
        (Some(before), Some(revision), Some(after)) => Standing::Elsewhere(format!(
            "it is kept in another store: its revision {revision} is not between {before} and {after}"
        )),
        _ => Standing::Elsewhere("its revisions are no numbers".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_revision_in_between_is_of_the_main_store() {
        assert_eq!(standing("7", "7", "7"), Standing::Main);
        assert_eq!(standing("7", "9", "12"), Standing::Main);
        assert!(matches!(standing("7", "6", "12"), Standing::Elsewhere(_)));
        assert!(matches!(standing("7", "13", "12"), Standing::Elsewhere(_)));
        assert!(matches!(standing("7", "abc", "12"), Standing::Elsewhere(_)));
        assert!(matches!(standing("7", "", "12"), Standing::Elsewhere(_)));
    }
}

//! From what was found to what the status says. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use lifebuoy_api::{
    self as api, Access, ConditionType, Reason, RepositoryCluster, RepositoryStatus, bounded,
    condition, find, time::to_kube, upsert,
};

use super::{health, observe::Found, open::OpenError};

/// How many clusters a status lists.
const CLUSTERS_MAX: usize = 64;
/// The longest message of a condition, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024;

/// How a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether restores can read it.
    pub(crate) ready: bool,
    /// Whether backups can write it.
    pub(crate) writable: bool,
    /// Whether a person has to do something.
    pub(crate) stalled: bool,
    /// Whether it may be better in a little while.
    pub(crate) transient: bool,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn stalled(reason: Reason, message: String) -> Self {
        Self {
            ready: false,
            writable: false,
            stalled: true,
            transient: false,
            reason,
            message,
        }
    }

    pub(crate) fn waiting(reason: Reason, message: String) -> Self {
        Self {
            ready: false,
            writable: false,
            stalled: false,
            transient: true,
            reason,
            message,
        }
    }

    fn read_only(reason: Reason, message: String) -> Self {
        Self {
            ready: true,
            writable: false,
            stalled: false,
            transient: false,
            reason,
            message,
        }
    }
}

/// What is said about what was found.
pub(crate) fn judge(repository: &api::Repository, seen: &Result<Found, OpenError>) -> Verdict {
    let found = match seen {
        Ok(found) => found,
        Err(error) => {
            let mut verdict = if error.is_transient() {
                Verdict::waiting(error.reason(), error.message())
            } else {
                Verdict::stalled(error.reason(), error.message())
            };
            // The credentials cannot even make the repository.
            if verdict.reason == Reason::ReadOnlyCredentials {
                verdict.message = format!("there is no repository yet, and {}", verdict.message);
            }
            return verdict;
        }
    };
    if let Some(conflict) = &found.conflict {
        let verdict = Verdict::read_only(Reason::ClusterNameConflict, conflict.clone());
        return Verdict {
            stalled: true,
            ..verdict
        };
    }
    if let Some(reason) = &found.read_only {
        let message = format!("restores work; nothing can be written: {reason}");
        return Verdict::read_only(Reason::FormatTooNew, message);
    }
    if repository.spec.access == Access::ReadOnly {
        let message = "restores work; the spec says `access: ReadOnly`".to_owned();
        return Verdict::read_only(Reason::Usable, message);
    }
    match found.abilities {
        Some(abilities) if !abilities.can_write => Verdict::read_only(
            Reason::ReadOnlyCredentials,
            "restores work, backups do not: the credentials can read but not write; grant \
             creation of objects below the prefix, or set `access: ReadOnly`"
                .to_owned(),
        ),
        Some(abilities) if !abilities.can_list => Verdict::stalled(
            Reason::ListDenied,
            "the credentials can write but not list; grant listing of the bucket below the prefix"
                .to_owned(),
        ),
        Some(abilities) if abilities.atomic_create == Some(false) => {
            let message = "of 16 writers that created one object at the same time, not exactly \
                           one succeeded: the store does not create atomically, and no backup \
                           is written to it; use another store";
            let verdict = Verdict::read_only(Reason::NoAtomicCreate, message.to_owned());
            Verdict {
                stalled: true,
                ..verdict
            }
        }
        _ => Verdict {
            ready: true,
            writable: true,
            stalled: false,
            transient: false,
            reason: Reason::Usable,
            message: unreadable(found).unwrap_or_else(|| "it can be read and written".to_owned()),
        },
    }
}

fn unreadable(found: &Found) -> Option<String> {
    let list = &found.points.unreadable;
    let (key, why) = list.first()?;
    Some(format!(
        "it can be read and written, but {} of its records cannot be read, such as {key}: {why}; \
         nothing is forgotten while that is so",
        list.len()
    ))
}

/// The status that says so.
pub(crate) fn status(
    repository: &api::Repository,
    seen: Option<&Result<Found, OpenError>>,
    verdict: &Verdict,
    now: DateTime<Utc>,
) -> RepositoryStatus {
    let mut status = repository.status.clone().unwrap_or_default();
    let generation = repository.metadata.generation;
    status.observed_generation = generation;
    for (kind, is) in [
        (ConditionType::Ready, verdict.ready),
        (
            ConditionType::Reconciling,
            !verdict.ready && !verdict.stalled,
        ),
        (ConditionType::Stalled, verdict.stalled),
    ] {
        let message = bounded(&verdict.message, MESSAGE_BYTES_MAX);
        upsert(
            &mut status.conditions,
            condition(kind, is, verdict.reason, message, generation, now),
        );
    }
    if let Some(Ok(found)) = seen {
        status.id = Some(found.id.clone());
        status.format_version = Some(i64::from(found.format));
        status.access = Some(if verdict.writable {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        });
        status.recovery_points = i64::try_from(found.points.points.len()).ok();
        status.clusters = clusters(found);
        if found.probed {
            status.last_probe_time = Some(to_kube(now));
        }
    }
    status
}

/// Adds whether damage is known, once the status has the last check and who
/// keeps the repository, and returns it.
pub(crate) fn tell_health(
    repository: &api::Repository,
    found: &Found,
    now: DateTime<Utc>,
    status: &mut RepositoryStatus,
) -> Option<bool> {
    let unreadable = &found.points.unreadable;
    let maintained = find(&status.conditions, ConditionType::Maintained);
    let elsewhere = maintained.is_some_and(|it| it.reason == Reason::NotKeeper.as_str());
    let health = health::judge(unreadable, status.last_check.as_ref(), elsewhere);
    let condition = health.condition(repository.metadata.generation, now);
    upsert(&mut status.conditions, condition);
    health.healthy
}

fn clusters(found: &Found) -> Vec<RepositoryCluster> {
    let mut counts = BTreeMap::new();
    for point in &found.points.points {
        *counts.entry(&point.summary.cluster).or_insert(0) += 1;
    }
    counts
        .into_iter()
        .take(CLUSTERS_MAX)
        .map(|(cluster, recovery_points)| RepositoryCluster {
            name: cluster.name.clone(),
            uid: cluster.uid.clone(),
            recovery_points,
        })
        .collect()
}

//! Which kept snapshots go, and when: those of points that are gone from the repository, when
//! the grace of forgetting has passed, and those of sessions that never committed.
//!
//! Whoever cannot list the repository deletes nothing, and so does whoever finds something
//! unreadable in it. Wall clocks decide how long a forgotten point can be called back, and
//! never whether a point is there.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use kube::{Api, api::ListParams};
use lifebuoy_api::{self as api, Access, Backup, Restore, VolumeRestore};
use lifebuoy_engine::point::Points;
use lifebuoy_repo::{ClusterKey, End, Error as RepoError, Repository, SessionId};

use super::{
    kept::{self, Kept},
    objects::Snapshots,
};
use crate::{Error, backup, context::Context, error::sentence, restore, volume_restore};

/// What has to be known before a repository is listed: a session that commits meanwhile is
/// then in use, or in the list.
#[derive(Debug, Default)]
pub(crate) struct Before {
    kept: Vec<Kept>,
    /// Sessions that requests work in, or restore from.
    in_use: BTreeSet<String>,
}

/// What is known of the session that a snapshot is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The repository lists its point.
    Listed,
    /// A request is at work with it.
    InUse,
    /// It was ended, and has no point.
    NeverCommitted,
    /// Its point was forgotten, or nobody knows of one.
    Gone,
}

/// What is done about a kept snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It is not needed from now on.
    Begins,
    /// It is needed again.
    Returns,
    /// It is deleted, if the repository says once more that it may be.
    Goes,
}

/// Looks for snapshots that are kept, and for who needs them whatever the repository lists.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn before(context: &Context) -> Result<Before, Error> {
    let kept = kept::list(&Snapshots::new(&context.client)).await?;
    if kept.is_empty() {
        return Ok(Before::default());
    }
    let in_use = in_use(context).await?;
    Ok(Before { kept, in_use })
}

async fn in_use(context: &Context) -> Result<BTreeSet<String>, Error> {
    let (client, namespace) = (&context.client, &context.config.namespace);
    let all = ListParams::default();
    let failed = |error| Error::kube("list requests", error);
    let backups: Api<Backup> = Api::namespaced(client.clone(), namespace);
    let backups = backups.list(&all).await.map_err(failed)?;
    let restores: Api<Restore> = Api::namespaced(client.clone(), namespace);
    let restores = restores.list(&all).await.map_err(failed)?;
    let volumes: Api<VolumeRestore> = Api::namespaced(client.clone(), namespace);
    let volumes = volumes.list(&all).await.map_err(failed)?;
    let backups = backups.into_iter().filter(|of| !backup::ended(of));
    let backups = backups.filter_map(|of| of.status?.session);
    let restores = restores.into_iter().filter(|of| !restore::ended(of));
    let restores = restores.filter_map(|of| of.status?.snapshot);
    let volumes = volumes.into_iter().filter(|of| !volume_restore::ended(of));
    let volumes = volumes.map(|of| of.spec.snapshot);
    Ok(backups.chain(restores).chain(volumes).collect())
}

/// Deletes the kept snapshots that nothing in the repository needs any more. `points` were
/// listed after `before`.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn retire(
    context: &Context,
    repository: &api::Repository,
    points: &Points,
    before: &Before,
) -> Result<(), Error> {
    if before.kept.is_empty() || repository.spec.access == Access::ReadOnly {
        return Ok(());
    }
    if !points.unreadable.is_empty() {
        tracing::debug!("kept snapshots stay: something in the repository cannot be read");
        return Ok(());
    }
    let opened = context
        .repositories
        .open(&context.client, repository, false)
        .await;
    let opened = opened.map_err(|error| Error::Internal(error.message()))?;
    let (repo, cluster) = (&opened.repo, context.cluster().await?);
    let id = repo.id().to_string();
    let own = |kept: &&Kept| kept.repository_id == id && kept.cluster_uid == cluster.uid;
    let key = repo.cluster_key(&cluster.uid);
    let grace = TimeDelta::from_std(repository.spec.maintenance.grace.duration());
    let grace = grace.unwrap_or(TimeDelta::MAX);
    let snapshots = Snapshots::new(&context.client);
    for kept in before.kept.iter().filter(own) {
        let asked = standing(repo, key, kept.session, points, &before.in_use).await;
        let standing = match asked {
            Ok(standing) => standing,
            Err(error) => {
                let why = sentence(&error, None);
                tracing::warn!(name = kept.name, "a kept snapshot stays: {why}");
                continue;
            }
        };
        let now = context.now();
        match fate(standing, kept.unneeded_since, grace, now) {
            Fate::Stays => {}
            Fate::Begins => kept::note(&snapshots, &kept.name, Some(now)).await?,
            Fate::Returns => kept::note(&snapshots, &kept.name, None).await?,
            Fate::Goes => match is_gone(repo, key, kept.session).await {
                Ok(true) => {
                    let (name, session) = (&kept.name, kept.session);
                    tracing::info!(name, %session, "a snapshot goes with its recovery point");
                    kept::discard(&snapshots, name).await?;
                }
                Ok(false) => {}
                Err(error) => {
                    let why = sentence(&error, error.hint());
                    tracing::warn!(name = kept.name, "a kept snapshot stays: {why}");
                }
            },
        }
    }
    Ok(())
}

async fn standing(
    repo: &Repository,
    key: ClusterKey,
    session: SessionId,
    points: &Points,
    in_use: &BTreeSet<String>,
) -> Result<Standing, RepoError> {
    let listed = points.points.iter();
    if listed.map(|of| of.snapshot.session).any(|id| id == session) {
        return Ok(Standing::Listed);
    }
    if in_use.contains(&session.to_string()) {
        return Ok(Standing::InUse);
    }
    Ok(match repo.session_end(key, session).await? {
        Some(End::Fenced | End::CommittedOther) => Standing::NeverCommitted,
        Some(End::Committed(_)) | None => Standing::Gone,
    })
}

/// Without an end, a session may be one whose point was collected, or that nobody has ended:
/// both have the grace, since the repository may also be an older copy of itself.
fn fate(
    standing: Standing,
    since: Option<DateTime<Utc>>,
    grace: TimeDelta,
    now: DateTime<Utc>,
) -> Fate {
    match (standing, since) {
        (Standing::Listed | Standing::InUse, None) => Fate::Stays,
        (Standing::Listed | Standing::InUse, Some(_)) => Fate::Returns,
        (Standing::NeverCommitted, _) => Fate::Goes,
        (Standing::Gone, None) => Fate::Begins,
        (Standing::Gone, Some(since)) if now - since >= grace => Fate::Goes,
        (Standing::Gone, Some(_)) => Fate::Stays,
    }
}

/// Whether the session has no point that can be restored, and never will have one.
async fn is_gone(
    repo: &Repository,
    key: ClusterKey,
    session: SessionId,
) -> Result<bool, RepoError> {
    let end = match repo.session_end(key, session).await? {
        Some(end) => end,
        None => repo.fence(key, session).await?,
    };
    if !matches!(end, End::Committed(_)) {
        return Ok(true);
    }
    match repo.snapshot(session).await {
        Ok(_) => Ok(false),
        Err(RepoError::Forgotten { .. } | RepoError::NotFound { .. }) => Ok(true),
        Err(RepoError::NeverEnded { fenced, .. }) => Ok(fenced),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_goes_when_its_point_is_gone_and_the_grace_has_passed() {
        let at = |hours: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        let told = |standing, since: Option<i64>, now| {
            fate(standing, since.map(at), TimeDelta::hours(24), at(now))
        };
        for (standing, since, now, expected) in [
            (Standing::Listed, None, 0, Fate::Stays),
            // It was forgotten, and a pin has brought it back.
            (Standing::Listed, Some(0), 100, Fate::Returns),
            (Standing::InUse, None, 0, Fate::Stays),
            (Standing::InUse, Some(0), 100, Fate::Returns),
            (Standing::NeverCommitted, None, 0, Fate::Goes),
            (Standing::Gone, None, 0, Fate::Begins),
            (Standing::Gone, Some(0), 23, Fate::Stays),
            (Standing::Gone, Some(0), 24, Fate::Goes),
            // A clock that goes back keeps more.
            (Standing::Gone, Some(100), 24, Fate::Stays),
        ] {
            let case = format!("{standing:?} since {since:?} at {now}");
            assert_eq!(told(standing, since, now), expected, "{case}");
        }
    }
}

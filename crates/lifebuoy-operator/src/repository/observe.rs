//! What there is at the place: one or two listings, and a probe once in a while.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use kube::ResourceExt;
use lifebuoy_api::{self as api, Access, PointCluster};
use lifebuoy_engine::point::{Point, Points, points};
use lifebuoy_repo::{Error as RepoError, StoreAbilities};

use super::open::{OpenError, Opened};
use crate::{context::Context, tasks::apart};

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) format: u32,
    /// Why the format allows reading only, if so.
    pub(crate) read_only: Option<String>,
    /// What the store can do; `None` where it must not be tried.
    pub(crate) abilities: Option<StoreAbilities>,
    /// Whether the probe was made just now.
    pub(crate) probed: bool,
    pub(crate) points: Points,
    /// Who we are, and who else goes by our name.
    pub(crate) conflict: Option<String>,
}

pub(crate) async fn observe(
    context: &Context,
    repository: &api::Repository,
) -> Result<Found, OpenError> {
    let uid = repository.uid().unwrap_or_default();
    let opened = context
        .repositories
        .open(&context.client, repository, true)
        .await?;
    match look(context, repository, &opened).await {
        Ok(found) => Ok(found),
        Err(error) => {
            // The place may hold another repository by now: begin again.
            if !error.is_transient() {
                context.repositories.close(&uid);
            }
            Err(error)
        }
    }
}

async fn look(
    context: &Context,
    repository: &api::Repository,
    opened: &Arc<Opened>,
) -> Result<Found, OpenError> {
    let repo = &opened.repo;
    let points = match points(repo).await {
        Ok(points) => points,
        Err(lifebuoy_engine::Error::Repo(error)) => return Err(error.into()),
        // `points` fails with nothing else: single records are in its result.
        Err(error) => {
            tracing::error!(%error, "cannot list recovery points");
            return Err(RepoError::Internal {
                what: "listing recovery points",
            }
            .into());
        }
    };
    let mut probed = false;
    let abilities = match repository.spec.access {
        Access::ReadOnly => None,
        Access::ReadWrite => {
            let known = *opened.probed.lock().unwrap_or_else(PoisonError::into_inner);
            match known {
                Some((at, abilities)) if at.elapsed() < context.config.probe_interval => {
                    Some(abilities)
                }
                _ => {
                    let prober = repo.clone();
                    let abilities = apart(async move || prober.probe().await)
                        .await
                        .unwrap_or(Err(RepoError::Internal { what: "the probe" }))?;
                    probed = true;
                    *opened.probed.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some((Instant::now(), abilities));
                    Some(abilities)
                }
            }
        }
    };
    let own = context.cluster().await.ok();
    Ok(Found {
        id: repo.id().to_string(),
        format: repo.format_version(),
        read_only: match repo.access() {
            lifebuoy_repo::Access::ReadWrite => None,
            lifebuoy_repo::Access::ReadOnly(reason) => Some(reason),
        },
        abilities,
        probed,
        conflict: own.and_then(|own| name_conflict(&points.points, own)),
        points,
    })
}

/// Whether another cluster goes by our name here, or we went by another one:
/// then lineages would mix, and nothing may be written.
pub(crate) fn name_conflict(points: &[Point], own: &PointCluster) -> Option<String> {
    let clusters = points.iter().map(|point| &point.summary.cluster);
    for cluster in clusters {
        if cluster.name == own.name && cluster.uid != own.uid {
            return Some(format!(
                "the repository holds points of another cluster named `{}` (its uid is {}, \
                 ours {}); install this cluster with a `clusterName` of its own",
                own.name, cluster.uid, own.uid
            ));
        }
        if cluster.uid == own.uid && cluster.name != own.name {
            return Some(format!(
                "this cluster has saved here as `{}` and is now named `{}`; set `clusterName` \
                 back, or use another repository",
                cluster.name, own.name
            ));
        }
    }
    None
}

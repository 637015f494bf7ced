//! RecoveryPoints: a bounded mirror of what a repository holds, for people and
//! tools. Nothing is ever read from them but which snapshot of which repository
//! somebody means; deleting one deletes no data.

mod execute;
mod plan;

use kube::ResourceExt;
use lifebuoy_api::{self as api, RecoveryPoint};
use lifebuoy_engine::point::{Point, Points};

use crate::{Error, context::Context};

/// Brings the mirrored points of a repository in line with what it holds.
///
/// # Errors
/// When the API server fails; a point that it refuses is logged and left out.
pub(crate) async fn mirror(
    context: &Context,
    repository: &api::Repository,
    points: &Points,
    existing: &[RecoveryPoint],
) -> Result<(), Error> {
    let own = context.cluster().await?;
    let wanted = plan::wanted(&points.points, own, &repository.spec.mirror.clusters);
    let changes = plan::changes(wanted, existing, !points.unreadable.is_empty());
    execute::carry_out(context, repository, changes).await?;
    for (cluster, count) in plan::counts(&points.points) {
        context
            .metrics
            .points(&repository.name_any(), cluster, count);
    }
    Ok(())
}

/// What is mirrored of a repository. To be asked before the repository is listed: a
/// point that appears meanwhile is not one that has gone.
///
/// # Errors
/// When the API server fails or refuses it.
pub(crate) async fn mirrored(
    context: &Context,
    repository: &api::Repository,
) -> Result<Vec<RecoveryPoint>, Error> {
    execute::existing(context, repository).await
}

/// Mirrors one point, if it is not there yet; gives its name.
///
/// # Errors
/// When the API server fails or refuses it.
pub(crate) async fn show(
    context: &Context,
    repository: &api::Repository,
    point: &Point,
) -> Result<String, Error> {
    execute::create(context, repository, point).await
}

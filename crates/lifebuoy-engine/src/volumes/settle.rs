//! How the session of a save has ended, asked of the repository: the only truth about it.

use lifebuoy_data::DataSummary;
use lifebuoy_repo::{End, Limits};

use super::{
    access::RepositoryAccess,
    task::{MoverReport, MoverTask, Work},
};
use crate::Error;

/// The report of a save that has committed, whatever became of its mover. If it has not,
/// its session is ended: it never will. None for a restore.
///
/// # Errors
/// One of the repository, or [`Error::Damaged`] for a summary that cannot be read.
pub async fn settle(task: &MoverTask) -> Result<Option<MoverReport>, Error> {
    let Work::Save {
        session,
        cluster_uid,
        ..
    } = &task.work
    else {
        return Ok(None);
    };
    let access: &RepositoryAccess = &task.repository;
    let repo = access.open(Limits::default()).await?;
    let key = repo.cluster_key(cluster_uid);
    let end = match repo.session_end(key, *session).await? {
        Some(end) => end,
        None => repo.fence(key, *session).await?,
    };
    let End::Committed(snapshot) = end else {
        return Ok(None);
    };
    let summary = DataSummary::from_bytes(&snapshot.summary)
        .map_err(|error| Error::damaged("the summary of a volume", error.to_string()))?;
    Ok(Some(MoverReport {
        entries: summary.entries,
        bytes: summary.bytes,
        problems: summary.problems,
        session: Some(*session),
        root: Some(snapshot.root),
        ..MoverReport::default()
    }))
}

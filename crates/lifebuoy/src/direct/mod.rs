//! Work without an operator: the engine itself, on a kubeconfig and an open
//! repository. Decides nothing that the engine decides.

mod backup;
mod restore;

use lifebuoy_data::DataSummary;
use lifebuoy_engine::point::{self, Point};
use lifebuoy_repo::{Repository, SessionId, Snapshot};

pub(crate) use backup::{Saving, save};
pub(crate) use restore::{Opened, Run};

use crate::error::Error;

/// As many digits of a snapshot are enough to name it.
const PREFIX_CHARS_MIN: usize = 8;

/// The point that a person names by a snapshot or its first digits.
///
/// # Errors
/// [`Error::Usage`] when it is one of files, and as [`find_snapshot`].
pub(crate) async fn find(repo: &Repository, text: &str) -> Result<Point, Error> {
    let snapshot = find_snapshot(repo, text).await?;
    if DataSummary::is_one(&snapshot.summary) {
        return Err(Error::usage(
            format!("{} is a snapshot of files or a device", snapshot.session),
            "`lifebuoy repo ls` shows it",
        ));
    }
    Ok(point::find(repo, snapshot.session).await?)
}

/// The snapshot that a person names, of whatever kind.
///
/// # Errors
/// [`Error::Usage`] when none or more than one fits; [`Error::Repo`] for a whole id of
/// one that was forgotten or never ended.
pub(crate) async fn find_snapshot(repo: &Repository, text: &str) -> Result<Snapshot, Error> {
    if let Ok(session) = text.parse::<SessionId>() {
        return Ok(repo.snapshot(session).await?);
    }
    let mut snapshots = repo.snapshots().await?.snapshots;
    snapshots.retain(|snapshot| !snapshot.is_leaving());
    let sessions = snapshots
        .iter()
        .map(|snapshot| snapshot.session.to_string());
    let position = choose(sessions, text)?;
    Ok(snapshots.swap_remove(position))
}

fn choose(sessions: impl Iterator<Item = String>, prefix: &str) -> Result<usize, Error> {
    if prefix.len() < PREFIX_CHARS_MIN || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::usage(
            format!("`{prefix}` is no snapshot"),
            format!("give at least the first {PREFIX_CHARS_MIN} of its hexadecimal digits"),
        ));
    }
    let fitting: Vec<usize> = sessions
        .enumerate()
        .filter_map(|(position, session)| session.starts_with(prefix).then_some(position))
        .collect();
    match fitting[..] {
        [one] => Ok(one),
        [] => Err(Error::usage(
            format!("there is no snapshot {prefix}… that can be restored"),
            "`lifebuoy recoverypoint list` shows all",
        )),
        _ => Err(Error::usage(
            format!("{} snapshots begin with {prefix}", fitting.len()),
            "give more digits",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_names_one_snapshot_or_none() {
        let sessions = || ["0123456789ab", "0123456789cd", "fedcba987654"].map(str::to_owned);
        let chosen = |prefix| choose(sessions().into_iter(), prefix).map_err(|e| e.to_string());
        assert_eq!(chosen("fedcba98"), Ok(2));
        assert_eq!(
            chosen("0123456789"),
            Err("2 snapshots begin with 0123456789".into())
        );
        assert!(
            chosen("00000000")
                .unwrap_err()
                .contains("there is no snapshot")
        );
        assert!(chosen("fed").unwrap_err().contains("is no snapshot"));
        assert!(chosen("latest-one").unwrap_err().contains("is no snapshot"));
    }
}

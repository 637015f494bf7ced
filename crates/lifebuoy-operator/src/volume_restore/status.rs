//! What the status of a VolumeRestore says. Pure.

use chrono::{DateTime, Utc};
use lifebuoy_api::{Problem, Reason, VolumeRestoreStatus, time::to_kube};
use lifebuoy_engine::volumes::{MoverProgress, MoverReport, Size};

use crate::status::Standing;

/// How far its mover is.
pub(crate) fn progress(status: &mut VolumeRestoreStatus, now: &MoverProgress) {
    let progress = &mut status.progress;
    progress.entries = count(now.entries);
    progress.bytes = count(now.bytes);
    // What was saved is known from the beginning.
    progress.entries_total = progress.entries_total.max(count(now.entries_total));
    progress.bytes_total = progress.bytes_total.max(count(now.bytes_total));
}

/// All data is in the volume, but for what the report says.
pub(crate) fn filled(
    status: &mut VolumeRestoreStatus,
    report: &MoverReport,
    volume: Option<String>,
    now: DateTime<Utc>,
) {
    status.progress.entries = count(report.entries);
    status.progress.bytes = count(report.bytes);
    status.progress.entries_total = status.progress.entries;
    status.progress.bytes_total = status.progress.bytes;
    status.filled_time = Some(to_kube(now));
    status.volume_name = volume;
    status.problem_count = count(report.problems);
    status.problems = report
        .examples
        .iter()
        .map(|example| Problem::error(Reason::VolumeNotFilled, "", example))
        .collect();
}

/// How it ends when the claim is bound to the filled volume.
pub(crate) fn verdict(status: &VolumeRestoreStatus) -> Standing {
    let bytes = Size(u64::try_from(status.progress.bytes).unwrap_or(0));
    match status.problem_count {
        0 => Standing::Complete(
            Reason::Succeeded,
            format!("the claim is bound to a volume with its data ({bytes})"),
        ),
        problems => Standing::Failed(
            Reason::Partial,
            format!(
                "the claim is bound to a volume with its data ({bytes}), but for {problems} things that could not be restored"
            ),
        ),
    }
}

pub(crate) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::stand;

    #[test]
    fn nothing_partial_is_called_complete() {
        let mut status = VolumeRestoreStatus::default();
        let mut report = MoverReport {
            entries: 3,
            bytes: 2048,
            ..MoverReport::default()
        };
        let now = DateTime::UNIX_EPOCH;
        filled(&mut status, &report, Some("pv".into()), now);
        assert!(
            matches!(verdict(&status), Standing::Complete(_, text) if text.contains("2.0 KiB"))
        );
        report.problems = 1;
        report.examples = vec!["a/b: no room".to_owned()];
        filled(&mut status, &report, None, now);
        assert!(matches!(
            verdict(&status),
            Standing::Failed(Reason::Partial, _)
        ));
        assert_eq!(status.problems.len(), 1);
        let waits = Standing::Waiting(Reason::InProgress, String::new());
        stand(&mut status, &waits, None, now);
        assert_eq!(status.phase, "Binding");
    }
}

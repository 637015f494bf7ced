//! The step boundaries of a backup and a restore, named, so that a test can
//! stop the process at each of them.
//!
//! A test aid: in production [`reached`] does nothing. Only when the environment
//! variable `LIFEBUOY_ABORT_AT` names a step, the process aborts there, as
//! `kill -9` would have it: no destructor runs, nothing is flushed. A number
//! after a colon says which time, as in `entry-applied:100`.

use std::{
    fmt,
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// The environment variable that names the step to abort at.
pub const ABORT_AT: &str = "LIFEBUOY_ABORT_AT";

/// A moment between two parts of the work. The name is that of what has just
/// been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Backup: the session is open in the repository.
    SessionOpened,
    /// Backup: the served types are known.
    Discovered,
    /// Backup: every type was listed.
    Listed,
    /// Backup: the data of volumes is saved.
    VolumesSaved,
    /// Backup: the manifest is written.
    ManifestWritten,
    /// Backup: the snapshot is committed.
    Committed,
    /// Backup: the RecoveryPoint is there.
    PointMirrored,
    /// Backup: the status says how it ended.
    BackupReported,
    /// Restore: the snapshot is chosen.
    SnapshotChosen,
    /// Restore: the plan is made.
    Planned,
    /// Restore: the plan is stored.
    PlanStored,
    /// Restore: the first object of a wave is about to be written.
    WaveStarted,
    /// Restore: an object is written.
    EntryApplied,
    /// Restore: every object of the plan is dealt with.
    Applied,
    /// Restore: the report is stored.
    ReportStored,
    /// Restore: the status says how it ended.
    RestoreReported,
}

impl Step {
    /// Every step, in the order in which they are reached.
    pub const ALL: &'static [Self] = &[
        Self::SessionOpened,
        Self::Discovered,
        Self::Listed,
        Self::VolumesSaved,
        Self::ManifestWritten,
        Self::Committed,
        Self::PointMirrored,
        Self::BackupReported,
        Self::SnapshotChosen,
        Self::Planned,
        Self::PlanStored,
        Self::WaveStarted,
        Self::EntryApplied,
        Self::Applied,
        Self::ReportStored,
        Self::RestoreReported,
    ];

    /// The step's name, as the environment variable has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionOpened => "session-opened",
            Self::Discovered => "discovered",
            Self::Listed => "listed",
            Self::VolumesSaved => "volumes-saved",
            Self::ManifestWritten => "manifest-written",
            Self::Committed => "committed",
            Self::PointMirrored => "point-mirrored",
            Self::BackupReported => "backup-reported",
            Self::SnapshotChosen => "snapshot-chosen",
            Self::Planned => "planned",
            Self::PlanStored => "plan-stored",
            Self::WaveStarted => "wave-started",
            Self::EntryApplied => "entry-applied",
            Self::Applied => "applied",
            Self::ReportStored => "report-stored",
            Self::RestoreReported => "restore-reported",
        }
    }

    /// Whether it is a step of a backup; the others are of a restore.
    #[must_use]
    pub const fn is_backup(self) -> bool {
        matches!(
            self,
            Self::SessionOpened
                | Self::Discovered
                | Self::Listed
                | Self::VolumesSaved
                | Self::ManifestWritten
                | Self::Committed
                | Self::PointMirrored
                | Self::BackupReported
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The step and the time at which to abort.
#[derive(Debug, PartialEq, Eq)]
struct AbortAt {
    step: Step,
    time: u64,
}

impl FromStr for AbortAt {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, time) = match text.split_once(':') {
            Some((name, time)) => (name, time.parse().map_err(|_| ())?),
            None => (text, 1),
        };
        let step = Step::ALL.iter().find(|step| step.as_str() == name);
        Ok(Self {
            step: *step.ok_or(())?,
            time,
        })
    }
}

/// Says that a step was reached. Aborts the process if the environment says so;
/// otherwise this is a comparison of one word.
pub fn reached(step: Step) {
    static ABORT: OnceLock<Option<AbortAt>> = OnceLock::new();
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let wanted = ABORT.get_or_init(|| std::env::var(ABORT_AT).ok()?.parse().ok());
    if let Some(wanted) = wanted
        && wanted.step == step
        && TIMES.fetch_add(1, Ordering::Relaxed) + 1 == wanted.time
    {
        tracing::warn!(step = %step, "aborting, as {ABORT_AT} says");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        for step in Step::ALL {
            let parsed: AbortAt = step.to_string().parse().unwrap();
            assert_eq!((parsed.step, parsed.time), (*step, 1));
        }
        assert_eq!(
            "entry-applied:100".parse(),
            Ok(AbortAt {
                step: Step::EntryApplied,
                time: 100
            })
        );
        assert_eq!("nowhere".parse::<AbortAt>(), Err(()));
        assert_eq!("planned:x".parse::<AbortAt>(), Err(()));
    }
}

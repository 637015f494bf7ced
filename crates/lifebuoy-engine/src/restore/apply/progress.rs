//! How far a restore is. Read it at any time from anywhere.

use std::sync::atomic::{AtomicU64, Ordering};

use lifebuoy_api::{Reason, RestoreCounts};

/// Counts of objects that were dealt with.
#[derive(Debug, Default)]
pub struct RestoreProgress {
    planned: AtomicU64,
    created: AtomicU64,
    merged: AtomicU64,
    replaced: AtomicU64,
    skipped: AtomicU64,
    withheld: AtomicU64,
    failed: AtomicU64,
}

impl RestoreProgress {
    /// Nothing is done yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state of now.
    #[must_use]
    pub fn snapshot(&self) -> RestoreCounts {
        let read = |value: &AtomicU64| i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(0);
        let mut counts = RestoreCounts {
            planned: read(&self.planned),
            done: 0,
            created: read(&self.created),
            merged: read(&self.merged),
            replaced: read(&self.replaced),
            skipped: read(&self.skipped),
            withheld: read(&self.withheld),
            failed: read(&self.failed),
        };
        counts.done = counts.created
            + counts.merged
            + counts.replaced
            + counts.skipped
            + counts.withheld
            + counts.failed;
        counts
    }

    /// Begins anew, with this many objects to deal with.
    pub(crate) fn expect(&self, objects: usize) {
        let Self {
            planned,
            created,
            merged,
            replaced,
            skipped,
            withheld,
            failed,
        } = self;
        for count in [created, merged, replaced, skipped, withheld, failed] {
            count.store(0, Ordering::Relaxed);
        }
        planned.store(objects as u64, Ordering::Relaxed);
    }

    /// An object was dealt with. One that was cancelled was not.
    pub(crate) fn count(&self, reason: Reason) {
        let count = match reason {
            Reason::Created => &self.created,
            Reason::Merged => &self.merged,
            Reason::Replaced => &self.replaced,
            Reason::SkippedExisting => &self.skipped,
            Reason::Withheld | Reason::VolumeDataNotSaved => &self.withheld,
            Reason::Cancelled => return,
            _ => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_the_sum_of_all_outcomes() {
        let progress = RestoreProgress::new();
        progress.expect(9);
        for reason in [
            Reason::Created,
            Reason::Created,
            Reason::Refused,
            Reason::Withheld,
            Reason::Cancelled,
        ] {
            progress.count(reason);
        }
        let counts = progress.snapshot();
        assert_eq!(
            (
                counts.planned,
                counts.done,
                counts.created,
                counts.failed,
                counts.withheld
            ),
            (9, 4, 2, 1, 1)
        );
    }
}

//! How far a save or restore is, for one who watches from another thread.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::manifest::Problem;

/// Problems that are kept in words; the others are counted.
pub const PROBLEMS_MAX: usize = 1000;

/// Counts of what is done.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes: AtomicU64,
    unchanged: AtomicU64,
    entries_total: AtomicU64,
    bytes_total: AtomicU64,
    stored: AtomicU64,
    writes: AtomicBool,
    problems: Mutex<Problems>,
    warnings: Mutex<Vec<String>>,
}

#[derive(Debug, Default)]
struct Problems {
    count: u64,
    kept: Vec<Problem>,
}

/// [`Progress`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Files, directories and whatever else is done.
    pub entries: u64,
    /// Bytes of files that are done.
    pub bytes: u64,
    /// Bytes among them that were not touched, because they are there already.
    pub unchanged: u64,
    /// How many entries there are; 0 as long as that is unknown.
    pub entries_total: u64,
    /// How many bytes there are; 0 as long as that is unknown.
    pub bytes_total: u64,
    /// Bytes that were sent to the store.
    pub stored: u64,
    /// Problems so far.
    pub problems: u64,
}

impl Progress {
    /// What is done at this moment.
    #[must_use]
    pub fn done(&self) -> Done {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Done {
            entries: read(&self.entries),
            bytes: read(&self.bytes),
            unchanged: read(&self.unchanged),
            entries_total: read(&self.entries_total),
            bytes_total: read(&self.bytes_total),
            stored: read(&self.stored),
            problems: self.problems().count,
        }
    }

    /// Whether a restore may have changed anything at its place. If not, what was there
    /// before is there.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.writes.load(Ordering::SeqCst)
    }

    /// Before the first thing is changed.
    pub(crate) fn begin_to_write(&self) {
        self.writes.store(true, Ordering::SeqCst);
    }

    /// The problems so far, in words, at most [`PROBLEMS_MAX`].
    #[must_use]
    pub fn problems_in_words(&self) -> Vec<Problem> {
        self.problems().kept.clone()
    }

    /// What took longer than it had to, or is worth a look; nothing is missing for it.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.lock();
        warnings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Once for each thing that is done.
    pub(crate) fn warn(&self, text: String) {
        let warnings = self.warnings.lock();
        warnings.unwrap_or_else(PoisonError::into_inner).push(text);
    }

    pub(crate) fn expect(&self, entries: u64, bytes: u64) {
        self.entries_total.store(entries, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn unchanged(&self, bytes: u64) {
        self.bytes(bytes);
        self.unchanged.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much was sent to the store by now. Those who tell may come late.
    pub(crate) fn stored(&self, bytes: u64) {
        self.stored.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(crate) fn problem(&self, path: &impl ToString, what: &impl ToString) {
        let mut problems = self.problems();
        problems.count += 1;
        if problems.kept.len() < PROBLEMS_MAX {
            problems.kept.push(Problem {
                path: path.to_string(),
                what: what.to_string(),
            });
        }
    }

    fn problems(&self) -> std::sync::MutexGuard<'_, Problems> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

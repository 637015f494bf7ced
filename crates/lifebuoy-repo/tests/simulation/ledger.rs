//! What processes were promised, so that it can be held against the bucket.
//! Sees every answer, and refuses two that contradict each other at once.

use std::cell::{Cell, RefCell};

use lifebuoy_repo::{ClusterKey, End, SessionId, Snapshot};

/// Where a session stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

/// How far somebody got with a request to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Forgetting {
    No,
    /// The outcome is unknown.
    Asked,
    Acknowledged,
}

/// One session and all that anybody was told of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) session: SessionId,
    pub(crate) cluster: ClusterKey,
    /// What its root names, by number.
    pub(crate) chunks: Vec<u64>,
    pub(crate) intended_ms: u64,
    /// When it had begun, if it did.
    pub(crate) open_ms: Option<u64>,
    /// How it ended and when that was first told. `None`: nobody knows.
    pub(crate) end: Option<(End, u64)>,
    pub(crate) fence_asked: bool,
    pub(crate) forgetting: Forgetting,
}

impl Entry {
    /// The snapshot, once somebody was told of it.
    pub(crate) fn committed(&self) -> Option<&Snapshot> {
        match &self.end {
            Some((End::Committed(snapshot), _)) => Some(snapshot),
            _ => None,
        }
    }
}

/// All sessions of a world.
#[derive(Default, Debug)]
pub(crate) struct Ledger {
    entries: RefCell<Vec<Entry>>,
    /// Whether somebody collects, and so may fence any session.
    collects: Cell<bool>,
}

impl Ledger {
    /// A session that will begin: written down before anything is in the store.
    pub(crate) fn intend(
        &self,
        session: SessionId,
        cluster: ClusterKey,
        chunks: Vec<u64>,
        intended_ms: u64,
    ) -> Place {
        let mut entries = self.entries.borrow_mut();
        entries.push(Entry {
            session,
            cluster,
            chunks,
            intended_ms,
            open_ms: None,
            end: None,
            fence_asked: false,
            forgetting: Forgetting::No,
        });
        Place(entries.len() - 1)
    }

    /// Somebody was told how the session ended: all must be told the same.
    pub(crate) fn told(&self, place: Place, end: End, now_ms: u64) {
        let mut entries = self.entries.borrow_mut();
        let entry = &mut entries[place.0];
        if end == End::Fenced {
            let collected = entry.forgetting != Forgetting::No;
            assert!(
                entry.fence_asked || self.collects.get() || collected,
                "fenced by nobody: {entry:?}"
            );
        }
        match &entry.end {
            None => entry.end = Some((end, now_ms)),
            // What is forgotten and collected is as if it had never been.
            Some(_) if entry.forgetting != Forgetting::No && end == End::Fenced => {}
            // So is an id that was fenced and tidied up before its session began.
            Some((End::Fenced, told_ms))
                if self.collects.get() && entry.open_ms.is_some_and(|open| open >= *told_ms) =>
            {
                entry.end = Some((end, now_ms));
            }
            Some((before, _)) => {
                assert!(
                    same(before, &end),
                    "two ends of one session: {before:?} and {end:?} of {entry:?}"
                );
            }
        }
    }

    /// The session that was intended has begun.
    pub(crate) fn has_begun(&self, place: Place, now_ms: u64) {
        self.entries.borrow_mut()[place.0].open_ms = Some(now_ms);
    }

    pub(crate) fn begin_to_collect(&self) {
        self.collects.set(true);
    }

    pub(crate) fn ask_to_fence(&self, place: Place) {
        self.entries.borrow_mut()[place.0].fence_asked = true;
    }

    pub(crate) fn forgetting(&self, place: Place, how_far: Forgetting) {
        let mut entries = self.entries.borrow_mut();
        let entry = &mut entries[place.0];
        entry.forgetting = entry.forgetting.max(how_far);
    }

    pub(crate) fn entry(&self, place: Place) -> Entry {
        self.entries.borrow()[place.0].clone()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.borrow().clone()
    }

    /// The sessions for which `which` is true, in the order they were intended.
    pub(crate) fn places(&self, which: impl Fn(&Entry) -> bool) -> Vec<Place> {
        let entries = self.entries.borrow();
        let matching = entries.iter().enumerate().filter(|(_, entry)| which(entry));
        matching.map(|(n, _)| Place(n)).collect()
    }
}

/// The same end; whether it was forgotten meanwhile is another matter.
fn same(a: &End, b: &End) -> bool {
    match (a, b) {
        (End::Fenced, End::Fenced) => true,
        (End::Committed(a), End::Committed(b)) => same_snapshot(a, b),
        _ => false,
    }
}

/// The same snapshot, forgotten or not.
pub(crate) fn same_snapshot(a: &Snapshot, b: &Snapshot) -> bool {
    let remembered = |snapshot: &Snapshot| Snapshot {
        forgotten: false,
        ..snapshot.clone()
    };
    remembered(a) == remembered(b)
}

//! Holds the bucket against the ledger, with a handle that knows no faults:
//! what was acknowledged is there bit for bit, and all that is there is whole.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use lifebuoy_repo::{CollectOptions, End, Repository, SessionId, Snapshot};
use object_store::{ObjectStore, ObjectStoreExt};

use crate::{
    faults::Faults,
    ledger::{Entry, Forgetting, same_snapshot},
    process::{Backup, Roots, Stage, assert_read, eager, read, summary},
};

impl Stage {
    /// Everything, now and after all that is late has come; then the world is
    /// calm and a new process can work in it. Deletes and changes nothing.
    pub(crate) async fn verify(&self) {
        self.verify_now().await;
        self.settle_unknown().await;
        self.world.quiet().await;
        self.verify_now().await;
        self.verify_objects().await;

        self.world.set_faults(Faults::none());
        let mut next = self.enter("next", "a cluster that is new").await.unwrap();
        let backup = Backup {
            chunks: (0..30).collect(),
            ..Backup::default()
        };
        let place = next.intend(&backup);
        next.backup(place, &backup).await;
        next.list().await;
        next.restore(place).await;
        assert!(self.ledger.entry(place).committed().is_some());
        self.verify_collected().await;
    }

    /// After a few collections that nobody disturbs, all that is needed is there,
    /// and nothing else.
    async fn verify_collected(&self) {
        let clean = self.clean().await;
        self.ledger.begin_to_collect();
        let all = CollectOptions {
            objects_max: 1,
            ..eager()
        };
        for _ in 0..4 {
            clean.collect(&Roots, &all).await.unwrap();
        }
        self.verify_listed(false).await;
        let dry = CollectOptions {
            delete: false,
            ..eager()
        };
        let report = clean.collect(&Roots, &dry).await.unwrap();
        assert_eq!(report.garbage_packs, 0, "{report:?}");
    }

    /// As it is now, while processes are at work and requests under way.
    pub(crate) async fn verify_now(&self) {
        let faults = self.world.faults();
        self.verify_listed(faults.lie == 0 && faults.damage == 0)
            .await;
    }

    /// `truthful`: nobody was lied to, so the order of backups must be right.
    async fn verify_listed(&self, truthful: bool) {
        self.world.note("", "is verified");
        let overwritten = self.world.state().overwritten.clone();
        assert!(overwritten.is_empty(), "overwritten: {overwritten:?}");
        let clean = self.clean().await;
        let listed = clean.snapshots().await.unwrap();
        assert!(listed.unreadable.is_empty(), "{:?}", listed.unreadable);
        let listed: BTreeMap<SessionId, Snapshot> = listed
            .snapshots
            .into_iter()
            .map(|s| (s.session, s))
            .collect();
        let entries = self.ledger.entries();
        for entry in &entries {
            assert_promised(entry, listed.get(&entry.session));
        }
        for session in listed.keys() {
            let known = entries.iter().any(|entry| entry.session == *session);
            assert!(known, "nobody began {session}");
        }
        if truthful {
            assert_order(&entries);
        }
        self.verify_contents(&clean, &listed).await;
    }

    /// All that is listed, acknowledged or not, can be read in full.
    async fn verify_contents(&self, clean: &Repository, listed: &BTreeMap<SessionId, Snapshot>) {
        let reader = clean.reader().await.unwrap();
        assert!(reader.problems().is_empty(), "{:?}", reader.problems());
        for entry in self.ledger.entries() {
            if let Some(snapshot) = listed.get(&entry.session)
                && !snapshot.forgotten
            {
                let found = read(&reader, snapshot).await;
                let found = found.unwrap_or_else(|error| panic!("{error}: {entry:?}"));
                assert_read(&entry, &found);
            }
        }
    }

    /// Ends what nobody knows the end of. A commit may still be under way.
    async fn settle_unknown(&self) {
        let clean = self.clean().await;
        for place in self.ledger.places(|entry| entry.end.is_none()) {
            let Entry {
                session, cluster, ..
            } = self.ledger.entry(place);
            self.ledger.ask_to_fence(place);
            let end = clean.fence(cluster, session).await.unwrap();
            self.ledger.told(place, end, self.world.now_ms());
        }
    }

    /// Every byte of every object is what the format says.
    async fn verify_objects(&self) {
        let clean = self.clean().await;
        let inner = self.world.inner();
        let all: Vec<_> = inner.list(None).try_collect().await.unwrap();
        for meta in all {
            let key = meta.location.as_ref();
            if let Err(error) = clean.check_object(key).await {
                let bytes = inner.get(&meta.location).await.unwrap().bytes().await;
                panic!("{key}: {error}: {:?}", bytes.map(|bytes| bytes.len()));
            }
        }
    }
}

/// What somebody was told of a session is so.
fn assert_promised(entry: &Entry, listed: Option<&Snapshot>) {
    match (&entry.end, listed) {
        (Some((End::Committed(told), _)), Some(found)) => {
            assert!(same_snapshot(told, found), "{found:?} is not {entry:?}");
        }
        // What is forgotten may be collected.
        (Some((End::Committed(_), _)), None) => {
            assert!(
                entry.forgetting != Forgetting::No,
                "a commit is gone: {entry:?}"
            );
        }
        (Some((End::CommittedOther, _)), _) => panic!("no backup: {entry:?}"),
        (Some((End::Fenced, _)), Some(found)) => {
            panic!("fenced and committed: {found:?} {entry:?}")
        }
        (Some((End::Fenced, _)), None) | (None, _) => {}
    }
    let Some(found) = listed else { return };
    assert_eq!(found.summary, summary(&entry.chunks), "{entry:?}");
    match entry.forgetting {
        Forgetting::No => assert!(!found.forgotten, "{entry:?}"),
        Forgetting::Asked => {}
        Forgetting::Acknowledged => assert!(found.forgotten, "{entry:?}"),
    }
}

/// Of two backups of one cluster, one after the other, the later has the higher
/// sequence number.
fn assert_order(entries: &[Entry]) {
    for earlier in entries {
        let Some((End::Committed(first), told_ms)) = &earlier.end else {
            continue;
        };
        for later in entries.iter().filter(|later| later.intended_ms > *told_ms) {
            if let Some(second) = later.committed()
                && later.cluster == earlier.cluster
            {
                assert!(first.seq < second.seq, "{earlier:?} {later:?}");
            }
        }
    }
}

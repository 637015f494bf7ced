//! Stories of all that writes today, with a crash at each of their calls.

use crate::{
    actors::Act,
    crash::{CLUSTER, Story, crash_at_every_call},
    ledger::Forgetting,
    process::{Backup, LARGE, Process, Stage},
};

fn backup(chunks: std::ops::Range<u64>) -> Backup {
    Backup {
        chunks: chunks.collect(),
        own_root: true,
        ..Backup::default()
    }
}

/// Another process makes a backup of contents 0 to 10.
async fn one_backup_before(stage: &Stage) {
    let mut first = stage.enter("first", CLUSTER).await.unwrap();
    let first_backup = backup(0..10);
    let place = first.intend(&first_backup);
    first.backup(place, &first_backup).await;
}

/// Deeds of one process, after one backup of another.
struct Deeds(Vec<Act>);

impl Story for Deeds {
    async fn prepare(&self, stage: &Stage) {
        one_backup_before(stage).await;
    }

    async fn act(&self, victim: &mut Process<'_>) {
        for act in &self.0 {
            victim.perform(act, CLUSTER).await;
        }
    }

    async fn recover(&self, successor: &mut Process<'_>) {
        let again = Act::Backup(backup(5..20));
        successor.perform(&again, CLUSTER).await;
    }
}

#[test]
fn a_crash_at_every_call_of_a_backup() {
    let calls = crash_at_every_call(&Deeds(vec![Act::Backup(backup(5..15))]));
    assert!(calls >= 10, "{calls}");
}

/// Long enough that it writes heartbeats.
#[test]
fn a_crash_at_every_call_of_a_long_backup() {
    let long = Backup {
        pause_ms: 25_000,
        ..backup(5..15)
    };
    let calls = crash_at_every_call(&Deeds(vec![Act::Backup(long)]));
    assert!(calls >= 14, "{calls}");
}

#[test]
fn a_crash_at_every_call_of_two_backups_at_one_time() {
    let two = Act::Backups(backup(5..15), backup(10..25));
    let calls = crash_at_every_call(&Deeds(vec![two]));
    assert!(calls >= 20, "{calls}");
}

#[test]
fn a_crash_at_every_call_of_an_abandoned_backup_and_the_next() {
    let abandoned = Backup {
        abandons: true,
        ..backup(5..15)
    };
    let acts = vec![Act::Backup(abandoned), Act::Backup(backup(5..15))];
    assert!(crash_at_every_call(&Deeds(acts)) >= 15);
}

#[test]
fn a_crash_at_every_call_of_reading() {
    let acts = vec![Act::Restore, Act::List, Act::Reopen, Act::Restore];
    assert!(crash_at_every_call(&Deeds(acts)) >= 10);
}

/// A session with more packs than are uploaded at one time.
#[test]
fn a_crash_at_every_call_of_a_backup_of_many_packs() {
    let calls = crash_at_every_call(&ManyPacks);
    assert!(calls >= 14, "{calls}");
}

struct ManyPacks;

impl Story for ManyPacks {
    async fn prepare(&self, stage: &Stage) {
        one_backup_before(stage).await;
    }

    async fn act(&self, victim: &mut Process<'_>) {
        let large = backup(LARGE..LARGE + 3);
        victim.perform(&Act::Backup(large), CLUSTER).await;
    }

    async fn recover(&self, successor: &mut Process<'_>) {
        let same = backup(LARGE + 1..LARGE + 4);
        successor.perform(&Act::Backup(same), CLUSTER).await;
    }
}

/// Forgets the backup that was there before.
struct Forget;

impl Story for Forget {
    async fn prepare(&self, stage: &Stage) {
        one_backup_before(stage).await;
    }

    async fn act(&self, victim: &mut Process<'_>) {
        let place = victim.ledger().places(|_| true)[0];
        victim.forget(place).await;
    }

    async fn recover(&self, successor: &mut Process<'_>) {
        let place = successor.ledger().places(|_| true)[0];
        successor.forget(place).await;
        let entry = successor.ledger().entry(place);
        assert_eq!(entry.forgetting, Forgetting::Acknowledged);
    }
}

#[test]
fn a_crash_at_every_call_of_forgetting() {
    assert!(crash_at_every_call(&Forget) >= 1);
}

/// Fences a session that another process began and left.
struct Fence;

impl Story for Fence {
    async fn prepare(&self, stage: &Stage) {
        one_backup_before(stage).await;
        let mut left = stage.enter("left", CLUSTER).await.unwrap();
        let place = left.intend(&backup(0..3));
        let session = stage.ledger.entry(place).session;
        drop(left.begin(session).await.unwrap());
    }

    async fn act(&self, victim: &mut Process<'_>) {
        victim.settle_all().await;
    }

    async fn recover(&self, successor: &mut Process<'_>) {
        let unknown = successor.ledger().places(|entry| entry.end.is_none());
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

#[test]
fn a_crash_at_every_call_of_fencing() {
    assert!(crash_at_every_call(&Fence) >= 2);
}

/// Repacks and collects after a snapshot was forgotten, while a dead session is
/// open. Who comes after may find packs deleted that the index still lists.
struct Collect;

impl Story for Collect {
    async fn prepare(&self, stage: &Stage) {
        one_backup_before(stage).await;
        let mut other = stage.enter("other", CLUSTER).await.unwrap();
        for chunks in [5..15, 8..12] {
            let again = backup(chunks);
            let place = other.intend(&again);
            other.backup(place, &again).await;
        }
        other.forget(stage.ledger.places(|_| true)[0]).await;
        let left = other.intend(&backup(0..3));
        let session = stage.ledger.entry(left).session;
        drop(other.begin(session).await.unwrap());
    }

    async fn act(&self, victim: &mut Process<'_>) {
        victim.repack().await;
        victim.collect().await;
    }

    async fn recover(&self, successor: &mut Process<'_>) {
        successor.repack().await;
        successor.collect().await;
    }
}

#[test]
fn a_crash_at_every_call_of_a_collection() {
    assert!(crash_at_every_call(&Collect) >= 30);
}

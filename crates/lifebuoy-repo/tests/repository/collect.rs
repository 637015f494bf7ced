//! Collecting garbage on a store: what is needed stays, all else goes, and a
//! crash at any call of any step loses nothing.

use std::sync::Arc;

use bytes::Bytes;
use lifebuoy_repo::{
    ChunkKind, CollectOptions, Error, Purpose, Repository, SessionRequest, Snapshot,
};
use object_store::memory::InMemory;

use crate::support::*;

async fn keys(store: &InMemory, prefix: &str) -> Vec<String> {
    let all = objects(store).await.into_iter();
    all.map(|(key, _)| key)
        .filter(|key| key.starts_with(prefix))
        .collect()
}

async fn readable(repository: &Repository, snapshot: &Snapshot, chunks: std::ops::Range<u64>) {
    let read = restore(repository, snapshot).await.unwrap();
    let expected: Vec<Bytes> = chunks.map(contents).collect();
    assert_eq!(read, expected);
}

#[tokio::test]
async fn what_a_forgotten_snapshot_alone_needed_goes() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let first = backup(&repository, 1, 0..20).await.unwrap();
    let second = backup(&repository, 2, 10..30).await.unwrap();
    let third = backup(&repository, 3, 40..60).await.unwrap();
    repository.forget(third.session, "a test").await.unwrap();

    let report = repository.collect(&Listing, &at_once()).await.unwrap();
    assert_eq!(report.generation, Some(1));
    assert_eq!(report.forgotten, 1);
    assert_eq!(report.deleted_packs, 2, "{report:?}");
    assert!(report.deleted_bytes > 0);
    assert_eq!(keys(&store, "index/").await.len(), 3, "a run and two parts");

    for repository in [repository, open(store.clone()).await.unwrap()] {
        readable(&repository, &first, 0..20).await;
        readable(&repository, &second, 10..30).await;
        let gone = repository.snapshot(third.session).await.unwrap_err();
        assert!(matches!(
            gone,
            Error::NotFound { .. } | Error::Forgotten { .. }
        ));
        // What is forgotten is gone for good; what is there can be reused.
        let again = backup(&repository, 4, 0..5).await;
        if let Ok(again) = again {
            readable(&repository, &again, 0..5).await;
        }
    }
    let repository = open(store.clone()).await.unwrap();
    repository.collect(&Listing, &at_once()).await.unwrap();
    assert!(keys(&store, "forget/").await.is_empty());
    assert_eq!(keys(&store, "gc/").await, ["gc/2.final", "gc/2.plan"]);
}

#[tokio::test]
async fn a_report_writes_and_deletes_nothing() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let snapshot = backup(&repository, 1, 0..20).await.unwrap();
    backup(&repository, 2, 0..5).await.unwrap();
    repository.forget(snapshot.session, "a test").await.unwrap();
    let before = objects(&store).await;
    let options = CollectOptions {
        delete: false,
        ..at_once()
    };
    let report = repository.collect(&Listing, &options).await.unwrap();
    assert_eq!(report.generation, None);
    assert_eq!(report.forgotten, 1);
    assert_eq!(report.garbage_packs, 1, "{report:?}");
    assert!(report.garbage_bytes > 0 && report.bytes > report.garbage_bytes);
    assert_eq!(objects(&store).await, before);
}

#[tokio::test]
async fn the_grace_the_newest_and_pins_are_respected() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let mut snapshots = Vec::new();
    for seed in 1..=4 {
        snapshots.push(
            backup(&repository, seed, seed * 10..seed * 10 + 5)
                .await
                .unwrap(),
        );
    }
    for snapshot in &snapshots {
        repository.forget(snapshot.session, "a test").await.unwrap();
    }
    repository
        .pin(snapshots[0].session, "evidence")
        .await
        .unwrap();
    repository.pin(snapshots[0].session, "twice").await.unwrap();
    for snapshot in &snapshots {
        let found = repository.snapshot(snapshot.session).await;
        assert_eq!(
            found.is_ok(),
            snapshot == &snapshots[0],
            "only a pin keeps it"
        );
    }
    let options = CollectOptions {
        grace: std::time::Duration::from_secs(3600),
        ..at_once()
    };
    let report = repository.collect(&Listing, &options).await.unwrap();
    assert_eq!(report.forgotten, 0);

    let options = CollectOptions {
        keep_at_least: 1,
        ..at_once()
    };
    let report = repository.collect(&Listing, &options).await.unwrap();
    assert_eq!(report.forgotten, 2, "the second and the third");
    readable(&repository, &snapshots[0], 10..15).await;
    readable(&repository, &snapshots[3], 40..45).await;

    repository
        .unpin(snapshots[0].session, "over")
        .await
        .unwrap();
    let report = repository.collect(&Listing, &options).await.unwrap();
    assert_eq!(report.forgotten, 1);
    let listed = repository.snapshots().await.unwrap().snapshots;
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn a_collection_that_would_delete_too_much_is_refused() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let snapshot = backup(&repository, 1, 0..20).await.unwrap();
    repository.forget(snapshot.session, "a test").await.unwrap();
    let options = CollectOptions {
        delete_percent_max: 50,
        ..at_once()
    };
    let refused = repository.collect(&Listing, &options).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused { reason } if reason.contains("50 %")));
    assert!(keys(&store, "gc/").await.is_empty());
}

#[tokio::test]
async fn a_snapshot_with_a_lost_pack_stops_every_collection() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..20).await.unwrap();
    let other = backup(&repository, 2, 40..50).await.unwrap();
    repository.forget(other.session, "a test").await.unwrap();
    let all = objects(&store).await;
    let needed = session(1).to_string();
    let data = all
        .iter()
        .find(|(key, _)| key.contains(&needed) && key.ends_with(".data"))
        .unwrap();
    let rest = all.iter().filter(|(key, _)| *key != data.0);
    let rest = rest.map(|(key, bytes)| (key.as_str(), bytes.clone()));
    let store = store_of(rest).await;
    let repository = open(store.clone()).await.unwrap();
    let before = objects(&store).await.len();
    let refused = repository.collect(&Listing, &at_once()).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    let after = objects(&store).await.len();
    assert_eq!(after, before + 1, "a probe, and nothing else");
}

#[tokio::test]
async fn a_listing_without_a_live_snapshot_stops_every_collection() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..20).await.unwrap();
    backup(&repository, 2, 0..30).await.unwrap();
    repository.collect(&Listing, &at_once()).await.unwrap();
    let all = objects(&store).await;
    let end = all.iter().find(|(key, _)| key.starts_with("end/")).unwrap();
    let rest = all.iter().filter(|(key, _)| *key != end.0);
    let rest = rest.map(|(key, bytes)| (key.as_str(), bytes.clone()));
    let repository = open(store_of(rest).await).await.unwrap();
    let refused = repository.collect(&Listing, &at_once()).await.unwrap_err();
    assert!(matches!(refused, Error::Vanished { .. }), "{refused}");
}

#[tokio::test]
async fn a_session_at_work_is_waited_for_and_one_that_is_dead_is_fenced() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let old = backup(&repository, 1, 0..20).await.unwrap();
    // It reuses chunks that are then forgotten.
    let writer = repository.begin(request(&repository, 2)).await.unwrap();
    let id = writer.put(ChunkKind::Data, contents(3)).await.unwrap();
    let root = writer
        .put(ChunkKind::Metadata, format!("root\n{id}\n").into())
        .await
        .unwrap();
    repository.forget(old.session, "a test").await.unwrap();
    let dead = repository.begin(request(&repository, 3)).await.unwrap();
    drop(dead);

    let other = open(store.clone()).await.unwrap();
    let options = CollectOptions {
        stall: std::time::Duration::from_millis(300),
        ..at_once()
    };
    let collecting = tokio::spawn(async move { other.collect(&Listing, &options).await });
    while keys(&store, "gc/").await.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let snapshot = writer.commit(root, Bytes::new()).await.unwrap();
    let report = collecting.await.unwrap().unwrap();
    assert_eq!(report.fenced, 1);
    readable(&repository, &snapshot, 3..4).await;
    readable(&open(store).await.unwrap(), &snapshot, 3..4).await;
}

#[tokio::test]
async fn a_held_snapshot_stays_until_it_is_released() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let snapshot = backup(&repository, 1, 0..20).await.unwrap();
    let hold = repository
        .hold(snapshot.session, cluster(&repository))
        .await
        .unwrap();
    repository.forget(snapshot.session, "a test").await.unwrap();
    let other = open(store.clone()).await.unwrap();
    let options = CollectOptions {
        stall: std::time::Duration::from_secs(60),
        ..at_once()
    };
    let collecting = tokio::spawn(async move { other.collect(&Listing, &options).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    readable(&repository, &snapshot, 0..20).await;
    let late = repository
        .hold(snapshot.session, cluster(&repository))
        .await;
    assert!(matches!(late, Err(Error::Forgotten { .. })));
    hold.release().await;
    assert_eq!(collecting.await.unwrap().unwrap().forgotten, 1);
}

#[tokio::test]
async fn half_dead_packs_are_repacked() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let mut snapshots = Vec::new();
    // Chunks that do not compress, so that packs have some length.
    for seed in 1..=4_u64 {
        let writer = repository.begin(request(&repository, seed)).await.unwrap();
        let mut names = format!("root {seed}\n");
        for n in 0..20 {
            let id = writer
                .put(ChunkKind::Data, noise(seed * 100 + n))
                .await
                .unwrap();
            names.push_str(&format!("{id}\n"));
        }
        let root = writer.put(ChunkKind::Metadata, names.into()).await.unwrap();
        snapshots.push(writer.commit(root, Bytes::new()).await.unwrap());
    }
    // One that needs a twentieth of each.
    let writer = repository.begin(request(&repository, 9)).await.unwrap();
    let mut names = "root\n".to_owned();
    for seed in 1..=4_u64 {
        let id = writer
            .put(ChunkKind::Data, noise(seed * 100))
            .await
            .unwrap();
        names.push_str(&format!("{id}\n"));
    }
    let root = writer.put(ChunkKind::Metadata, names.into()).await.unwrap();
    let last = writer.commit(root, Bytes::new()).await.unwrap();
    for snapshot in &snapshots {
        repository.forget(snapshot.session, "a test").await.unwrap();
    }
    let first = repository.collect(&Listing, &at_once()).await.unwrap();
    assert_eq!(first.garbage_packs, 4, "the roots: {first:?}");
    let sparse = repository
        .repack(&Listing, cluster(&repository), 50, u64::MAX)
        .await
        .unwrap();
    assert_eq!((sparse.packs, sparse.chunks), (4, 4), "{sparse:?}");
    let second = repository.collect(&Listing, &at_once()).await.unwrap();
    assert_eq!(second.deleted_packs, 4, "{second:?}");
    let read = restore(&open(store.clone()).await.unwrap(), &last).await;
    assert_eq!(read.unwrap().len(), 4);
    // There is nothing left to do.
    let again = repository
        .repack(&Listing, cluster(&repository), 50, u64::MAX)
        .await
        .unwrap();
    assert_eq!(again.packs, 0);
}

fn noise(seed: u64) -> Bytes {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; 4000];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

#[tokio::test]
async fn parts_count_while_their_parent_is_open_or_lives() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let parent = repository.begin(request(&repository, 1)).await.unwrap();
    let part = repository
        .begin(SessionRequest {
            purpose: Purpose::Part(parent.session()),
            ..request(&repository, 2)
        })
        .await
        .unwrap();
    let chunk = part.put(ChunkKind::Data, contents(5)).await.unwrap();
    let part_root = part
        .put(ChunkKind::Metadata, format!("part\n{chunk}\n").into())
        .await
        .unwrap();
    part.commit_part(part_root).await.unwrap();
    let other = open(store.clone()).await.unwrap();
    let options = CollectOptions {
        delete: false,
        ..at_once()
    };
    let report = other.collect(&Listing, &options).await.unwrap();
    assert_eq!(report.garbage_packs, 0, "{report:?}");
    parent.abandon().await;
    let report = other.collect(&Listing, &options).await.unwrap();
    assert_eq!(report.garbage_packs, 2, "{report:?}");
}

#[tokio::test]
async fn one_cluster_keeps_a_repository_and_another_takes_over() {
    let store = Arc::new(InMemory::new());
    let a = init(store.clone()).await;
    let b = open(store.clone()).await.unwrap();
    let (key_a, key_b) = (a.cluster_key("a"), a.cluster_key("b"));
    assert_eq!(a.keeper().await.unwrap(), None);
    let (first, second) = tokio::join!(a.claim(None, key_a), b.claim(None, key_b));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    let renewed = a.claim(Some(first), key_a).await.unwrap();
    assert_eq!((renewed.number, renewed.cluster), (2, key_a));
    // A zombie claims a term that is over, and learns whose the newest is.
    let taken = b.claim(Some(renewed), key_b).await.unwrap();
    assert_eq!((taken.number, taken.cluster), (3, key_b));
    assert_eq!(a.claim(Some(first), key_a).await.unwrap(), taken);
    assert_eq!(keys(&store, "keeper/").await.len(), 2);
}

/// A history with everything in it, then a collection that is cut at each of its
/// calls to the store, and finished by another.
#[tokio::test]
async fn a_crash_at_any_call_loses_nothing_and_leaves_no_garbage() {
    let base = Arc::new(InMemory::new());
    let repository = init(base.clone()).await;
    let kept = backup(&repository, 1, 0..12).await.unwrap();
    let gone = backup(&repository, 2, 6..18).await.unwrap();
    let also = backup(&repository, 3, 8..10).await.unwrap();
    drop(repository.begin(request(&repository, 4)).await.unwrap());
    repository.forget(gone.session, "a test").await.unwrap();
    let before = objects(&base).await;
    for fault in [Fault::Before, Fault::After] {
        let mut finished = false;
        for call in 0.. {
            let all = before
                .iter()
                .map(|(key, bytes)| (key.as_str(), bytes.clone()));
            let memory = store_of(all).await;
            let store = FaultyStore::new(memory.clone());
            let victim = open(store.clone()).await.unwrap();
            store.plan(Calls::From(call), fault);
            if victim.collect(&Listing, &at_once()).await.is_ok() {
                finished = true;
                break;
            }
            let repository = open(memory.clone()).await.unwrap();
            readable(&repository, &kept, 0..12).await;
            readable(&repository, &also, 8..10).await;
            for _ in 0..3 {
                repository.collect(&Listing, &at_once()).await.unwrap();
            }
            readable(&repository, &kept, 0..12).await;
            readable(&open(memory.clone()).await.unwrap(), &also, 8..10).await;
            assert_eq!(repository.snapshots().await.unwrap().snapshots.len(), 2);
            let dry = CollectOptions {
                delete: false,
                ..at_once()
            };
            let report = repository.collect(&Listing, &dry).await.unwrap();
            assert_eq!(report.garbage_packs, 0, "call {call}: {report:?}");
            for prefix in ["forget/", "beat/"] {
                assert!(keys(&memory, prefix).await.is_empty(), "call {call}");
            }
            assert_eq!(keys(&memory, "end/").await.len(), 2, "call {call}");
            assert_eq!(keys(&memory, "open/").await.len(), 2, "call {call}");
            assert_eq!(keys(&memory, "gc/").await.len(), 2, "call {call}");
        }
        assert!(finished);
    }
}

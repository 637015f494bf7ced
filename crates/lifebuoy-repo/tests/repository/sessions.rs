//! Sessions: what is reused, who wins, what a crash at any call leaves behind.

use std::sync::Arc;

use crate::support::*;
use bytes::Bytes;
use futures::future::join_all;
use lifebuoy_repo::{ChunkKind, End, Error, LABEL_BYTES_MAX, Repository};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};

#[tokio::test]
async fn an_unchanged_backup_costs_four_puts_and_stores_only_its_root() {
    let store = FaultyStore::new(Arc::default());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..50).await.unwrap();

    let repository = open(store.clone()).await.unwrap();
    store.plan(Calls::None, Fault::Before);
    let snapshot = backup(&repository, 2, 0..50).await.unwrap();
    assert_eq!(store.puts(), 4, "open, one metadata pack, index, end");
    assert_eq!(snapshot.seq, 2);
    assert_eq!(restore(&repository, &snapshot).await.unwrap().len(), 50);
}

#[tokio::test]
async fn statistics_say_what_was_new() {
    let repository = init(Arc::new(InMemory::new())).await;
    backup(&repository, 1, 0..5).await.unwrap();
    let writer = repository.begin(request(&repository, 2)).await.unwrap();
    for n in 0..8 {
        writer.put(ChunkKind::Data, contents(n)).await.unwrap();
    }
    writer.put(ChunkKind::Data, contents(7)).await.unwrap();
    let stats = writer.stats();
    assert_eq!((stats.chunks_new, stats.chunks_reused), (3, 6));
    let root = writer.chunk_id(&contents(7));
    writer.commit(root, Bytes::new()).await.unwrap();
    let stats = writer.stats();
    assert_eq!(stats.puts, 4, "open, one data pack, index, end");
    assert!(stats.bytes_stored > 4096 && stats.bytes_in > 9 * 1000);
}

#[tokio::test]
async fn chunks_of_a_session_that_did_not_commit_are_not_reused() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let crashed = repository.begin(request(&repository, 1)).await.unwrap();
    let id = crashed.put(ChunkKind::Data, contents(1)).await.unwrap();
    let other = repository.begin(request(&repository, 2)).await.unwrap();
    assert!(!other.contains(&id));
    repository
        .fence(cluster(&repository), session(1))
        .await
        .unwrap();
    let fenced = crashed.commit(id, Bytes::new()).await;
    assert!(matches!(fenced, Err(Error::Fenced { .. })));
    let later = repository.begin(request(&repository, 3)).await.unwrap();
    assert!(!later.contains(&id));
    assert!(!repository.reader().await.unwrap().contains(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_at_once_both_commit() {
    let store = Arc::new(InMemory::new());
    init(store.clone()).await;
    let (a, b) = (
        open(store.clone()).await.unwrap(),
        open(store.clone()).await.unwrap(),
    );
    let (first, second) = tokio::join!(backup(&a, 1, 0..60), backup(&b, 2, 30..90));
    let fresh = open(store).await.unwrap();
    for (snapshot, range) in [(first.unwrap(), 0..60), (second.unwrap(), 30..90)] {
        let read = restore(&fresh, &snapshot).await.unwrap();
        assert_eq!(read, range.map(contents).collect::<Vec<_>>());
    }
    assert_eq!(fresh.snapshots().await.unwrap().snapshots.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_fences_and_a_commit_one_wins_and_all_agree() {
    let store = Arc::new(InMemory::new());
    init(store.clone()).await;
    for seed in 0..20 {
        let mut handles = Vec::new();
        for _ in 0..16 {
            handles.push(open(store.clone()).await.unwrap());
        }
        let repository = open(store.clone()).await.unwrap();
        let writer = repository.begin(request(&repository, seed)).await.unwrap();
        let root = writer.put(ChunkKind::Data, contents(seed)).await.unwrap();
        let key = cluster(&repository);
        let fences: Vec<_> = handles
            .into_iter()
            .map(|handle| tokio::spawn(async move { handle.fence(key, session(seed)).await }))
            .collect();
        let committed = writer.commit(root, Bytes::new()).await;
        for fence in join_all(fences).await {
            let agrees = match (fence.unwrap().unwrap(), &committed) {
                (End::Committed(seen), Ok(snapshot)) => seen == *snapshot,
                (End::Fenced, Err(Error::Fenced { .. })) => true,
                _ => false,
            };
            assert!(agrees, "session {seed}");
        }
    }
}

#[tokio::test]
async fn a_fence_before_the_session_began_holds() {
    let repository = init(Arc::new(InMemory::new())).await;
    let key = cluster(&repository);
    assert_eq!(repository.session_end(key, session(1)).await.unwrap(), None);
    assert_eq!(
        repository.fence(key, session(1)).await.unwrap(),
        End::Fenced
    );
    let begun = repository.begin(request(&repository, 1)).await;
    assert!(matches!(begun, Err(Error::Fenced { .. })));
    // Fencing twice changes nothing, and neither does fencing after a commit.
    assert_eq!(
        repository.fence(key, session(1)).await.unwrap(),
        End::Fenced
    );
    let snapshot = backup(&repository, 2, 0..2).await.unwrap();
    let end = repository.fence(key, session(2)).await.unwrap();
    assert_eq!(end, End::Committed(snapshot));
}

#[tokio::test]
async fn a_session_id_is_used_once() {
    let repository = init(Arc::new(InMemory::new())).await;
    backup(&repository, 1, 0..1).await.unwrap();
    let again = backup(&repository, 1, 0..1).await;
    assert!(matches!(again, Err(Error::SessionExists { .. })));
}

#[tokio::test]
async fn an_abandoned_session_is_fenced_and_writes_no_more() {
    let repository = init(Arc::new(InMemory::new())).await;
    let writer = repository.begin(request(&repository, 1)).await.unwrap();
    let root = writer.put(ChunkKind::Data, contents(1)).await.unwrap();
    writer.abandon().await;
    assert!(writer.put(ChunkKind::Data, contents(2)).await.is_err());
    assert!(writer.commit(root, Bytes::new()).await.is_err());
    let end = repository
        .session_end(cluster(&repository), session(1))
        .await
        .unwrap();
    assert_eq!(end, Some(End::Fenced));
}

#[tokio::test]
async fn a_snapshot_that_is_not_there_says_why() {
    let repository = init(Arc::new(InMemory::new())).await;
    backup(&repository, 1, 0..1).await.unwrap();
    repository.forget(session(1), "too old").await.unwrap();
    repository
        .forget(session(1), "another reason")
        .await
        .unwrap();
    repository
        .fence(cluster(&repository), session(2))
        .await
        .unwrap();
    let _running = repository.begin(request(&repository, 3)).await.unwrap();
    let why = async |seed| repository.snapshot(session(seed)).await.unwrap_err();
    assert!(matches!(why(1).await, Error::Forgotten { .. }));
    assert!(matches!(
        why(2).await,
        Error::NeverEnded { fenced: true, .. }
    ));
    assert!(matches!(
        why(3).await,
        Error::NeverEnded { fenced: false, .. }
    ));
    assert!(matches!(why(4).await, Error::NotFound { .. }));
    let listed = repository.snapshots().await.unwrap().snapshots;
    assert!(listed.len() == 1 && listed[0].forgotten);
}

#[tokio::test]
async fn limits_are_told_before_anything_is_written() {
    let store = FaultyStore::new(Arc::default());
    let repository = init(store.clone()).await;
    store.plan(Calls::None, Fault::Before);
    let mut long = request(&repository, 1);
    long.label = vec![0; LABEL_BYTES_MAX + 1].into();
    let refused = repository.begin(long).await;
    assert!(matches!(
        refused,
        Err(Error::TooLarge {
            limit: LABEL_BYTES_MAX,
            ..
        })
    ));
    assert_eq!(store.calls(), 0);
    let writer = repository.begin(request(&repository, 2)).await.unwrap();
    let big = vec![0; lifebuoy_repo::CHUNK_BYTES_MAX + 1].into();
    assert!(writer.put(ChunkKind::Data, big).await.is_err());
    let root = writer.put(ChunkKind::Data, Bytes::new()).await.unwrap();
    let summary: Bytes = vec![0; lifebuoy_repo::SUMMARY_BYTES_MAX + 1].into();
    assert!(writer.commit(root, summary).await.is_err());
    let never_put = writer.chunk_id(b"never put");
    let missing = writer.commit(never_put, Bytes::new()).await;
    assert!(matches!(missing, Err(Error::ChunkMissing { .. })));
    writer.commit(root, Bytes::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn heartbeats_begin_after_a_minute_and_are_numbered() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let writer = repository.begin(request(&repository, 1)).await.unwrap();
    let beats = async || {
        let all = objects(&store).await;
        all.iter()
            .filter(|(key, _)| key.starts_with("beat/"))
            .count()
    };
    tokio::time::sleep(std::time::Duration::from_secs(59)).await;
    assert_eq!(beats().await, 0);
    tokio::time::sleep(std::time::Duration::from_secs(122)).await;
    assert_eq!(beats().await, 3);
    for (key, _) in objects(&store).await {
        repository.check_object(&key).await.unwrap();
    }
    drop(writer);
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    assert_eq!(beats().await, 3);
}

#[tokio::test]
async fn a_damaged_plan_or_run_is_named_and_stops_writers() {
    for key in ["gc/1.plan", "gc/1.final", "index/runs/1"] {
        let store = Arc::new(InMemory::new());
        let repository = init(store.clone()).await;
        backup(&repository, 1, 0..3).await.unwrap();
        store
            .put(&Path::from(key), Bytes::from_static(b"?").into())
            .await
            .unwrap();
        let begun = repository.begin(request(&repository, 2)).await;
        assert!(matches!(begun, Err(Error::Corrupt { key: named, .. }) if named == key));
    }
}

#[tokio::test]
async fn ends_that_disappear_are_an_error_and_not_an_empty_repository() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..3).await.unwrap();
    let (end, _) = objects(&store)
        .await
        .into_iter()
        .find(|(k, _)| k.starts_with("end/"))
        .unwrap();
    store.delete(&Path::from(end.as_str())).await.unwrap();
    assert!(matches!(
        repository.snapshots().await,
        Err(Error::Vanished { count: 1, .. })
    ));
    assert!(matches!(
        backup(&repository, 2, 0..3).await,
        Err(Error::Vanished { .. })
    ));
    let fresh = Arc::new(InMemory::new());
    let emptied = init(fresh.clone()).await;
    fresh.delete(&Path::from("format/2")).await.unwrap();
    assert!(matches!(
        emptied.snapshots().await,
        Err(Error::Missing { .. })
    ));
}

/// The process dies, or the network for good, at every call of a backup. What
/// was there before is still there, and a fresh session works.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_call_leaves_a_working_repository() {
    let pristine = Arc::new(InMemory::new());
    let repository = init(pristine.clone()).await;
    let before = backup(&repository, 1, 0..10).await.unwrap();
    let seed = objects(&pristine).await;

    let mut finished = false;
    for fault in [Fault::Before, Fault::After] {
        for cut in 0..60 {
            let memory = store_of(seed.iter().map(|(k, b)| (k.as_str(), b.clone()))).await;
            let store = FaultyStore::new(memory.clone());
            let repository = open(store.clone()).await.unwrap();
            store.plan(Calls::From(cut), fault);
            let crashed = backup(&repository, 2, 5..15).await;
            finished |= crashed.is_ok();
            if finished && crashed.is_ok() {
                break;
            }
            check_after_crash(
                memory,
                &before,
                crashed.is_ok(),
                &format!("{fault:?} {cut}"),
            )
            .await;
        }
    }
    assert!(finished, "a backup needs more calls than this test cuts");
}

async fn check_after_crash(
    memory: Arc<InMemory>,
    before: &lifebuoy_repo::Snapshot,
    acknowledged: bool,
    at: &str,
) {
    let fresh: Repository = open(memory).await.unwrap();
    assert_eq!(restore(&fresh, before).await.unwrap().len(), 10, "{at}");
    match fresh.fence(cluster(&fresh), session(2)).await.unwrap() {
        End::Committed(snapshot) => {
            assert_eq!(restore(&fresh, &snapshot).await.unwrap().len(), 10, "{at}");
        }
        End::Fenced | End::CommittedOther => {
            assert!(!acknowledged, "{at}: an acknowledged commit is gone")
        }
    }
    let next = backup(&fresh, 3, 5..20).await.unwrap();
    let read = restore(&fresh, &next).await.unwrap();
    assert_eq!(read, (5..20).map(contents).collect::<Vec<_>>(), "{at}");
}

/// One call fails and the next works: retries hide it, or the backup fails and
/// its end can be settled; never both.
#[tokio::test(start_paused = true)]
async fn a_single_failure_or_lost_answer_never_makes_a_false_commit() {
    let pristine = Arc::new(InMemory::new());
    init(pristine.clone()).await;
    let seed = objects(&pristine).await;
    for fault in [Fault::Before, Fault::After] {
        for cut in 0..20 {
            let memory = store_of(seed.iter().map(|(k, b)| (k.as_str(), b.clone()))).await;
            let store = FaultyStore::new(memory.clone());
            let repository = open(store.clone()).await.unwrap();
            store.plan(Calls::Only(cut), fault);
            let outcome = backup(&repository, 2, 0..10).await;
            store.plan(Calls::None, fault);
            let end = repository
                .fence(cluster(&repository), session(2))
                .await
                .unwrap();
            match (outcome, end) {
                (Ok(ours), End::Committed(theirs)) => {
                    assert_eq!(ours, theirs);
                    assert_eq!(restore(&repository, &ours).await.unwrap().len(), 10);
                }
                (Err(_), _) => {}
                (Ok(_), End::Fenced | End::CommittedOther) => {
                    panic!("{fault:?} {cut}: acknowledged and fenced")
                }
            }
        }
    }
}

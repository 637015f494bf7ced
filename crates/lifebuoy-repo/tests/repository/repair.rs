//! Repair: what can be read is found again, what cannot is named, and nothing that
//! was there is ever overwritten or deleted.

use std::sync::Arc;

use bytes::Bytes;
use lifebuoy_repo::{CheckLevel, CheckOptions, RepairReport, Repository, Snapshot};
use object_store::memory::InMemory;

use crate::{
    check::{check, delete, first, flip},
    support::*,
};

/// Repairs, and shows that everything that was there is as it was.
async fn repair(store: &InMemory, repository: &Repository, level: CheckLevel) -> RepairReport {
    let before = objects(store).await;
    let options = CheckOptions::new(level);
    let report = repository
        .repair(&Listing, cluster(repository), &options)
        .await
        .unwrap();
    let after = objects(store).await;
    for object in before {
        assert!(after.contains(&object), "{} was touched", object.0);
    }
    report
}

async fn whole(store: &Arc<InMemory>, snapshot: &Snapshot, chunks: std::ops::Range<u64>) {
    let expected: Vec<Bytes> = chunks.map(contents).collect();
    let repository = open(store.clone()).await.unwrap();
    assert_eq!(restore(&repository, snapshot).await.unwrap(), expected);
}

#[tokio::test]
async fn nothing_to_repair_writes_nothing() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..20).await.unwrap();
    let before = objects(&store).await;
    let report = repair(&store, &repository, CheckLevel::All).await;
    assert!(report.left.is_clean(), "{report:#?}");
    assert_eq!(objects(&store).await, before);
}

#[tokio::test]
async fn an_index_is_read_from_the_packs() {
    for is_missing in [true, false] {
        let store = Arc::new(InMemory::new());
        let repository = init(store.clone()).await;
        let snapshot = backup(&repository, 1, 0..20).await.unwrap();
        let key = first(&store, "index/", "").await;
        if is_missing {
            delete(&store, &key).await;
        } else {
            flip(&store, &key, 200).await;
        }
        let repository = open(store.clone()).await.unwrap();
        assert!(!check(&repository, CheckLevel::Structure).await.is_clean());
        let report = repair(&store, &repository, CheckLevel::Structure).await;
        assert_eq!(report.indices, 1);
        assert!(report.left.is_clean(), "{report:#?}");
        whole(&store, &snapshot, 0..20).await;
        // The next collection makes a run of it, and tidies up.
        backup(&repository, 2, 0..5).await.unwrap();
        repository.collect(&Listing, &at_once()).await.unwrap();
        whole(&store, &snapshot, 0..20).await;
        let fresh = open(store.clone()).await.unwrap();
        let report = check(&fresh, CheckLevel::All).await;
        assert!(report.is_clean() && report.healed == 0, "{report:#?}");
        assert!(
            objects(&store)
                .await
                .iter()
                .all(|(key, _)| !key.starts_with("mend/"))
        );
    }
}

#[tokio::test]
async fn a_part_of_a_run_is_read_from_the_packs() {
    for is_missing in [true, false] {
        let store = Arc::new(InMemory::new());
        let repository = init(store.clone()).await;
        let snapshot = backup(&repository, 1, 0..20).await.unwrap();
        let other = backup(&repository, 2, 10..30).await.unwrap();
        backup(&repository, 3, 40..45).await.unwrap();
        repository.forget(session(3), "a test").await.unwrap();
        repository.collect(&Listing, &at_once()).await.unwrap();
        let parts: Vec<String> = objects(&store)
            .await
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with("index/parts/"))
            .collect();
        for key in &parts {
            if is_missing {
                delete(&store, key).await;
            } else {
                flip(&store, key, 200).await;
            }
        }
        let repository = open(store.clone()).await.unwrap();
        let report = check(&repository, CheckLevel::Structure).await;
        assert_eq!(report.affected.len(), 2, "{report:#?}");
        let report = repair(&store, &repository, CheckLevel::Structure).await;
        assert!(report.left.is_clean(), "{report:#?}");
        whole(&store, &snapshot, 0..20).await;
        whole(&store, &other, 10..30).await;
        let again = backup(&repository, 4, 0..40).await.unwrap();
        repository.forget(session(2), "a test").await.unwrap();
        repository.collect(&Listing, &at_once()).await.unwrap();
        whole(&store, &again, 0..40).await;
        whole(&store, &snapshot, 0..20).await;
    }
}

#[tokio::test]
async fn what_the_next_backup_still_sees_is_healed_by_it() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let old = backup(&repository, 1, 0..20).await.unwrap();
    let lost = first(&store, "packs/", ".data").await;
    delete(&store, &lost).await;
    let report = check(&repository, CheckLevel::Structure).await;
    assert_eq!(report.affected.len(), 1, "{report:#?}");
    let new = backup(&repository, 2, 0..20).await.unwrap();
    whole(&store, &new, 0..20).await;
    whole(&store, &old, 0..20).await;
    for repository in [repository, open(store.clone()).await.unwrap()] {
        let report = check(&repository, CheckLevel::All).await;
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(report.healed, 1);
        repository.collect(&Listing, &at_once()).await.unwrap();
        whole(&store, &old, 0..20).await;
    }
}

#[tokio::test]
async fn a_damaged_pack_is_copied_as_far_as_it_can_be_read() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let old = backup(&repository, 1, 0..20).await.unwrap();
    let damaged = first(&store, "packs/", ".data").await;
    flip(&store, &damaged, 60).await;
    let report = repair(&store, &repository, CheckLevel::All).await;
    assert_eq!(report.packs_set_aside, 1);
    assert_eq!(report.chunks_copied, 19);
    assert_eq!(report.left.affected.len(), 1, "{report:#?}");
    assert_eq!(report.left.problems[0].key, damaged);
    // A collection deletes nothing before the last chunk is healed.
    assert!(repository.collect(&Listing, &at_once()).await.is_err());
    let repository = open(store.clone()).await.unwrap();
    backup(&repository, 2, 0..20).await.unwrap();
    whole(&store, &old, 0..20).await;
    let report = check(&repository, CheckLevel::All).await;
    assert!(report.is_clean(), "{report:#?}");
    repository.collect(&Listing, &at_once()).await.unwrap();
    whole(&store, &old, 0..20).await;
    assert!(objects(&store).await.iter().all(|(key, _)| *key != damaged));
}

#[tokio::test]
async fn what_a_lost_pack_alone_held_is_named_and_the_rest_is_found() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..20).await.unwrap();
    // Both the index and one of its packs: the other pack is found again.
    delete(&store, &first(&store, "index/", "").await).await;
    delete(&store, &first(&store, "packs/", ".data").await).await;
    let repository = open(store.clone()).await.unwrap();
    let report = repair(&store, &repository, CheckLevel::Structure).await;
    assert_eq!(report.indices, 1);
    assert_eq!(report.left.affected.len(), 1, "{report:#?}");
    assert_eq!(report.left.problems_total, 20, "a chunk each");
}

#[tokio::test]
async fn without_the_newest_run_nothing_is_written() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..20).await.unwrap();
    backup(&repository, 2, 40..45).await.unwrap();
    repository.forget(session(2), "a test").await.unwrap();
    repository.collect(&Listing, &at_once()).await.unwrap();
    let run = first(&store, "index/runs/", "").await;
    flip(&store, &run, 150).await;
    let before = objects(&store).await;
    let repository = open(store.clone()).await.unwrap();
    let report = repair(&store, &repository, CheckLevel::Structure).await;
    assert_eq!(report.left.problems[0].key, run, "{report:#?}");
    assert!(
        report.left.problems[0]
            .message
            .contains("restore this very object")
    );
    assert_eq!(report.left.affected.len(), 1);
    assert_eq!(objects(&store).await, before);
}

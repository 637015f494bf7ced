//! Checks: every kind of damage is found at the right level and named, and what is
//! sound is clean.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc};

use lifebuoy_repo::{CheckLevel, CheckOptions, CheckReport, Repository};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};

use crate::support::*;

pub(crate) async fn check(repository: &Repository, level: CheckLevel) -> CheckReport {
    let options = CheckOptions::new(level);
    repository.check(&Listing, &options).await.unwrap()
}

pub(crate) async fn first(store: &InMemory, prefix: &str, suffix: &str) -> String {
    let all = objects(store).await.into_iter();
    let mut fits = all.map(|(key, _)| key);
    fits.find(|key| key.starts_with(prefix) && key.ends_with(suffix))
        .unwrap()
}

pub(crate) async fn delete(store: &InMemory, key: &str) {
    store.delete(&Path::from(key)).await.unwrap();
}

/// Flips a byte in the middle of an object.
pub(crate) async fn flip(store: &InMemory, key: &str, at: usize) {
    let path = Path::from(key);
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    store.put(&path, bytes.into()).await.unwrap();
}

async fn two_snapshots() -> (Arc<InMemory>, Repository) {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..20).await.unwrap();
    backup(&repository, 2, 10..30).await.unwrap();
    (store, repository)
}

#[tokio::test]
async fn a_sound_repository_is_clean_whatever_else_is_in_it() {
    let (store, repository) = two_snapshots().await;
    backup(&repository, 3, 40..50).await.unwrap();
    repository.forget(session(3), "a test").await.unwrap();
    let open_one = repository.begin(request(&repository, 4)).await.unwrap();
    repository
        .fence(cluster(&repository), session(5))
        .await
        .unwrap();
    for round in 0..2 {
        for repository in [repository.clone(), open(store.clone()).await.unwrap()] {
            for level in [CheckLevel::Structure, CheckLevel::All] {
                let report = check(&repository, level).await;
                assert!(report.is_clean(), "round {round}: {report:#?}");
                assert_eq!(report.snapshots, 2);
            }
        }
        if round == 0 {
            open_one.abandon().await;
            repository.collect(&Listing, &at_once()).await.unwrap();
            backup(&repository, 6, 10..40).await.unwrap();
            repository.forget(session(6), "a test").await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_shares_read_every_pack_once() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    for seed in 1..=12 {
        backup(&repository, seed, seed * 10..seed * 10 + 3)
            .await
            .unwrap();
    }
    let all = check(&repository, CheckLevel::All).await;
    assert_eq!(all.packs_read, all.packs);
    let (mut read, mut bytes) = (0, 0);
    let of = NonZeroU32::new(5).unwrap();
    for part in 0..5 {
        let level = CheckLevel::Share { part, of };
        let report = check(&repository, level).await;
        assert!(report.is_clean());
        assert_eq!(report, check(&repository, level).await, "the same again");
        read += report.packs_read;
        bytes += report.bytes_read;
    }
    assert_eq!((read, bytes), (all.packs_read, all.bytes_read));
}

#[tokio::test]
async fn a_lost_pack_is_named_with_what_it_costs() {
    let (store, repository) = two_snapshots().await;
    let lost = first(&store, "packs/", ".data").await;
    delete(&store, &lost).await;
    let before = objects(&store).await;
    let report = check(&repository, CheckLevel::Structure).await;
    assert_eq!(report.problems_total, 1, "{report:#?}");
    assert_eq!(report.problems[0].key, lost);
    assert!(report.problems[0].message.contains("missing"));
    assert!(!report.affected.is_empty());
    assert_eq!(objects(&store).await, before, "a check writes nothing");
}

#[tokio::test]
async fn a_pack_that_is_cut_off_is_found_without_reading_it() {
    let (store, repository) = two_snapshots().await;
    let key = first(&store, "packs/", ".data").await;
    let path = Path::from(key.as_str());
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    store.put(&path, bytes.slice(..100).into()).await.unwrap();
    let report = check(&repository, CheckLevel::Structure).await;
    assert_eq!(report.problems[0].key, key, "{report:#?}");
    assert!(report.problems[0].message.contains("100 bytes"));
}

#[tokio::test]
async fn a_flipped_bit_of_data_is_found_by_reading_only() {
    let (store, repository) = two_snapshots().await;
    let key = first(&store, "packs/", ".data").await;
    flip(&store, &key, 60).await;
    assert!(check(&repository, CheckLevel::Structure).await.is_clean());
    let report = check(&repository, CheckLevel::All).await;
    assert_eq!(report.problems_total, 1, "{report:#?}");
    assert_eq!(report.problems[0].key, key);
    assert!(report.problems[0].message.contains("1 of its chunks"));
    assert!(!report.affected.is_empty());
    // A flipped bit of the footer loses no chunk, and is named all the same.
    flip(&store, &key, 60).await;
    let length = store.head(&Path::from(key.as_str())).await.unwrap().size;
    flip(&store, &key, length as usize - 1).await;
    let report = check(&repository, CheckLevel::All).await;
    assert_eq!(report.problems_total, 1, "{report:#?}");
    assert!(report.affected.is_empty(), "{report:#?}");
}

#[tokio::test]
async fn what_was_found_is_read_again_whatever_the_share_is() {
    let (store, repository) = two_snapshots().await;
    let key = first(&store, "packs/", ".data").await;
    flip(&store, &key, 60).await;
    // So many shares that one of them has none of the few packs.
    let of = NonZeroU32::new(1000).unwrap();
    let mut elsewhere = None;
    for part in 0..1000 {
        let report = check(&repository, CheckLevel::Share { part, of }).await;
        if report.packs_read == 0 {
            elsewhere = Some(CheckLevel::Share { part, of });
            break;
        }
    }
    for level in [elsewhere.unwrap(), CheckLevel::Structure] {
        let mut options = CheckOptions::new(level);
        assert!(check(&repository, level).await.is_clean());
        options.again.insert(key.clone());
        let report = repository.check(&Listing, &options).await.unwrap();
        assert_eq!(report.problems_total, 1, "{report:#?}");
        assert_eq!((report.packs_read, &report.problems[0].key), (1, &key));
    }
    flip(&store, &key, 60).await;
    let mut options = CheckOptions::new(CheckLevel::Structure);
    options.again = BTreeSet::from([key, "packs/of/nobody".to_owned()]);
    let report = repository.check(&Listing, &options).await.unwrap();
    assert!(report.is_clean() && report.packs_read == 1, "{report:#?}");
}

#[tokio::test]
async fn every_damaged_record_is_named() {
    let (store, repository) = two_snapshots().await;
    repository.forget(session(1), "a test").await.unwrap();
    repository.collect(&Listing, &at_once()).await.unwrap();
    backup(&repository, 3, 0..40).await.unwrap();
    repository.forget(session(2), "a test").await.unwrap();
    let all = objects(&store).await;
    let mut kinds = BTreeSet::new();
    for (key, bytes) in &all {
        if key.starts_with("packs/") || key.starts_with("probe/") || key.starts_with("format/2") {
            continue;
        }
        kinds.insert(key.split('/').next().unwrap());
        let path = Path::from(key.as_str());
        // One that opened the repository before, and one that knows nothing yet.
        flip(&store, key, bytes.len() / 2).await;
        if let Ok(fresh) = open(store.clone()).await {
            let report = check(&fresh, CheckLevel::Structure).await;
            let named = report.problems.iter().any(|problem| problem.key == *key);
            assert!(named, "{key}: {report:#?}");
        } else {
            assert!(key.starts_with("keys/"), "{key}");
        }
        store.put(&path, bytes.clone().into()).await.unwrap();
    }
    assert!(kinds.len() >= 6, "{kinds:?}");
    let fresh = open(store.clone()).await.unwrap();
    assert!(check(&fresh, CheckLevel::All).await.is_clean());
}

#[tokio::test]
async fn lost_records_that_snapshots_need_are_named() {
    let (store, repository) = two_snapshots().await;
    let index = first(&store, "index/", "").await;
    let end = first(&store, "end/", "").await;
    for (key, needs_known) in [(index, false), (end, true)] {
        let path = Path::from(key.as_str());
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        let known = open(store.clone()).await.unwrap();
        assert!(check(&known, CheckLevel::Structure).await.is_clean());
        let looks_again = if needs_known {
            known
        } else {
            open(store.clone()).await.unwrap()
        };
        delete(&store, &key).await;
        let report = check(&looks_again, CheckLevel::Structure).await;
        assert!(
            report.problems.iter().any(|problem| problem.key == key),
            "{key}: {report:#?}"
        );
        assert!(!report.affected.is_empty());
        store.put(&path, bytes.into()).await.unwrap();
    }
    assert!(check(&repository, CheckLevel::All).await.is_clean());
}

//! Damaged objects: every byte flipped, every length cut. What is read is right
//! or an error; never a panic, never wrong data.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use lifebuoy_repo::{ChunkKind, Damage, Error, Repository};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};

use crate::support::*;

/// One object of each kind, small.
async fn small_repository() -> Vec<(String, Bytes)> {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..3).await.unwrap();
    repository.forget(session(1), "reason").await.unwrap();
    repository
        .fence(cluster(&repository), session(2))
        .await
        .unwrap();
    objects(&store).await
}

fn mutations(bytes: &Bytes, step: usize) -> Vec<(String, Bytes)> {
    let mut all = Vec::new();
    for at in (0..bytes.len()).step_by(step) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x41;
        all.push((format!("byte {at} flipped"), flipped.into()));
        all.push((format!("cut to {at}"), bytes.slice(..at)));
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    all.push(("one byte longer".into(), longer.into()));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_every_object_is_noticed() {
    let all = small_repository().await;
    let kinds: BTreeSet<&str> = all
        .iter()
        .filter_map(|(k, _)| Some(k.split_once('/')?.0))
        .collect();
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    let store = Arc::new(InMemory::new());
    for (key, bytes) in &all {
        store
            .put(&Path::from(key.as_str()), bytes.clone().into())
            .await
            .unwrap();
    }
    let repository = open(store.clone()).await.unwrap();
    for (key, bytes) in &all {
        let path = Path::from(key.as_str());
        for (what, changed) in mutations(bytes, 1 + bytes.len() / 700) {
            store.put(&path, changed.into()).await.unwrap();
            let checked = repository.check_object(key).await;
            assert!(checked.is_err(), "{key}: {what}: {checked:?}");
        }
        store.put(&path, bytes.clone().into()).await.unwrap();
        repository.check_object(key).await.unwrap();
    }
}

/// The same through the front door: open, list, restore.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_repository_gives_right_data_or_an_error() {
    let all = small_repository().await;
    for (damaged, bytes) in &all {
        for (what, changed) in mutations(bytes, 1 + bytes.len() / 40) {
            let store = store_of(all.iter().map(|(key, bytes)| {
                let bytes = if key == damaged {
                    changed.clone()
                } else {
                    bytes.clone()
                };
                (key.as_str(), bytes)
            }))
            .await;
            read_all(store, damaged, &what).await;
        }
    }
}

async fn read_all(store: Arc<InMemory>, damaged: &str, what: &str) {
    let at = format!("{damaged}: {what}");
    let repository: Repository = match open(store).await {
        Ok(repository) => repository,
        Err(Error::Corrupt { .. } | Error::NewerFormat { .. }) => return,
        Err(error) => panic!("{at}: {error}"),
    };
    let listed = repository.snapshots().await.unwrap();
    if listed.snapshots.is_empty() {
        assert!(
            listed.unreadable.iter().any(|(key, _)| key == damaged),
            "{at}"
        );
        return;
    }
    match restore(&repository, &listed.snapshots[0]).await {
        Ok(chunks) => assert_eq!(chunks, (0..3).map(contents).collect::<Vec<_>>(), "{at}"),
        Err(Error::Corrupt { key, .. }) => assert_eq!(key, damaged, "{at}"),
        Err(Error::ChunkMissing { incomplete, .. }) => assert_eq!(incomplete, 1, "{at}"),
        Err(error) => panic!("{at}: {error}"),
    }
}

#[tokio::test]
async fn objects_that_trade_places_do_not_open() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..3).await.unwrap();
    backup(&repository, 2, 3..6).await.unwrap();
    for prefix in ["open/", "end/", "index/", "packs/"] {
        let all = objects(&store).await;
        let some: Vec<_> = all
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .collect();
        let pair = |suffix: &str| {
            some.iter()
                .filter(|(k, _)| k.ends_with(suffix))
                .take(2)
                .copied()
                .collect::<Vec<_>>()
        };
        let suffix = if prefix == "packs/" { ".data" } else { "" };
        let [(a, _), (b, swapped)] = pair(suffix)[..] else {
            panic!("two objects below {prefix}")
        };
        let path = Path::from(a.as_str());
        let original = store.get(&path).await.unwrap().bytes().await.unwrap();
        store.put(&path, swapped.clone().into()).await.unwrap();
        let checked = repository.check_object(a).await;
        assert!(
            matches!(checked, Err(Error::Corrupt { .. })),
            "{a} <- {b}: {checked:?}"
        );
        store.put(&path, original.into()).await.unwrap();
    }
}

#[tokio::test]
async fn another_repositorys_objects_do_not_open() {
    let (ours, theirs) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
    let repository = init(ours.clone()).await;
    let other = init(theirs.clone()).await;
    backup(&other, 1, 0..3).await.unwrap();
    for (key, bytes) in objects(&theirs).await {
        if key.starts_with("format/") || key.starts_with("keys/") {
            continue;
        }
        ours.put(&Path::from(key.as_str()), bytes.into())
            .await
            .unwrap();
        let checked = repository.check_object(&key).await;
        assert!(
            matches!(
                checked,
                Err(Error::Corrupt {
                    damage: Damage::Commitment,
                    ..
                })
            ),
            "{key}: {checked:?}"
        );
    }
    // A record that cannot be read is reported, and does not stop the others.
    backup(&repository, 2, 0..3).await.unwrap();
    let listed = repository.snapshots().await.unwrap();
    assert_eq!((listed.snapshots.len(), listed.unreadable.len()), (1, 1));
}

#[tokio::test]
async fn a_snapshot_whose_packs_have_not_arrived_says_so() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let snapshot = backup(&repository, 1, 0..3).await.unwrap();
    for (key, _) in objects(&store).await {
        if key.starts_with("index/") {
            store.delete(&Path::from(key.as_str())).await.unwrap();
        }
    }
    let replica = open(store.clone()).await.unwrap();
    let missing = restore(&replica, &snapshot).await;
    assert!(matches!(
        missing,
        Err(Error::ChunkMissing { incomplete: 1, .. })
    ));
    // A writer does not count on what it cannot see, and stores it again.
    let again = backup(&replica, 2, 0..3).await.unwrap();
    assert_eq!(restore(&replica, &again).await.unwrap().len(), 3);
    let writer = replica.begin(request(&replica, 3)).await.unwrap();
    let id = writer.put(ChunkKind::Data, contents(0)).await.unwrap();
    assert!(writer.contains(&id));
}

/// One who has no key can still make a checksum fit.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_checksum_helps_nobody() {
    let all = small_repository().await;
    for (key, bytes) in &all {
        if !["packs/", "keys/", "format/"]
            .iter()
            .any(|p| key.starts_with(p))
        {
            continue;
        }
        let hashed = bytes.len() - 32;
        for at in (0..hashed).step_by(1 + hashed / 200) {
            let mut forged = bytes.to_vec();
            forged[at] ^= 0x01;
            let hash = blake3::hash(&forged[..hashed]);
            forged[hashed..].copy_from_slice(hash.as_bytes());
            let store = store_of(all.iter().map(|(k, b)| {
                let bytes = if k == key {
                    forged.clone().into()
                } else {
                    b.clone()
                };
                (k.as_str(), bytes)
            }))
            .await;
            let outcome = match open(store).await {
                Ok(repository) => repository.check_object(key).await.map(|_| ()),
                Err(error) => Err(error),
            };
            assert!(
                matches!(
                    outcome,
                    Err(Error::Corrupt { .. }
                        | Error::WrongPassphrase
                        | Error::NewerFormat { .. }
                        | Error::UnknownFeatures { .. })
                ),
                "{key}: byte {at}: {outcome:?}"
            );
        }
    }
}

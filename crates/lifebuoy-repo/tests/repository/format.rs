//! The bucket as `docs/format.md` describes it: nothing in it but what is listed
//! as clear looks like anything but noise, and an old repository stays readable.

use std::{collections::BTreeMap, sync::Arc};

use lifebuoy_repo::{ChunkKind, Purpose, SessionRequest};
use object_store::memory::InMemory;

use crate::{independent::read_bucket, support::*};

/// How many bytes at the beginning and at the end of an object are clear.
fn clear(key: &str, len: usize) -> (usize, usize) {
    match key.split_once('/').map(|(first, _)| first) {
        Some("format" | "probe") => (len, 0),
        Some("keys") => (112, 32),
        Some("packs") => (48, 68),
        Some("open" | "end" | "index" | "forget" | "beat") => (92, 0),
        _ => panic!("{key} is not in the table"),
    }
}

#[tokio::test]
async fn names_and_contents_do_not_show_in_the_bucket() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    let secret = "kube-system-uid-1234/payments";
    let text = secret.repeat(3000);
    let writer = repository
        .begin(SessionRequest {
            id: session(1),
            cluster: repository.cluster_key(secret),
            purpose: Purpose::Backup,
            label: secret.into(),
        })
        .await
        .unwrap();
    let root = writer
        .put(ChunkKind::Metadata, secret.into())
        .await
        .unwrap();
    writer.put(ChunkKind::Data, text.into()).await.unwrap();
    writer.commit(root, secret.into()).await.unwrap();
    repository.forget(session(1), secret).await.unwrap();
    repository.probe().await.unwrap();

    let all = objects(&store).await;
    let mut noise = Vec::new();
    for (key, bytes) in &all {
        let (head, tail) = clear(key, bytes.len());
        noise.extend_from_slice(&bytes[head..bytes.len() - tail]);
        let readable = bytes
            .windows(8)
            .any(|some| secret.as_bytes().windows(8).any(|s| s == some));
        assert!(!readable, "{key} shows what is stored");
        assert!(
            key.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/.-".contains(&b))
        );
        assert!(
            !bytes.windows(32).any(|some| some == root.as_bytes()),
            "{key} shows a chunk id"
        );
    }
    // All byte values about equally often: what AEAD output looks like.
    let mut counts = [0_f64; 256];
    for byte in &noise {
        counts[usize::from(*byte)] += 1.0;
    }
    let expected = noise.len() as f64 / 256.0;
    let chi2: f64 = counts
        .iter()
        .map(|n| (n - expected).powi(2) / expected)
        .sum();
    assert!(
        noise.len() > 5000 && chi2 < 400.0,
        "{} bytes, chi² {chi2}",
        noise.len()
    );
}

#[tokio::test]
async fn twice_the_same_contents_give_different_objects() {
    let stores = [Arc::new(InMemory::new()), Arc::new(InMemory::new())];
    let mut buckets = Vec::new();
    for store in &stores {
        let repository = init(store.clone()).await;
        backup(&repository, 1, 0..3).await.unwrap();
        buckets.push(objects(store).await);
    }
    for (key, bytes) in &buckets[0] {
        let same = buckets[1].iter().any(|(_, other)| other == bytes);
        assert!(!same, "{key} is the same in two repositories");
    }
}

#[tokio::test]
async fn sizes_are_rounded() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..30).await.unwrap();
    for (key, bytes) in objects(&store).await {
        if key.starts_with("packs/") {
            assert_eq!(bytes.len() % 4096, 0, "{key}");
        } else if !key.starts_with("format/") && !key.starts_with("keys/") {
            assert_eq!((bytes.len() - 108) % 256, 0, "{key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_reader_accounts_for_every_byte() {
    let store = Arc::new(InMemory::new());
    let repository = init(store.clone()).await;
    backup(&repository, 1, 0..30).await.unwrap();
    backup(&repository, 2, 0..40).await.unwrap();
    repository.forget(session(1), "why not").await.unwrap();
    repository
        .fence(cluster(&repository), session(3))
        .await
        .unwrap();
    repository.probe().await.unwrap();
    let _beating = repository.begin(request(&repository, 4)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;

    let all: BTreeMap<String, Vec<u8>> = objects(&store)
        .await
        .into_iter()
        .map(|(key, bytes)| (key, bytes.to_vec()))
        .collect();
    let bucket = read_bucket(&all, "correct horse battery staple").unwrap();
    assert_eq!(bucket.objects["format"], 2);
    assert_eq!(bucket.objects.len(), 9, "{:?}", bucket.objects);
    assert_eq!(bucket.fenced.len(), 1);
    assert_eq!(bucket.chunks.len(), 40 + 2);
    assert!(bucket.indexed.iter().eq(bucket.chunks.keys()));
    let (root, summary) = &bucket.snapshots[&session(2).to_string()];
    assert_eq!(summary, b"{}");
    let root = String::from_utf8(bucket.chunks[root].clone()).unwrap();
    for (n, line) in (0..).zip(root.lines().skip(1)) {
        let id: lifebuoy_repo::ChunkId = line.parse().unwrap();
        assert_eq!(bucket.chunks[id.as_bytes()], contents(n));
    }

    let wrong = read_bucket(&all, "guess").unwrap_err();
    assert_eq!(wrong, "wrong passphrase");
    for key in all.keys().filter(|key| !key.starts_with("probe/")) {
        let mut changed = all.clone();
        let bytes = changed.get_mut(key).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert!(
            read_bucket(&changed, "correct horse battery staple").is_err(),
            "{key}"
        );
    }
}

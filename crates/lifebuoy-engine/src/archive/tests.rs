//! Archives in a repository in memory: what is written is what is read.

use std::sync::Arc;

use futures::TryStreamExt;
use lifebuoy_repo::{ChunkKind, Repository, SessionId};
use proptest::prelude::*;

use super::{
    node::{Child, Entry, Node, Segment},
    *,
};
use crate::testing::{fake_manifest, repository, session};

fn id() -> TypeId {
    TypeId::new("", "configmaps")
}

fn key(number: usize) -> ObjectKey {
    ObjectKey::new(
        format!("ns-{:03}", number / 40),
        format!("object-{number:05}"),
    )
}

fn content(number: usize, version: usize) -> (Vec<u8>, Vec<u8>) {
    let text = "x".repeat(number * 37 % 900);
    (
        format!(r#"{{"n":{number},"v":{version},"text":"{text}"}}"#).into_bytes(),
        format!(r#"{{"resourceVersion":"{number}{version}"}}"#).into_bytes(),
    )
}

/// Writes `count` objects, those in `changed` in another version, and commits.
async fn write(
    repo: &Repository,
    count: usize,
    changed: &[usize],
) -> (SessionId, TypeRecord, lifebuoy_repo::WriteStats) {
    let (session, writer) = session(repo).await;
    let mut objects = ArchiveWriter::new(Arc::clone(&writer)).begin(id());
    for number in 0..count {
        let (stable, volatile) = content(number, usize::from(changed.contains(&number)));
        objects.push(key(number), &stable, &volatile).await.unwrap();
    }
    let totals = objects.finish().await.unwrap();
    let manifest = fake_manifest(&id(), totals);
    let before = writer.stats();
    let root = writer
        .put(ChunkKind::Metadata, manifest.to_bytes().unwrap())
        .await
        .unwrap();
    let summary = manifest.summary.to_bytes().unwrap();
    writer.commit(root, summary).await.unwrap();
    (session, manifest.types[0].clone(), before)
}

#[tokio::test]
async fn what_was_written_is_read_in_order_by_key_and_by_choice() {
    let repo = repository().await;
    for count in [0, 1, 2, 33, 1000, 5000] {
        let (session, record, _) = write(&repo, count, &[]).await;
        let archive = Archive::open(&repo, session).await.unwrap();
        assert_eq!(archive.manifest.types, std::slice::from_ref(&record));
        let objects: Vec<_> = archive.objects(&record).try_collect().await.unwrap();
        assert_eq!(objects.len(), count);
        for (number, object) in objects.iter().enumerate() {
            let (stable, volatile) = content(number, 0);
            assert_eq!(object.key, key(number));
            assert_eq!(
                (&object.stable[..], &object.volatile[..]),
                (&stable[..], &volatile[..])
            );
        }
        let keys: Vec<_> = archive.keys(&record).try_collect().await.unwrap();
        assert!(
            keys.iter()
                .map(|(k, _)| k)
                .eq(objects.iter().map(|o| &o.key))
        );
        for number in (0..count).step_by(97) {
            let found = archive.get(&record, &key(number)).await.unwrap();
            assert_eq!(found.as_ref(), objects.get(number));
        }
        for absent in [
            ObjectKey::new("", ""),
            ObjectKey::new("ns-000", "object-00000x"),
            ObjectKey::new("z", "z"),
        ] {
            assert_eq!(archive.get(&record, &absent).await.unwrap(), None);
        }
        let chosen: Vec<_> = archive
            .select(&record, |k| k.name.ends_with("17"))
            .try_collect()
            .await
            .unwrap();
        let expected: Vec<_> = objects
            .iter()
            .filter(|o| o.key.name.ends_with("17"))
            .cloned()
            .collect();
        assert_eq!(chosen, expected);
    }
}

#[tokio::test]
async fn an_unchanged_type_stores_nothing_and_a_changed_object_one_path() {
    let repo = repository().await;
    let (_, first, _) = write(&repo, 4000, &[]).await;
    let (_, second, stats) = write(&repo, 4000, &[]).await;
    assert_eq!(first.tree, second.tree);
    assert_eq!(stats.chunks_new, 0);
    let (session, third, stats) = write(&repo, 4000, &[1234]).await;
    assert_ne!(first.tree, third.tree);
    // Two columns, a leaf, and the nodes above it: how many there are depends on
    // the repository's random key, by which the tree is cut.
    assert!((3..=6).contains(&stats.chunks_new), "{stats:?}");
    let archive = Archive::open(&repo, session).await.unwrap();
    let before: Vec<_> = archive.keys(&first).try_collect().await.unwrap();
    let after: Vec<_> = archive.keys(&third).try_collect().await.unwrap();
    let differ: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    assert_eq!(differ.len(), 1);
    assert_eq!(differ[0].0.0, key(1234));
}

#[tokio::test]
async fn an_object_out_of_order_is_refused() {
    let repo = repository().await;
    let (_, writer) = session(&repo).await;
    let mut objects = ArchiveWriter::new(writer).begin(id());
    objects.push(key(2), b"{}", b"{}").await.unwrap();
    assert!(objects.push(key(2), b"{}", b"{}").await.is_err());
    assert!(objects.push(key(1), b"{}", b"{}").await.is_err());
}

#[tokio::test]
async fn large_objects_stand_alone_in_their_segments() {
    let repo = repository().await;
    let (session, writer) = session(&repo).await;
    let mut objects = ArchiveWriter::new(Arc::clone(&writer)).begin(id());
    let large = vec![b'x'; 1 << 20];
    for number in 0..40 {
        objects.push(key(number), &large, b"{}").await.unwrap();
    }
    let manifest = fake_manifest(&id(), objects.finish().await.unwrap());
    let root = writer
        .put(ChunkKind::Metadata, manifest.to_bytes().unwrap())
        .await
        .unwrap();
    writer
        .commit(root, manifest.summary.to_bytes().unwrap())
        .await
        .unwrap();
    let archive = Archive::open(&repo, session).await.unwrap();
    let record = &archive.manifest.types[0];
    let count = archive.objects(record).try_fold(0, |n, o| async move {
        assert_eq!(o.stable.len(), 1 << 20);
        Ok(n + 1)
    });
    assert_eq!(count.await.unwrap(), 40);
}

fn any_key() -> impl Strategy<Value = ObjectKey> {
    ("[a-z-]{0,6}", "[a-z0-9.:-]{1,12}").prop_map(|(ns, name)| ObjectKey::new(ns, name))
}

fn chunk() -> impl Strategy<Value = lifebuoy_repo::ChunkId> {
    any::<[u8; 32]>().prop_map(lifebuoy_repo::ChunkId::from_bytes)
}

fn any_node() -> impl Strategy<Value = Node> {
    let keys = || prop::collection::btree_set(any_key(), 1..40);
    let leaf = (keys(), chunk(), 1_usize..9, 0_u64..5000).prop_map(|(keys, id, cut, bytes)| {
        let entries: Vec<Entry> = keys
            .into_iter()
            .map(|key| Entry {
                key,
                stable_bytes: bytes,
                volatile_bytes: bytes / 3,
                hash: ObjectHash([7; 16]),
            })
            .collect();
        let segments = entries.chunks(cut).map(|entries| Segment {
            stable: id,
            volatile: id,
            entries: entries.to_vec(),
        });
        Node::Leaf(segments.collect())
    });
    let inner = (keys(), chunk(), 1_u8..=12).prop_map(|(keys, node, level)| {
        let children = keys.into_iter().map(|first| Child {
            first,
            objects: 300,
            node,
        });
        Node::Inner(level, children.collect())
    });
    prop_oneof![leaf, inner]
}

proptest! {
    #[test]
    fn nodes_round_trip(node in any_node()) {
        prop_assert_eq!(Node::decode(&node.encode()), Ok(node));
    }

    #[test]
    fn damaged_nodes_are_refused_or_read_but_never_panic(
        node in any_node(),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        let mut bytes = node.encode().to_vec();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let _ = Node::decode(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(Node::decode(&bytes).is_err());
    }

    #[test]
    fn noise_is_refused_or_read_but_never_panics(bytes: Vec<u8>) {
        let _ = Node::decode(&bytes);
    }
}

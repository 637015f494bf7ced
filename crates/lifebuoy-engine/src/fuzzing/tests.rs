//! The corpus as ordinary tests, and what it begins with: nodes, manifests and
//! summaries as they are written.

use lifebuoy_api::{Completeness, Consistency, Problem, VolumePolicy};
use lifebuoy_repo::ChunkId;

use super::*;
use crate::{
    archive::{
        Fidelity, ObjectHash, ObjectKey, TypeId, TypeTotals, UnavailableGroup,
        node::{Child, Entry, Segment},
    },
    testing,
};

#[path = "../../../../fuzz/inputs.rs"]
mod inputs;

#[test]
fn every_input_of_the_corpus_passes() {
    inputs::run_corpus(TARGETS);
}

#[test]
fn every_seed_is_read() {
    let seeds = seeds();
    for (target, name, input) in &seeds {
        let read = match *target {
            "tree_node" => Node::decode(input).is_ok(),
            "manifest" => Manifest::from_bytes(input).is_ok(),
            "summary" => PointSummary::from_bytes(input).is_ok(),
            other => panic!("{other} has no seeds"),
        };
        assert!(read, "{target}: {name}");
    }
    let seeds = seeds.iter();
    let seeds: Vec<_> = seeds
        .map(|(target, name, input)| (*target, *name, &**input))
        .collect();
    inputs::run_seeds(TARGETS, &seeds);
}

fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let id = TypeId::new("apps", "deployments");
    let totals = TypeTotals {
        objects: 3,
        bytes: 4000,
        tree: Some(ChunkId::from_bytes([1; 32])),
    };
    let plain = testing::fake_manifest(&id, totals);
    vec![
        ("tree_node", "leaf", leaf(&[1]).encode().into()),
        (
            "tree_node",
            "leaf-of-segments",
            leaf(&[2, 1, 3]).encode().into(),
        ),
        ("tree_node", "inner", inner(1).encode().into()),
        ("tree_node", "high", inner(12).encode().into()),
        ("manifest", "plain", plain.to_bytes().unwrap().into()),
        (
            "manifest",
            "partial",
            partial(plain).to_bytes().unwrap().into(),
        ),
        (
            "summary",
            "plain",
            testing::summary().to_bytes().unwrap().into(),
        ),
    ]
}

/// A manifest in which every optional field is there.
fn partial(mut manifest: Manifest) -> Manifest {
    manifest.summary.completeness = Completeness::Partial;
    manifest.summary.consistency = Consistency::Fuzzy;
    manifest.selection.namespaces = vec!["shop-*".to_owned()];
    manifest.volumes = VolumePolicy::Skip;
    manifest.own_namespace = Some("lifebuoy".to_owned());
    manifest.volumes_not_saved = vec![ObjectKey::new("shop", "data-0")];
    manifest.unavailable_groups = vec![UnavailableGroup {
        group: "metrics.k8s.io".to_owned(),
        version: "v1beta1".to_owned(),
        message: "no endpoints".to_owned(),
    }];
    manifest.problems = vec![Problem::error(
        "Unavailable",
        "pods.metrics.k8s.io",
        "no endpoints",
    )];
    let mut unread = manifest.types[0].clone();
    unread.fidelity = Fidelity::Unavailable {
        reason: "it was down".to_owned(),
    };
    unread.resource_version = None;
    unread.tree = None;
    manifest.types[0].fidelity = Fidelity::Fuzzy {
        reason: "read on its own".to_owned(),
    };
    manifest.types.push(unread);
    manifest
}

fn key(number: usize) -> ObjectKey {
    ObjectKey::new("shop", format!("web-{number:03}"))
}

/// A leaf with segments of so many entries.
fn leaf(entries: &[usize]) -> Node {
    let mut numbers = 0..;
    let mut entry = || {
        let number = numbers.next().unwrap_or(0);
        Entry {
            key: key(number),
            stable_bytes: 300 + number as u64,
            volatile_bytes: 90,
            hash: ObjectHash([number as u8; ObjectHash::BYTES]),
        }
    };
    let segment = |(n, count): (u8, &usize)| Segment {
        stable: ChunkId::from_bytes([n; 32]),
        volatile: ChunkId::from_bytes([n + 100; 32]),
        entries: (0..*count).map(|_| entry()).collect(),
    };
    Node::Leaf((0..).zip(entries).map(segment).collect())
}

fn inner(level: u8) -> Node {
    let child = |number: usize| Child {
        first: key(number * 100),
        objects: 100,
        node: ChunkId::from_bytes([number as u8; 32]),
    };
    Node::Inner(level, (0..3).map(child).collect())
}

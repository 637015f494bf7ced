//! The corpus as ordinary tests, and what it begins with: nodes, maps, attributes and
//! manifests as they are written.

use lifebuoy_repo::ChunkId;

use super::*;
use crate::{
    entry::{Attributes, Content, Entry, Extent, Kind, Meta, Pairs, Time},
    manifest::{Problem, What},
    node::Child,
    path::TreePath,
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
            "file_node" => Node::decode(input).is_ok(),
            "file_map" => MapNode::decode(input).is_ok(),
            "file_attributes" => decode_attributes(input).is_ok(),
            "data_manifest" if *name == "summary" => DataSummary::from_bytes(input).is_ok(),
            "data_manifest" => Manifest::from_bytes(input).is_ok(),
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
    let mut attributes = Vec::new();
    put_attributes(&mut attributes, &pairs());
    vec![
        ("file_node", "leaf", encode_leaf(&entries())),
        ("file_node", "leaf-of-one", encode_leaf(&entries()[..1])),
        ("file_node", "inner", encode_inner(1, &children())),
        ("file_node", "high", encode_inner(12, &children())),
        ("file_map", "low", map(0).encode()),
        ("file_map", "high", map(12).encode()),
        ("file_attributes", "some", attributes),
        ("file_attributes", "none", vec![0]),
        ("data_manifest", "files", bytes(&manifest(What::Files))),
        ("data_manifest", "device", bytes(&manifest(What::Device))),
        (
            "data_manifest",
            "summary",
            summary(What::Files).to_bytes().unwrap().into(),
        ),
    ]
}

fn id(number: u8) -> ChunkId {
    ChunkId::from_bytes([number; 32])
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.into()).unwrap()
}

fn pairs() -> Pairs {
    vec![
        (b"security.capability".to_vec(), vec![0, 0, 0, 2]),
        (b"user.one".to_vec(), Vec::new()),
    ]
}

fn extents() -> Vec<Extent> {
    let extent = |gap, length, number| Extent {
        gap,
        length,
        chunk: id(number),
    };
    vec![extent(0, 1 << 20, 1), extent(4096, 300_000, 2)]
}

/// One entry of each kind, and one file of each form of content.
fn entries() -> Vec<Entry> {
    let file = |size, content| Kind::File { size, content };
    let shared = Content::Shared {
        chunk: id(3),
        offset: 70_000,
        hash: [4; 16],
    };
    let kinds = [
        ("", Kind::Directory),
        ("block", Kind::BlockDevice { major: 7, minor: 9 }),
        ("char", Kind::CharDevice { major: 1, minor: 3 }),
        ("dir", Kind::Directory),
        ("dir/empty", file(0, Content::Nothing)),
        ("dir/extents", file(1 << 30, Content::Extents(extents()))),
        ("dir/map", file(1 << 40, Content::Map(id(5)))),
        ("dir/shared", file(300, shared)),
        ("fifo", Kind::Fifo),
        ("hard", Kind::HardLink(path("dir/map"))),
        ("link", Kind::Symlink(b"../nowhere".to_vec())),
        ("socket", Kind::Socket),
    ];
    let attributes = [
        Attributes::None,
        Attributes::Inline(pairs()),
        Attributes::Chunk(id(6)),
    ];
    let entries = kinds.into_iter().zip(attributes.into_iter().cycle());
    entries
        .map(|((name, kind), attributes)| Entry {
            path: path(name),
            meta: Meta {
                mode: 0o4755,
                uid: 1000,
                gid: 100_000,
                modified: Time {
                    seconds: -1,
                    nanoseconds: 999_999_999,
                },
                stamp: [8; 8],
                attributes,
            },
            kind,
        })
        .collect()
}

fn children() -> Vec<Child> {
    let child = |(first, number): (&str, u8)| Child {
        first: path(first),
        entries: 300,
        node: id(number),
    };
    [("", 1), ("dir/map", 2), ("dir-", 3)].map(child).into()
}

fn map(level: u8) -> MapNode {
    MapNode {
        level,
        items: extents(),
    }
}

fn summary(kind: What) -> DataSummary {
    let at = chrono::DateTime::from_timestamp(1_795_478_400, 0).unwrap();
    DataSummary {
        entries: 12,
        bytes: 1 << 41,
        problems: 1,
        ..DataSummary::new(kind, "machine".into(), "/data".into(), at)
    }
}

fn manifest(kind: What) -> Manifest {
    let summary = summary(kind);
    Manifest {
        data: summary.data,
        summary,
        tree: Some(id(7)),
        block_bytes: (kind == What::Device).then_some(65_536),
        problems: vec![Problem {
            path: "dir/map".to_owned(),
            what: "saved, but it changed while it was read".to_owned(),
        }],
    }
}

fn bytes(manifest: &Manifest) -> Vec<u8> {
    manifest.to_bytes().unwrap().into()
}

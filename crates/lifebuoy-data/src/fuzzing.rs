//! What the targets in `fuzz/` run: the parsers of snapshots of files and devices, on
//! any bytes. Never part of a program that people run.

use crate::{
    contents::DataContents,
    manifest::{DataSummary, Manifest},
    node::{MapNode, Node, decode_attributes, encode_inner, encode_leaf, put_attributes},
};
use lifebuoy_repo::{Contents, Role};

/// A target: what is done with an input.
pub type Target = fn(&[u8]);

/// The targets by name. Inputs to begin with are in `fuzz/corpus/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("file_node", file_node),
    ("file_map", file_map),
    ("file_attributes", file_attributes),
    ("data_manifest", data_manifest),
];

/// A node of a tree. A leaf may list its chunks in another order than we would; what
/// was read is written and read again.
fn file_node(input: &[u8]) {
    let links = DataContents.links(Role(16), input);
    let Ok(node) = Node::decode(input) else {
        assert!(links.is_err());
        return;
    };
    match &node {
        Node::Inner(level, children) => assert_eq!(encode_inner(*level, children), input),
        Node::Leaf(leaf) => match Node::decode(&encode_leaf(&leaf.entries)) {
            Ok(Node::Leaf(again)) => assert_eq!(again.entries, leaf.entries),
            other => panic!("a leaf became {other:?}"),
        },
    }
}

fn file_map(input: &[u8]) {
    if let Ok(map) = MapNode::decode(input) {
        assert_eq!(map.encode(), input, "a map has one encoding");
    }
}

fn file_attributes(input: &[u8]) {
    if let Ok(pairs) = decode_attributes(input) {
        let mut out = Vec::new();
        put_attributes(&mut out, &pairs);
        assert_eq!(out, input, "attributes have one encoding");
    }
}

/// Manifest and summary. JSON has many spellings: what was read is compared.
fn data_manifest(input: &[u8]) {
    if let Ok(manifest) = Manifest::from_bytes(input) {
        let again = manifest
            .to_bytes()
            .map(|bytes| Manifest::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(again)) if again == manifest));
    }
    if let Ok(summary) = DataSummary::from_bytes(input) {
        let again = summary
            .to_bytes()
            .map(|bytes| DataSummary::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(again)) if again == summary));
    }
}

#[cfg(test)]
mod tests;

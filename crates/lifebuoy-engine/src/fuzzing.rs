//! What the targets in `fuzz/` run: the parsers of what a snapshot holds, on any
//! bytes. A target panics where something is read that would not be written as
//! it is. Never part of a program that people run.

use crate::{archive::Manifest, archive::node::Node, point::PointSummary};

/// A target: what is done with an input.
pub type Target = fn(&[u8]);

/// The targets by name. Inputs to begin with are in `fuzz/corpus/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("tree_node", tree_node),
    ("manifest", manifest),
    ("summary", summary),
];

/// A node of a type's search tree: the catalogue.
fn tree_node(input: &[u8]) {
    if let Ok(node) = Node::decode(input) {
        assert_eq!(node.encode(), input, "a node has one encoding");
    }
}

/// The root of a snapshot. JSON has many spellings: what was read is compared.
fn manifest(input: &[u8]) {
    if let Ok(manifest) = Manifest::from_bytes(input) {
        let again = manifest
            .to_bytes()
            .map(|bytes| Manifest::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(again)) if again == manifest));
    }
}

/// The summary in an end record.
fn summary(input: &[u8]) {
    if let Ok(summary) = PointSummary::from_bytes(input) {
        let again = summary
            .to_bytes()
            .map(|bytes| PointSummary::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(again)) if again == summary));
    }
}

#[cfg(test)]
mod tests;

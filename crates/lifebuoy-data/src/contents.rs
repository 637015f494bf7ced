//! What the chunks of files and devices lead to, for the repository's own walks:
//! garbage collection, checks, repair.

use lifebuoy_repo::{ChunkId, Contents, Described, Fate, Link, Role};

use crate::{
    entry::{Attributes, Content, Entry, Kind},
    manifest::{DataSummary, Manifest},
    node::{MapNode, Node},
};

const NODE: Role = Role(16);
const MAP: Role = Role(17);

/// What the snapshots of files and devices hold, to one who collects garbage.
#[derive(Clone, Copy, Debug, Default)]
pub struct DataContents;

impl DataContents {
    /// Whether a chunk is of this crate: a root by what it begins with, another by
    /// its role, which no other contents may have.
    #[must_use]
    pub fn holds(role: Role, plain: &[u8]) -> bool {
        match role {
            Role::ROOT => Manifest::is_one(plain),
            role => role == NODE || role == MAP,
        }
    }
}

impl Contents for DataContents {
    fn links(&self, role: Role, plain: &[u8]) -> Result<Vec<Link>, String> {
        let node = |role: Role| move |id: &ChunkId| Link::Node(*id, role);
        let links = match role {
            Role::ROOT => {
                let manifest = Manifest::from_bytes(plain).map_err(|error| error.to_string())?;
                manifest.tree.iter().map(node(below(&manifest))).collect()
            }
            NODE => match Node::decode(plain).map_err(|error| error.to_string())? {
                Node::Leaf(leaf) => {
                    let maps = leaf.maps.iter().map(node(MAP));
                    let chunks = leaf.chunks.iter().copied().map(Link::Contents);
                    maps.chain(chunks).collect()
                }
                Node::Inner(_, children) => {
                    let ids = children.iter().map(|child| &child.node);
                    ids.map(node(NODE)).collect()
                }
            },
            MAP => {
                let map = MapNode::decode(plain).map_err(|error| error.to_string())?;
                let ids = map.items.iter().map(|item| item.chunk);
                match map.level {
                    0 => ids.map(Link::Contents).collect(),
                    _ => ids.map(|id| Link::Node(id, MAP)).collect(),
                }
            }
            Role(other) => return Err(format!("files have no chunks of role {other}")),
        };
        Ok(links)
    }

    fn lineage(&self, summary: &[u8]) -> Result<Vec<u8>, String> {
        let summary = DataSummary::from_bytes(summary).map_err(|error| error.to_string())?;
        Ok(format!("{:?}", summary.lineage()).into_bytes())
    }

    fn is_complete(&self, summary: &[u8]) -> bool {
        DataSummary::from_bytes(summary).is_ok_and(|summary| summary.problems == 0)
    }

    /// Files are called by their paths; a device is called `data of the device`.
    fn describe(
        &self,
        role: Role,
        plain: &[u8],
        name: &str,
        fate: &dyn Fn(&ChunkId) -> Fate,
    ) -> Described {
        let mut found = Described::default();
        let mut below_here =
            |id: ChunkId, lost: String, torn: &str| found.below(id, fate(&id), lost, torn);
        match role {
            Role::ROOT => {
                // The walk names a manifest that makes no sense; so for nodes.
                let Ok(manifest) = Manifest::from_bytes(plain) else {
                    return found;
                };
                let Some(tree) = manifest.tree else {
                    return found;
                };
                if below(&manifest) == MAP {
                    below_here(tree, format!("all of {DEVICE}"), DEVICE);
                } else {
                    let all = format!("all {} entries", manifest.summary.entries);
                    below_here(tree, all, "");
                }
            }
            NODE => match Node::decode(plain) {
                Ok(Node::Inner(_, children)) => {
                    for child in children {
                        let lost = format!("{} entries from {} on", child.entries, child.first);
                        below_here(child.node, lost, "");
                    }
                }
                Ok(Node::Leaf(leaf)) => {
                    for entry in leaf.entries {
                        let path = entry.path.to_string();
                        for id in chunks(&entry) {
                            below_here(id, path.clone(), &path);
                        }
                    }
                    found.lost.dedup();
                }
                Err(_) => {}
            },
            // A map that something is missing from: the file is named, and no more.
            _ => found.lost.push(format!("parts of {name}")),
        }
        found
    }
}

const DEVICE: &str = "data of the device";

/// What kind of node is below a manifest.
fn below(manifest: &Manifest) -> Role {
    if manifest.block_bytes.is_some() {
        MAP
    } else {
        NODE
    }
}

fn chunks(entry: &Entry) -> Vec<ChunkId> {
    let mut ids = Vec::new();
    if let Attributes::Chunk(id) = &entry.meta.attributes {
        ids.push(*id);
    }
    if let Kind::File { content, .. } = &entry.kind {
        match content {
            Content::Nothing => {}
            Content::Shared { chunk, .. } => ids.push(*chunk),
            Content::Extents(extents) => ids.extend(extents.iter().map(|extent| extent.chunk)),
            Content::Map(id) => ids.push(*id),
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::What;

    #[test]
    fn a_snapshot_with_problems_is_not_complete() {
        let at = chrono::DateTime::from_timestamp(0, 0).unwrap();
        let mut summary = DataSummary::new(What::Files, "h".into(), "/".into(), at);
        assert!(DataContents.is_complete(&summary.to_bytes().unwrap()));
        summary.problems = 1;
        assert!(!DataContents.is_complete(&summary.to_bytes().unwrap()));
        assert!(!DataContents.is_complete(b"noise"));
    }
}

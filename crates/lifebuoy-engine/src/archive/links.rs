//! What the chunks of archives lead to, for the repository's own walks: garbage
//! collection, checks, repair. Whatever a chunk of an archive may ever refer to is
//! named here, or it would be collected.

use lifebuoy_repo::{Contents, Link, Role};

use super::{Manifest, node::Node};
use crate::point::PointSummary;

const NODE: Role = Role(1);

/// What the snapshots of backups hold, to one who collects garbage.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArchiveContents;

impl Contents for ArchiveContents {
    fn links(&self, role: Role, plain: &[u8]) -> Result<Vec<Link>, String> {
        match role {
            Role::ROOT => {
                let manifest = Manifest::from_bytes(plain).map_err(|error| error.to_string())?;
                let trees = manifest.types.iter().filter_map(|record| record.tree);
                Ok(trees.map(|tree| Link::Node(tree, NODE)).collect())
            }
            NODE => Ok(match Node::decode(plain)? {
                Node::Leaf(segments) => {
                    let columns = segments.iter().flat_map(|s| [s.stable, s.volatile]);
                    columns.map(Link::Contents).collect()
                }
                Node::Inner(_, children) => {
                    let nodes = children.iter().map(|child| child.node);
                    nodes.map(|node| Link::Node(node, NODE)).collect()
                }
            }),
            Role(other) => Err(format!("an archive has no chunks of role {other}")),
        }
    }

    fn lineage(&self, summary: &[u8]) -> Result<Vec<u8>, String> {
        let summary = PointSummary::from_bytes(summary).map_err(|error| error.to_string())?;
        Ok(summary.schedule.into_bytes())
    }
}

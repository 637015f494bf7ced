//! What the chunks of archives lead to, for the repository's own walks: garbage
//! collection, checks, repair. Whatever a chunk of an archive may ever refer to is
//! named here, or it would be collected.

use lifebuoy_api::Completeness;
use lifebuoy_repo::{ChunkId, Contents, Described, Fate, Link, Role};

use super::{
    Manifest,
    node::{Node, Segment},
};
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
                let trees = trees.map(|tree| Link::Node(tree, NODE));
                // The data of a volume is a snapshot of its own, which the point keeps.
                let volumes = manifest.volumes_saved.iter();
                let volumes = volumes.filter_map(|of| of.saved.data());
                let volumes = volumes.map(|data| Link::Node(data.root, Role::ROOT));
                Ok(trees.chain(volumes).collect())
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

    fn is_complete(&self, summary: &[u8]) -> bool {
        PointSummary::from_bytes(summary)
            .is_ok_and(|summary| summary.completeness == Completeness::Complete)
    }

    /// A manifest has no name; what is below it is called by its type.
    fn describe(
        &self,
        role: Role,
        plain: &[u8],
        name: &str,
        fate: &dyn Fn(&ChunkId) -> Fate,
    ) -> Described {
        let mut found = Described::default();
        let mut below =
            |id: ChunkId, lost: String, torn: &str| found.below(id, fate(&id), lost, torn);
        if role == Role::ROOT {
            // The walk names a manifest that makes no sense; so for nodes.
            let Ok(manifest) = Manifest::from_bytes(plain) else {
                return found;
            };
            for volume in &manifest.volumes_saved {
                let name = format!("volume {}", volume.claim);
                let lost = format!("{name}: all of its data");
                if let Some(data) = volume.saved.data() {
                    below(data.root, lost, &name);
                }
            }
            for record in manifest.types {
                let name = record.id().to_string();
                if let Some(tree) = record.tree {
                    below(
                        tree,
                        format!("{name}: all {} objects", record.objects),
                        &name,
                    );
                }
            }
            return found;
        }
        match Node::decode(plain) {
            Ok(Node::Inner(_, children)) => {
                for child in children {
                    let lost = format!("{name}: {} objects from {} on", child.objects, child.first);
                    below(child.node, lost, name);
                }
            }
            Ok(Node::Leaf(segments)) => {
                for segment in segments {
                    found.lost.append(&mut lost_of(&segment, name, fate));
                }
            }
            // The walk names a node that makes no sense.
            Err(_) => {}
        }
        found
    }
}

/// The objects of a segment, if a column of it is lost. Without the volatile one an
/// object can be restored but for its status: that is not in full.
fn lost_of(segment: &Segment, name: &str, fate: &dyn Fn(&ChunkId) -> Fate) -> Vec<String> {
    let Segment {
        stable,
        volatile,
        entries,
    } = segment;
    let what = match (fate(stable), fate(volatile)) {
        (Fate::Whole, Fate::Whole) => return Vec::new(),
        (Fate::Whole, _) => " (its status)",
        _ => "",
    };
    let objects = entries.iter();
    objects
        .map(|entry| format!("{name} {}{what}", entry.key))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::summary;

    #[test]
    fn only_a_summary_that_says_so_is_of_a_complete_point() {
        for (completeness, complete) in [
            (Completeness::Complete, true),
            (Completeness::Partial, false),
        ] {
            let summary = PointSummary {
                completeness,
                ..summary()
            };
            let bytes = summary.to_bytes().unwrap();
            assert_eq!(ArchiveContents.is_complete(&bytes), complete);
        }
        assert!(!ArchiveContents.is_complete(b"noise"));
    }
}

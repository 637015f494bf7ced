//! All that a repository of lifebuoy may hold, to one who walks through it:
//! Kubernetes archives, files, devices. Each root chunk tells which it is.

use lifebuoy_data::{DataContents, DataSummary};
use lifebuoy_repo::{ChunkId, Contents, Described, Fate, Link, Role};

use crate::archive::ArchiveContents;

/// What snapshots of any kind hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllContents;

fn of(role: Role, plain: &[u8]) -> &'static dyn Contents {
    if DataContents::holds(role, plain) {
        &DataContents
    } else {
        &ArchiveContents
    }
}

fn of_summary(summary: &[u8]) -> &'static dyn Contents {
    if DataSummary::is_one(summary) {
        &DataContents
    } else {
        &ArchiveContents
    }
}

impl Contents for AllContents {
    fn links(&self, role: Role, plain: &[u8]) -> Result<Vec<Link>, String> {
        of(role, plain).links(role, plain)
    }

    fn lineage(&self, summary: &[u8]) -> Result<Vec<u8>, String> {
        of_summary(summary).lineage(summary)
    }

    fn is_complete(&self, summary: &[u8]) -> bool {
        of_summary(summary).is_complete(summary)
    }

    fn describe(
        &self,
        role: Role,
        plain: &[u8],
        name: &str,
        fate: &dyn Fn(&ChunkId) -> Fate,
    ) -> Described {
        of(role, plain).describe(role, plain, name, fate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_of_itself_is_complete_to_none() {
        assert!(!ArchiveContents.is_complete(b"{}"));
        assert!(!AllContents.is_complete(b"{}"));
    }
}

//! Walks through the map of a file or device, in order. Holds one open map a level.

use std::{sync::Arc, vec::IntoIter};

use lifebuoy_repo::{ChunkId, Reader};

use crate::{
    builder::check_map,
    entry::Extent,
    error::{Error, Result},
    node::MapNode,
};

/// A chunk and where it belongs, in bytes from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) begin: u64,
    pub(crate) length: u64,
    pub(crate) chunk: ChunkId,
}

/// A place in a map.
pub(crate) struct MapWalk {
    reader: Arc<Reader>,
    open: Vec<Open>,
}

struct Open {
    /// None for what is above the root.
    level: Option<u8>,
    position: u64,
    items: IntoIter<Extent>,
}

impl MapWalk {
    /// At the beginning of the map of something of this size, in bytes.
    pub(crate) fn new(reader: Arc<Reader>, root: ChunkId, size: u64) -> Self {
        let root = Extent {
            gap: 0,
            length: size,
            chunk: root,
        };
        Self {
            reader,
            open: vec![Open {
                level: None,
                position: 0,
                items: vec![root].into_iter(),
            }],
        }
    }

    /// The next chunk; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Placed>> {
        while let Some(open) = self.open.last_mut() {
            let Some(Extent { gap, length, chunk }) = open.items.next() else {
                self.open.pop();
                continue;
            };
            let begin = open.position + gap;
            open.position = begin + length;
            let level = open.level;
            if level == Some(0) {
                return Ok(Some(Placed {
                    begin,
                    length,
                    chunk,
                }));
            }
            let plain = self.reader.get(&chunk).await?;
            let damaged = |what| Error::Damaged { chunk, what };
            let node = MapNode::decode(&plain).map_err(damaged)?;
            check_map(&node, level, length).map_err(damaged)?;
            self.open.push(Open {
                level: Some(node.level),
                position: begin,
                items: node.items.into_iter(),
            });
        }
        Ok(None)
    }
}

/// The chunks of a file that has them in its entry.
pub(crate) fn placed(extents: &[Extent]) -> impl Iterator<Item = Placed> {
    extents.iter().scan(0, |end, extent| {
        let begin = *end + extent.gap;
        *end = begin + extent.length;
        Some(Placed {
            begin,
            length: extent.length,
            chunk: extent.chunk,
        })
    })
}

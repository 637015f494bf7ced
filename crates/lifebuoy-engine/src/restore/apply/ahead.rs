//! Items that are read and prepared while others are in flight, bounded by
//! number and bytes.

use std::collections::VecDeque;

use futures::StreamExt;
use futures::stream::BoxStream;

use super::source::Item;
use crate::Error;

/// Objects that are read and prepared ahead.
const AHEAD_ITEMS_MAX: usize = 128;
/// Bytes of objects that are read ahead or in flight. One larger object passes.
const BYTES_MAX: usize = 8 << 20;

/// Items that are read and prepared before they can be sent.
pub(crate) struct Ahead<'a> {
    source: Option<BoxStream<'a, Result<Item, Error>>>,
    queue: VecDeque<Item>,
    bytes: usize,
}

impl<'a> Ahead<'a> {
    pub(crate) fn new(source: BoxStream<'a, Result<Item, Error>>) -> Self {
        Self {
            source: Some(source),
            queue: VecDeque::with_capacity(AHEAD_ITEMS_MAX),
            bytes: 0,
        }
    }

    pub(crate) fn has_room(&self, flying_bytes: usize) -> bool {
        self.source.is_some()
            && self.queue.len() < AHEAD_ITEMS_MAX
            && (self.queue.is_empty() || self.bytes + flying_bytes < BYTES_MAX)
    }

    /// The item that is next.
    pub(crate) fn front(&self) -> Option<&Item> {
        self.queue.front()
    }

    /// Reads one item more.
    pub(crate) async fn read(&mut self) -> Result<(), Error> {
        let next = match &mut self.source {
            Some(source) => source.next().await,
            None => None,
        };
        match next {
            Some(item) => {
                let item = item?;
                self.bytes += item.bytes;
                self.queue.push_back(item);
            }
            None => self.source = None,
        }
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(item.bytes);
        Some(item)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.source.is_none() && self.queue.is_empty()
    }

    pub(crate) fn drop_all(&mut self) {
        self.source = None;
        self.queue.clear();
        self.bytes = 0;
    }
}

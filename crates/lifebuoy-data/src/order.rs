//! Puts what was read in order: small files into segments, entries into the tree.
//! An entry waits until its segment is stored; segments are bounded, so is what waits.

use std::collections::{HashSet, VecDeque};

use lifebuoy_repo::ChunkId;

use crate::{
    builder::TreeBuilder,
    entry::{Content, ContentHash, Entry, Kind},
    error::{Error, Result},
    path::TreePath,
    progress::Progress,
    reading::{Found, Outcome},
    save::Ordered,
    sealing::{Pending, Sealing},
};

/// A segment may end from here on.
const SEGMENT_BYTES_MIN: usize = 256 * 1024;
/// On average a file ends a segment after so many bytes more.
const SEGMENT_BYTES_NORMAL: u64 = 1024 * 1024;
const SEGMENT_BYTES_MAX: usize = 2 * 1024 * 1024;
const SEGMENT_FILES_MAX: usize = 4096;
/// Segments on their way to the store.
const SEGMENTS_PENDING_MAX: usize = 4;
/// Small files that are remembered by their contents: 12 MiB at most.
const SEEN_MAX: usize = 1 << 19;

/// What was read, on its way into the tree.
pub(crate) struct Order<'a> {
    sealing: &'a Sealing<'a>,
    tree: TreeBuilder<'a, &'a Sealing<'a>>,
    segment: Vec<u8>,
    segment_files: usize,
    segments: Segments<'a>,
    seen: Seen,
    waiting: VecDeque<Waiting>,
    /// What could not be read and has further names.
    lost: HashSet<TreePath>,
    progress: &'a Progress,
    entries: u64,
    bytes: u64,
}

struct Waiting {
    entry: Entry,
    /// The segment that the file is in, which may not be stored yet.
    place: Option<(Place, ContentHash)>,
}

/// Where a small file is: the number of a segment in this save, and an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    segment: u32,
    offset: u32,
}

/// The segments of this save, in order: those that are stored, then those that will be.
struct Segments<'a> {
    sealing: &'a Sealing<'a>,
    stored: Vec<ChunkId>,
    pending: VecDeque<Pending>,
}

impl Segments<'_> {
    /// The number of the segment that is being filled.
    fn next(&self) -> Result<u32> {
        u32::try_from(self.stored.len() + self.pending.len())
            .map_err(|_| Error::Internal("there are too many small files"))
    }

    fn push(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.pending.push_back(self.sealing.seal(bytes)?);
        while self.pending.len() > SEGMENTS_PENDING_MAX {
            self.settle_first()?;
        }
        Ok(())
    }

    fn settle_first(&mut self) -> Result<()> {
        if let Some(first) = self.pending.pop_front() {
            self.stored.push(self.sealing.wait(first)?);
        }
        Ok(())
    }

    /// The id of a segment, if it is stored by now.
    fn id(&mut self, segment: u32) -> Result<Option<ChunkId>> {
        while let Some(first) = self.pending.front_mut()
            && let Some(id) = Sealing::settle(first)?
        {
            self.pending.pop_front();
            self.stored.push(id);
        }
        Ok(self.stored.get(segment as usize).copied())
    }
}

impl<'a> Order<'a> {
    pub(crate) fn new(
        sealing: &'a Sealing<'a>,
        tree: TreeBuilder<'a, &'a Sealing<'a>>,
        progress: &'a Progress,
    ) -> Self {
        Self {
            sealing,
            tree,
            segment: Vec::new(),
            segment_files: 0,
            segments: Segments {
                sealing,
                stored: Vec::new(),
                pending: VecDeque::new(),
            },
            seen: Seen::new(),
            waiting: VecDeque::new(),
            lost: HashSet::new(),
            progress,
            entries: 0,
            bytes: 0,
        }
    }

    /// Takes the next batch.
    pub(crate) fn add(&mut self, outcome: Outcome) -> Result<()> {
        let Outcome { bytes, read, lost } = outcome;
        self.lost.extend(lost);
        let mut from = 0;
        for found in read {
            let (entry, place) = match found {
                Found::Whole(entry) if self.is_lost(&entry) => continue,
                Found::Whole(entry) => (entry, None),
                Found::Small(entry, hash, len) => {
                    let file = &bytes[from..from + len];
                    from += len;
                    let place = match self.seen.find(&hash) {
                        Some(place) => place,
                        None => self.append(&hash, file)?,
                    };
                    (entry, Some((place, hash)))
                }
            };
            self.entries += 1;
            if let Kind::File { size, .. } = &entry.kind {
                self.bytes += size;
            }
            self.waiting.push_back(Waiting { entry, place });
        }
        self.sealing.recycle(bytes);
        self.drain()
    }

    /// Whether it is a name of what could not be read, which is said.
    fn is_lost(&self, entry: &Entry) -> bool {
        let Kind::HardLink(first) = &entry.kind else {
            return false;
        };
        let is_lost = self.lost.contains(first);
        if is_lost {
            let what = format!("not saved: it is a name of {first}, which is not");
            self.progress.problem(&entry.path, &what);
        }
        is_lost
    }

    /// Puts a file into the open segment.
    fn append(&mut self, hash: &ContentHash, file: &[u8]) -> Result<Place> {
        if !self.segment.is_empty() && self.segment.len() + file.len() > SEGMENT_BYTES_MAX {
            self.end_segment()?;
        }
        if self.segment.is_empty() {
            self.segment = self.sealing.buffer();
        }
        let place = Place {
            segment: self.segments.next()?,
            offset: u32::try_from(self.segment.len()).unwrap_or(u32::MAX),
        };
        self.segment.extend_from_slice(file);
        self.segment_files += 1;
        self.seen.insert(hash, place);
        let is_boundary =
            self.segment.len() >= SEGMENT_BYTES_MIN && is_boundary(hash, file.len() as u64);
        if is_boundary || self.segment_files == SEGMENT_FILES_MAX {
            self.end_segment()?;
        }
        Ok(place)
    }

    fn end_segment(&mut self) -> Result<()> {
        self.segment_files = 0;
        let bytes = std::mem::take(&mut self.segment);
        if bytes.is_empty() {
            return Ok(());
        }
        self.segments.push(bytes)
    }

    /// Puts into the tree what waits for nothing.
    fn drain(&mut self) -> Result<()> {
        while let Some(first) = self.waiting.front_mut() {
            if let Some((place, hash)) = first.place {
                let Some(chunk) = self.segments.id(place.segment)? else {
                    break;
                };
                fill_in(&mut first.entry, chunk, place.offset, hash);
            }
            if let Some(Waiting { entry, .. }) = self.waiting.pop_front() {
                self.tree.push(entry)?;
            }
        }
        Ok(())
    }

    /// Ends the tree.
    pub(crate) fn finish(mut self) -> Result<Ordered> {
        self.end_segment()?;
        while !self.segments.pending.is_empty() {
            self.segments.settle_first()?;
        }
        self.drain()?;
        Ok(Ordered {
            root: self.tree.finish()?,
            entries: self.entries,
            bytes: self.bytes,
        })
    }
}

fn fill_in(entry: &mut Entry, chunk: ChunkId, offset: u32, hash: ContentHash) {
    if let Kind::File { content, .. } = &mut entry.kind {
        *content = Content::Shared {
            chunk,
            offset,
            hash,
        };
    }
}

/// Whether a segment ends behind this file.
fn is_boundary(hash: &ContentHash, size: u64) -> bool {
    let [first, _] = halves(hash);
    first < size.saturating_mul(u64::MAX / SEGMENT_BYTES_NORMAL)
}

fn halves(hash: &ContentHash) -> [u64; 2] {
    let mut halves = [0; 2];
    for (half, bytes) in halves.iter_mut().zip(hash.as_chunks::<8>().0) {
        *half = u64::from_le_bytes(*bytes);
    }
    halves
}

/// Small files by their contents. Forgets some when there are many.
struct Seen {
    /// The hash, then segment + 1 and offset; zeros where there is none. Memory that
    /// was never touched takes none.
    slots: Vec<[u64; 3]>,
}

impl Seen {
    fn new() -> Self {
        Self {
            slots: vec![[0; 3]; SEEN_MAX],
        }
    }

    fn slot(first: u64) -> usize {
        usize::try_from(first % SEEN_MAX as u64).unwrap_or_default()
    }

    fn find(&self, hash: &ContentHash) -> Option<Place> {
        let [first, second] = halves(hash);
        let [a, b, place] = self.slots[Self::slot(first)];
        let segment = u32::try_from(place >> 32).ok()?.checked_sub(1)?;
        let offset = u32::try_from(place & u64::from(u32::MAX)).ok()?;
        ([a, b] == [first, second]).then_some(Place { segment, offset })
    }

    fn insert(&mut self, hash: &ContentHash, place: Place) {
        let [first, second] = halves(hash);
        let packed = ((u64::from(place.segment) + 1) << 32) | u64::from(place.offset);
        self.slots[Self::slot(first)] = [first, second, packed];
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::Handle;

    use super::*;
    use crate::{
        entry::Meta,
        parts::tests::{begin, repository},
        secrets::{SECRET, Secrets},
    };

    fn entry(path: &str, kind: Kind) -> Found {
        Found::Whole(Entry {
            path: TreePath::new(path.into()).unwrap(),
            meta: Meta::default(),
            kind,
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_further_name_of_what_could_not_be_read_is_left_out_and_said() {
        let repository = repository(Arc::default()).await;
        let parts = begin(&repository).await;
        let runtime = Handle::current();
        let save = move || {
            let (sealing, progress) = (Sealing::new(&parts, runtime), Progress::default());
            let secrets = Secrets::derive(&parts.chunk_id(SECRET));
            let tree = TreeBuilder::new(&sealing, &secrets);
            let mut order = Order::new(&sealing, tree, &progress);
            let first = TreePath::new(b"first".to_vec()).unwrap();
            let outcome = |read, lost| Outcome {
                bytes: Vec::new(),
                read,
                lost,
            };
            let top = entry("", Kind::Directory);
            order.add(outcome(vec![top], vec![first.clone()])).unwrap();
            let name = entry("second", Kind::HardLink(first));
            order.add(outcome(vec![name], Vec::new())).unwrap();
            (
                order.finish().unwrap().entries,
                progress.problems_in_words(),
            )
        };
        let (entries, problems) = tokio::task::spawn_blocking(save).await.unwrap();
        assert_eq!(entries, 1);
        assert_eq!(problems[0].path, "second");
    }

    #[test]
    fn what_was_seen_is_found_and_nothing_else() {
        let mut seen = Seen::new();
        let place = Place {
            segment: 0,
            offset: 7,
        };
        assert_eq!(seen.find(&[0; 16]), None);
        seen.insert(&[0; 16], place);
        seen.insert(
            &[9; 16],
            Place {
                segment: 8,
                ..place
            },
        );
        assert_eq!(seen.find(&[0; 16]), Some(place));
        assert_eq!(seen.find(&[1; 16]), None);
    }

    #[test]
    fn large_files_end_segments_more_often() {
        let hash = |first: u64| {
            let mut hash = [0; 16];
            hash[..8].copy_from_slice(&first.to_le_bytes());
            hash
        };
        assert!(is_boundary(&hash(u64::MAX / 8), 512 * 1024));
        assert!(!is_boundary(&hash(u64::MAX / 8), 64 * 1024));
    }
}

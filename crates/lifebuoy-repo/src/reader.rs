//! Reading chunks, one at a time or many in a given order with few requests.
//! Never returns bytes that are not those the chunk id names.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use crate::{
    error::{Error, Result},
    ids::ChunkId,
    index::{PackPlace, Place},
    pack::open_chunk,
    repository::{Repository, Shared, blocking},
    wire::Damage,
};

/// Plain bytes of one window of an ordered read.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
const WINDOW_CHUNKS: usize = 1024;
/// Windows that are read ahead, so that a store that takes its time to answer is kept
/// busy. With gaps and encoded bytes at most 40 MiB, mostly half of that.
const WINDOWS_AHEAD: usize = 8;
/// Ranges of one window that are read at one time.
const RANGES: usize = 6;
/// A gap up to this is read along, instead of making another request.
const GAP_BYTES_MAX: u64 = 1024 * 1024;
/// Gaps that are read along in one window.
const GAPS_BYTES_MAX: u64 = 1024 * 1024;

/// Reads chunks of committed sessions.
pub struct Reader {
    shared: Arc<Shared>,
    incomplete: Vec<(String, Error)>,
}

impl Repository {
    /// A reader that knows everything that is committed now.
    ///
    /// # Errors
    /// [`Error::Vanished`], or one of the store.
    pub async fn reader(&self) -> Result<Reader> {
        let incomplete = self.shared.refresh().await?.problems();
        Ok(Reader::lacking(&self.shared, incomplete))
    }
}

/// A chunk to read: where it is and its place in the pack.
struct Wanted {
    id: ChunkId,
    pack: PackPlace,
    place: Place,
}

/// One ranged read, and the chunks in it.
struct Span {
    key: String,
    range: Range<u64>,
    chunks: Vec<Wanted>,
}

impl Reader {
    /// A reader of what is known already.
    pub(crate) fn over(shared: &Arc<Shared>) -> Self {
        Self::lacking(shared, Vec::new())
    }

    /// A reader of what is known already, but for these records.
    pub(crate) fn lacking(shared: &Arc<Shared>, incomplete: Vec<(String, Error)>) -> Self {
        Self {
            shared: Arc::clone(shared),
            incomplete,
        }
    }

    /// The id that these bytes have as a chunk.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        self.shared.keys.chunk_id(plain)
    }

    pub(crate) fn slot(&self, id: &ChunkId) -> Option<u32> {
        self.shared.index().slot(id)
    }

    /// Records that are missing or cannot be read: some chunks may be unknown.
    #[must_use]
    pub fn problems(&self) -> &[(String, Error)] {
        &self.incomplete
    }

    /// True if the chunk is known.
    #[must_use]
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.shared.index().contains(id)
    }

    /// Puts ids in the order in which their chunks are stored: then neighbours are
    /// read by one request, and no pack is visited twice.
    pub fn sort_as_stored(&self, ids: &mut [ChunkId]) {
        let index = self.shared.index();
        ids.sort_by_cached_key(|id| {
            let first = index.copies(id).next();
            first.map(|(pack, place)| (pack.name, place.offset))
        });
    }

    /// One chunk.
    ///
    /// # Errors
    /// [`Error::ChunkMissing`], [`Error::Corrupt`], or one of the store.
    pub async fn get(&self, id: &ChunkId) -> Result<Bytes> {
        let wanted = find(&self.shared, *id, self.incomplete.len())?;
        match read_span(&self.shared, Span::of(wanted)).await.pop() {
            Some((_, plain)) => plain,
            None => Err(Error::Internal {
                what: "reading a chunk",
            }),
        }
    }

    /// Many chunks, in this order, each with its own outcome. Reads ahead, with
    /// neighbours in one request, and holds at most 40 MiB.
    pub fn get_ordered(
        &self,
        ids: Vec<ChunkId>,
    ) -> impl Stream<Item = Result<(ChunkId, Bytes)>> + Send + 'static + use<> {
        let shared = Arc::clone(&self.shared);
        let incomplete = self.incomplete.len();
        let windows = windows(&shared, ids);
        stream::iter(windows)
            .map(move |ids| {
                let shared = Arc::clone(&shared);
                async move { read_window(&shared, ids, incomplete).await }
            })
            .buffered(WINDOWS_AHEAD)
            .flat_map(stream::iter)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("problems", &self.incomplete.len())
            .finish_non_exhaustive()
    }
}

fn find(shared: &Shared, id: ChunkId, incomplete: usize) -> Result<Wanted> {
    match shared.index().copies(&id).next() {
        Some((pack, place)) => Ok(Wanted { id, pack, place }),
        None => Err(Error::ChunkMissing {
            chunk: id,
            incomplete,
        }),
    }
}

/// Cuts the order into windows of bounded plain size.
fn windows(shared: &Shared, ids: Vec<ChunkId>) -> Vec<Vec<ChunkId>> {
    let index = shared.index();
    let mut windows = Vec::new();
    let mut window = Vec::new();
    let mut bytes = 0;
    for id in ids {
        let raw = index
            .copies(&id)
            .next()
            .map_or(0, |(_, place)| place.entry(id).raw as usize);
        if !window.is_empty() && (bytes + raw > WINDOW_BYTES || window.len() == WINDOW_CHUNKS) {
            windows.push(std::mem::take(&mut window));
            bytes = 0;
        }
        bytes += raw;
        window.push(id);
    }
    if !window.is_empty() {
        windows.push(window);
    }
    windows
}

async fn read_window(
    shared: &Arc<Shared>,
    ids: Vec<ChunkId>,
    incomplete: usize,
) -> Vec<Result<(ChunkId, Bytes)>> {
    let mut wanted: HashMap<ChunkId, Wanted> = HashMap::new();
    let mut outcomes: HashMap<ChunkId, Result<Bytes>> = HashMap::new();
    for id in &ids {
        match find(shared, *id, incomplete) {
            Ok(found) => {
                wanted.insert(*id, found);
            }
            Err(error) => {
                outcomes.insert(*id, Err(error));
            }
        }
    }
    let spans = spans(wanted.into_values().collect());
    let mut reads = stream::iter(spans)
        .map(|span| read_span(shared, span))
        .buffer_unordered(RANGES);
    while let Some(chunks) = reads.next().await {
        outcomes.extend(chunks);
    }
    ids.into_iter()
        .map(|id| match outcomes.get(&id) {
            Some(outcome) => outcome.clone().map(|plain| (id, plain)),
            None => Err(Error::Internal {
                what: "reading a chunk",
            }),
        })
        .collect()
}

/// Groups chunks by pack and joins those that are close to one another.
fn spans(mut wanted: Vec<Wanted>) -> Vec<Span> {
    wanted.sort_unstable_by_key(|chunk| (chunk.pack.name, chunk.place.offset));
    let mut spans: Vec<Span> = Vec::new();
    let mut gaps = 0;
    for chunk in wanted {
        let range = chunk.range();
        let key = chunk.pack.name.key();
        if let Some(last) = spans.last_mut()
            && last.key == key
        {
            let gap = range.start.saturating_sub(last.range.end);
            if gap <= GAP_BYTES_MAX && gaps + gap <= GAPS_BYTES_MAX {
                gaps += gap;
                last.range.end = range.end.max(last.range.end);
                last.chunks.push(chunk);
                continue;
            }
        }
        spans.push(Span {
            key,
            range,
            chunks: vec![chunk],
        });
    }
    spans
}

impl Wanted {
    fn range(&self) -> Range<u64> {
        let start = u64::from(self.place.offset);
        start..start + u64::from(self.place.entry(self.id).stored)
    }
}

impl Span {
    fn of(chunk: Wanted) -> Self {
        Self {
            key: chunk.pack.name.key(),
            range: chunk.range(),
            chunks: vec![chunk],
        }
    }
}

/// Reads a span. A pack that is gone was replaced by copies of what lives, or it
/// was lost or damaged: then each chunk is looked for wherever there is a copy.
async fn read_span(shared: &Arc<Shared>, span: Span) -> Vec<(ChunkId, Result<Bytes>)> {
    let mut read = fetch(shared, span).await;
    let is_gone = |outcome: &Result<Bytes>| {
        matches!(outcome, Err(Error::Missing { .. } | Error::Corrupt { .. }))
    };
    if read.iter().any(|(_, outcome)| is_gone(outcome)) && shared.refresh().await.is_ok() {
        for (id, outcome) in &mut read {
            if is_gone(outcome)
                && let Some(plain) = read_any_copy(shared, *id).await
            {
                *outcome = plain;
            }
        }
    }
    read
}

async fn read_any_copy(shared: &Arc<Shared>, id: ChunkId) -> Option<Result<Bytes>> {
    let copies: Vec<_> = shared.index().copies(&id).collect();
    let mut last = None;
    for (pack, place) in copies {
        let (_, plain) = fetch(shared, Span::of(Wanted { id, pack, place }))
            .await
            .pop()?;
        let is_found = plain.is_ok();
        last = Some(plain);
        if is_found {
            break;
        }
    }
    last
}

async fn fetch(shared: &Arc<Shared>, span: Span) -> Vec<(ChunkId, Result<Bytes>)> {
    let ids: Vec<ChunkId> = span.chunks.iter().map(|chunk| chunk.id).collect();
    let fail = |error: Error| ids.iter().map(|id| (*id, Err(error.clone()))).collect();
    let bytes = match shared
        .objects
        .get_range(&span.key, span.range.clone())
        .await
    {
        Ok(bytes) => bytes,
        Err(error) => return fail(error),
    };
    let permit = shared.coding.acquire().await;
    let shared = Arc::clone(shared);
    let opened = blocking(move || {
        let open = |chunk: &Wanted| {
            let plain = open(&shared, &span, chunk, &bytes);
            (
                chunk.id,
                plain.map_err(|damage| Error::corrupt(&span.key, damage)),
            )
        };
        span.chunks.iter().map(open).collect::<Vec<_>>()
    });
    let opened = opened.await;
    drop(permit);
    opened.unwrap_or_else(fail)
}

/// Decrypts, decodes and compares with the id.
fn open(shared: &Shared, span: &Span, chunk: &Wanted, bytes: &[u8]) -> Result<Bytes, Damage> {
    let Wanted { id, pack, place } = chunk;
    let PackPlace {
        name,
        random,
        commitment,
        ..
    } = pack;
    let triple = shared
        .keys
        .pack(random, name.number, name.kind.object_type());
    triple.check(commitment)?;
    let entry = place.entry(*id);
    let range = chunk.range();
    let sealed = usize::try_from(range.start - span.range.start)
        .ok()
        .and_then(|from| bytes.get(from..from + entry.stored as usize))
        .ok_or(Damage::Truncated)?;
    let plain = open_chunk(&triple, shared.id, *name, place.position, &entry, sealed)?;
    let plain = shared
        .coders
        .decode(entry.codec, entry.raw as usize, plain)?;
    if shared.keys.chunk_id(&plain) != *id {
        return Err(Damage::ChunkId);
    }
    Ok(plain.into())
}

//! Chunks on their way to where they belong: read once each, in the order in which they
//! are stored, and handed to several threads.

use std::{collections::HashMap, io, sync::Arc, thread};

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use futures::StreamExt;
use lifebuoy_repo::{ChunkId, Reader};
use tokio::runtime::Handle;

use crate::{error::Result, map::Placed, save::threads, target::Nearby};

/// Chunks that wait to be written.
const CHUNKS_AHEAD: usize = 4;

/// Bytes of a chunk, and where they belong.
pub(crate) struct Piece {
    /// The number of the file.
    pub(crate) file: usize,
    /// Where in the file.
    pub(crate) begin: u64,
    /// Where in the chunk.
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

/// A chunk, and what of it belongs where.
type Delivery = (Result<Bytes, String>, Vec<Piece>);

impl Piece {
    pub(crate) fn of(file: usize, part: &Placed) -> Self {
        Self {
            file,
            begin: part.begin,
            offset: 0,
            length: usize::try_from(part.length).unwrap_or(usize::MAX),
        }
    }
}

/// Hands on what belongs into one file or device, with where it begins.
pub(crate) fn deliver_to(
    reader: &Arc<Reader>,
    runtime: &Handle,
    parts: &[Placed],
    write: &(impl Fn(io::Result<&[u8]>, u64) + Sync),
) -> Result<()> {
    let mut pieces: HashMap<ChunkId, Vec<Piece>> = HashMap::new();
    for part in parts {
        let piece = Piece::of(0, part);
        pieces.entry(part.chunk).or_default().push(piece);
    }
    deliver(
        reader,
        runtime,
        pieces,
        &|plain: io::Result<&[u8]>, piece: &Piece, _: &mut Nearby| {
            write(plain.and_then(|plain| whole(plain, piece)), piece.begin);
        },
    )
}

/// Reads chunks in the order in which they are stored, and hands each piece of them to one
/// of several threads.
pub(crate) fn deliver(
    reader: &Arc<Reader>,
    runtime: &Handle,
    mut pieces: HashMap<ChunkId, Vec<Piece>>,
    write: &(impl Fn(io::Result<&[u8]>, &Piece, &mut Nearby) + Sync),
) -> Result<()> {
    let mut ids: Vec<ChunkId> = pieces.keys().copied().collect();
    reader.sort_as_stored(&mut ids);
    let (to_write, deliveries) = bounded::<Delivery>(CHUNKS_AHEAD);
    // What it takes is dropped before its threads are waited for: so they end.
    thread::scope(move |scope| {
        for _ in 0..threads() {
            let deliveries: Receiver<Delivery> = deliveries.clone();
            scope.spawn(move || {
                let mut nearby = Nearby::default();
                for (plain, pieces) in deliveries {
                    for piece in pieces {
                        let plain = plain
                            .as_deref()
                            .map_err(|what| io::Error::other(what.clone()));
                        write(plain, &piece, &mut nearby);
                    }
                }
            });
        }
        drop(deliveries);
        let mut chunks = std::pin::pin!(reader.get_ordered(ids.clone()));
        for id in ids {
            let Some(read) = runtime.block_on(chunks.next()) else {
                break;
            };
            let plain = match read {
                Ok((_, plain)) => Ok(plain),
                Err(error) if error.is_of_one_object() => Err(error.to_string()),
                // The same would be said of all that follows.
                Err(error) => return Err(error.into()),
            };
            let wanted = pieces.remove(&id).unwrap_or_default();
            if to_write.send((plain, wanted)).is_err() {
                break;
            }
        }
        Ok(())
    })
}

/// The bytes of a small file in its segment.
pub(crate) fn part<'a>(plain: &'a [u8], piece: &Piece) -> io::Result<&'a [u8]> {
    let end = piece.offset.checked_add(piece.length);
    end.and_then(|end| plain.get(piece.offset..end))
        .ok_or_else(|| io::Error::other("the snapshot is damaged: its chunk is too short"))
}

/// A chunk that belongs to the file as a whole.
pub(crate) fn whole<'a>(plain: &'a [u8], piece: &Piece) -> io::Result<&'a [u8]> {
    if plain.len() == piece.length {
        return Ok(plain);
    }
    Err(io::Error::other(
        "the snapshot is damaged: a chunk has another length than its extent",
    ))
}

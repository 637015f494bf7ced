//! Hands chunks to the repository's writer from threads of its own, several at one
//! time. Never waits for another thread while there is something to do.

use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use lifebuoy_repo::{ChunkId, ChunkKind};
use tokio::runtime::Handle;

use crate::{
    builder::Nodes,
    error::{Error, Result},
    parts::Parts,
};

/// Chunks that wait for a thread. Each is at most 4 MiB, and most are about 1 MiB.
const WAITING_MAX: usize = 2;
/// Buffers that are kept for the next chunk.
const IDLE_BUFFERS_MAX: usize = 4;

type Sealed = Result<ChunkId>;

/// A chunk on its way to the writer.
pub(crate) struct Job {
    bytes: Vec<u8>,
    reply: Sender<Sealed>,
}

/// The id that a chunk will have.
pub(crate) enum Pending {
    Done(ChunkId),
    Waiting(Receiver<Sealed>),
}

/// The way to the writer. Shared by all threads of a save.
pub(crate) struct Sealing<'a> {
    writer: &'a Parts,
    runtime: Handle,
    sender: Sender<Job>,
    pub(crate) jobs: Receiver<Job>,
    idle: Mutex<Vec<Vec<u8>>>,
}

impl<'a> Sealing<'a> {
    pub(crate) fn new(writer: &'a Parts, runtime: Handle) -> Self {
        let (sender, jobs) = bounded(WAITING_MAX);
        Self {
            writer,
            runtime,
            sender,
            jobs,
            idle: Mutex::default(),
        }
    }

    pub(crate) fn writer(&self) -> &'a Parts {
        self.writer
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// An empty buffer, maybe one that was used before.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(crate) fn recycle(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_BUFFERS_MAX {
            idle.push(buffer);
        }
    }

    /// Stores a chunk now.
    pub(crate) fn put(&self, kind: ChunkKind, plain: &[u8]) -> Result<ChunkId> {
        self.writer.put(&self.runtime, kind, plain)
    }

    /// Stores a chunk of contents: on another thread if one is free soon.
    pub(crate) fn seal(&self, bytes: Vec<u8>) -> Result<Pending> {
        let (reply, waiting) = bounded(1);
        match self.sender.try_send(Job { bytes, reply }) {
            Ok(()) => Ok(Pending::Waiting(waiting)),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                let id = self.put(ChunkKind::Data, &job.bytes)?;
                self.recycle(job.bytes);
                Ok(Pending::Done(id))
            }
        }
    }

    /// Does what another thread wanted done.
    pub(crate) fn run(&self, job: Job) {
        let sealed = self.put(ChunkKind::Data, &job.bytes);
        self.recycle(job.bytes);
        // One who gave up does not want to know.
        let _ = job.reply.send(sealed);
    }

    /// The id of a chunk. Works for others while it waits.
    pub(crate) fn wait(&self, pending: Pending) -> Result<ChunkId> {
        let waiting = match pending {
            Pending::Done(id) => return Ok(id),
            Pending::Waiting(waiting) => waiting,
        };
        loop {
            if let Ok(sealed) = waiting.try_recv() {
                return sealed;
            }
            match self.jobs.try_recv() {
                Ok(job) => self.run(job),
                // Then it is in the hands of another thread.
                Err(_) => return waiting.recv().unwrap_or(Err(LOST)),
            }
        }
    }

    /// Puts the id in its place if it is known by now.
    pub(crate) fn settle(pending: &mut Pending) -> Result<Option<ChunkId>> {
        if let Pending::Waiting(waiting) = pending
            && let Ok(sealed) = waiting.try_recv()
        {
            *pending = Pending::Done(sealed?);
        }
        Ok(match pending {
            Pending::Done(id) => Some(*id),
            Pending::Waiting(_) => None,
        })
    }
}

const LOST: Error = Error::Internal("a thread ended before its chunk was stored");

impl Nodes for &Sealing<'_> {
    fn store(&self, plain: &[u8]) -> Result<ChunkId> {
        self.put(ChunkKind::Metadata, plain)
    }
}

//! Buffers for packs that are used again: the first pass over fresh memory costs more
//! than what is done there. Keeps no more than were in use at one time, nor than a few.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Those of the open packs and of the ones in upload.
const IDLE_MAX: usize = 4;

/// Idle buffers. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Buffers {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Bytes whose buffer goes back when nobody holds them any more.
struct Lent {
    bytes: Vec<u8>,
    buffers: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut idle = self.buffers.idle();
        if idle.len() < IDLE_MAX {
            idle.push(bytes);
        }
    }
}

impl Buffers {
    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.idle().pop().unwrap_or_default()
    }

    /// Takes a buffer back when its contents are no longer needed.
    pub(crate) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent {
            bytes,
            buffers: self.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_one_lets_go_of_it() {
        let buffers = Buffers::default();
        let lent = buffers.lend(b"a pack".to_vec());
        let other = lent.slice(2..);
        drop(lent);
        assert_eq!(buffers.take().capacity(), 0);
        assert_eq!(other, &b"pack"[..]);
        drop(other);
        let back = buffers.take();
        assert!(back.is_empty() && back.capacity() >= 6);
    }
}

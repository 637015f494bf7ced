//! Where on this machine a run is: in one of a few slots, each with names of its own for what
//! outlives a run. So several go on at a time, and none takes what another has for left over.

use std::fs::{File, TryLockError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::leftovers;
use crate::tools::cache_folder;

/// How many runs go on at a time. A cluster with a node takes about 1 GB and waits for most
/// of its time; stories have up to two.
const SLOTS: u8 = 2;
/// How often it is looked whether a slot is free.
const POLL: Duration = Duration::from_millis(200);
/// Tells the processes inside where they are.
pub(super) const VARIABLE: &str = "LIFEBUOY_NAMESPACE_SLOT";

/// A slot that is taken for as long as this is held.
#[derive(Debug)]
pub(super) struct Slot {
    number: u8,
    _lock: File,
}

impl Slot {
    /// Waits for a free slot, and takes it. From it, and from others that are free, what
    /// earlier runs have left is removed: they were killed.
    pub(super) fn take() -> Result<Self> {
        loop {
            let mut taken = None;
            for number in 0..SLOTS {
                let Some(slot) = Self::try_take(number)? else {
                    continue;
                };
                leftovers::remove(number)?;
                taken.get_or_insert(slot);
            }
            if let Some(slot) = taken {
                return Ok(slot);
            }
            thread::sleep(POLL);
        }
    }

    fn try_take(number: u8) -> Result<Option<Self>> {
        let path = cache_folder()?.join(format!("namespace-{number}.lock"));
        let lock =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self {
                number,
                _lock: lock,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }
}

/// The number of the slot in which this process is.
///
/// # Errors
/// When it is not inside of a run.
pub(super) fn inside() -> Result<u8> {
    let number = std::env::var(VARIABLE).ok();
    number
        .and_then(|number| number.parse().ok())
        .context("not inside")
}

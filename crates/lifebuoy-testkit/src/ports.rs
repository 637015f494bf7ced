//! Hands out free loopback ports. Never hands out one twice in a process.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use rand::RngExt;

/// Below the range from which the kernel takes the ports of outgoing
/// connections, so that no client takes one between the check and its use.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;
const ATTEMPTS_MAX: u32 = 1000;

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that nobody listens on. Another process may still take it first:
/// callers start again with another port when their child cannot bind.
pub(crate) fn free() -> Result<u16> {
    let mut random = rand::rng();
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..ATTEMPTS_MAX {
        let port = random.random_range(FIRST..=LAST);
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    bail!("no free loopback port between {FIRST} and {LAST}: are old test processes running?")
}

//! The repository in a simulated world: many processes, one faulty store, one
//! paused clock, and one seed that decides all of it.
//!
//! ```text
//! seeds ─→ World ─process("a1")→ SimStore ─→ Repository ←─ Process ←─ Act, Act, …
//!            └─ faults, clock, trace              Ledger ←──┘ what was promised
//!                                                 verify: does the bucket keep it?
//! ```
//!
//! `LIFEBUOY_SEEDS=100000` runs more seeds, `LIFEBUOY_SEED=17` replays one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly")]

mod actors;
mod crash;
mod crash_tests;
mod failure;
mod faults;
mod ledger;
mod listing;
mod pristine;
mod process;
mod scenarios;
mod seeds;
mod store;
mod store_tests;
mod trace;
mod verify;
mod world;

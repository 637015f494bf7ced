//! The protocol of sessions and of garbage collection, `docs/format.md` section
//! 9, as state machines that decide and do nothing: a machine says what it asks
//! of the bucket next, and is told the answer.
//!
//! ```text
//! Beginning ─ asks: list gc, create open, list gc, ends, deltas, newest run ─→ Usable
//! Collector ─ asks: list, mark, create plan, wait, mark, create final, delete, create run ─→ Done
//! ```
//!
//! `writer.rs` and `collect/` run these machines on object storage; the tests in
//! `model/` run the same ones on a bucket of sets and explore every interleaving.
//! Never does I/O, reads a clock or draws a random number.

mod beginning;
mod cleaning;
mod collector;
mod facts;
mod marking;
#[cfg(test)]
mod model;

pub(crate) use beginning::{Begin, BeginAnswer, Beginning, Usable};
pub(crate) use cleaning::{Remains, Removable, removable};
pub(crate) use collector::{Answer, Ask, Collector, Consolidation, Final, Marking, Plan, Refusal};
pub(crate) use facts::{
    Began, Collections, Ended, Generation, Horizon, How, acknowledged, live_roots, usable_deltas,
};
pub(crate) use marking::{Choice, Copy, Marks};

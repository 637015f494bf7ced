//! Snapshots of the storage system as the API server has them: those that are made for a
//! while for a request, their copies where a volume is made of one, and those that a
//! recovery point keeps. Cuts none, and talks to no storage itself.
//!
//! Whose what is in the storage system is, is said by one object at any moment:
//!
//! | object | policy | goes |
//! |---|---|---|
//! | the snapshot of a claim, with its content | `Delete` | with the request |
//! | a copy of it by its handle | `Retain` | with the request |
//! | the same content, once the snapshot is kept | `Retain` | with the request |
//! | a kept content | `Retain`, then `Delete` | when its recovery point is gone |

mod clean_up;
mod copy;
mod kept;
mod objects;
mod retire;

pub(crate) use clean_up::{clean_up, delete, give_away, owners, remove};
pub(crate) use copy::{Stored, make_copy};
pub(crate) use kept::{KeptFor, discard, keep};
pub(crate) use objects::{Kind, Snapshots, one};
pub(crate) use retire::{before, retire};

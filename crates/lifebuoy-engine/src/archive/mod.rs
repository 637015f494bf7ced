//! What a captured cluster looks like in a repository: a manifest, a search
//! tree per type, and segments of objects in two columns. Specified in
//! `docs/format-archive.md`.
//!
//! Knows objects as bytes under keys and never interprets them; who wants them
//! decides what they mean. Everything that is read is taken as hostile.

mod boundary;
mod key;
mod links;
mod manifest;
pub(crate) mod node;
mod object;
mod read;
mod write;

pub use boundary::Boundary;
pub use key::{ObjectHash, ObjectKey, TypeId};
pub use links::ArchiveContents;
pub use manifest::{Fidelity, MANIFEST_VERSION, Manifest, TypeRecord, UnavailableGroup};
pub use object::ArchivedObject;
pub use read::Archive;
pub use write::{ArchiveWriter, TypeTotals, TypeWriter};

#[cfg(test)]
mod tests;

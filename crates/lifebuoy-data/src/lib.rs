//! Files and block devices in a repository: `docs/format-data.md`.
//!
//! ```text
//! save:     scan → read → order → seal → commit
//! restore:  plan → fetch → write → finish
//! ```
//!
//! It knows nothing of Kubernetes. Paths of a snapshot are never trusted.
#![forbid(unsafe_code)]

mod before;
mod builder;
mod clear;
mod contents;
mod cursor;
mod cutter;
mod delivery;
mod device;
mod disk;
mod entry;
mod error;
mod excludes;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod hostile;
mod listing;
mod manifest;
mod map;
mod node;
mod order;
mod parts;
mod path;
mod progress;
mod reading;
mod restore;
mod save;
mod scan;
mod sealing;
mod secrets;
mod shown;
mod target;
mod verify;
mod wire;

pub use contents::DataContents;
pub use device::{RestoreDeviceRequest, SaveDeviceRequest, restore_device, save_device};
pub use entry::{Attributes, Content, ContentHash, Entry, Extent, Kind, Meta, Pairs, Stamp, Time};
pub use error::{Error, Malformed, Result};
pub use excludes::Excludes;
pub use listing::{Change, Diff, Listed, Listing, of_data, read_file, snapshots};
pub use manifest::{DataSummary, Problem, What};
pub use parts::PARTS_EVERY;
pub use path::TreePath;
pub use progress::{Done, PROBLEMS_MAX, Progress};
pub use restore::{RestoreRequest, restore};
pub use save::{SaveRequest, Saved, save};
pub use shown::{escape, escaped, is_active};
pub use target::Existing;
pub use verify::{VerifyRequest, verify};

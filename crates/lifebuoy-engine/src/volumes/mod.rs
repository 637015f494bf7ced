//! The data of volumes: which way it is saved, and what a recovery point says of it.
//! Decides, and does nothing.

mod policy;
mod quantity;
mod record;

pub use policy::{Decision, Policies, SnapshotClass, Volume};
pub use quantity::bytes_of_quantity;
pub use record::{SavedBy, SavedData, VolumeMode, VolumeRecord};

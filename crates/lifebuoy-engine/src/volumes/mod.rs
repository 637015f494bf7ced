//! The data of volumes: what a recovery point says of it, and how a claim asks for it.
//! Decides, and does nothing.

mod fill;
mod quantity;
mod record;
mod size;
#[cfg(test)]
pub(crate) use fill::tests::record as test_record;

pub use fill::volume_restore_name;
pub(crate) use fill::{Filling, ask_by_name, fill, requested, without_asking};
pub use quantity::bytes_of_quantity;
pub use record::{SavedBy, SavedData, VolumeMode, VolumeRecord};
pub use size::Size;

//! The data of volumes: which way it is saved, what moves it, what the mover is told, what
//! a recovery point says of it, and how a claim asks for it. Decides and describes; the
//! operator talks to the cluster. Never reads or writes a volume itself.
//!
//! A *mover* is a Job with one pod that has one volume and the repository: the program
//! of this very image, as `lifebuoy mover`. It is told what to do by a Secret, and what it
//! says last is its pod's termination message. It has no right in the cluster at all.

mod access;
mod empty_dir;
mod fill;
mod job;
mod node_path;
mod policy;
mod quantity;
mod record;
mod settle;
mod size;
mod task;

pub use access::RepositoryAccess;
pub(crate) use empty_dir::not_restored;
pub use empty_dir::{empty_dir_key, empty_dir_of, subject};
#[cfg(test)]
pub(crate) use fill::tests::{kept as test_kept, record as test_record};
pub use fill::volume_restore_name;
pub(crate) use fill::{Filling, ask_by_name, fill, requested, without_asking};
pub use job::{JobRequest, MOVER_CONTAINER, MountedVolume, MoverConfig, job, job_name};
pub use node_path::{NodeDirectory, NodePath};
pub use policy::{Decision, Policies, Reach, SnapshotClass, Volume};
pub use quantity::bytes_of_quantity;
pub use record::{KeptSnapshot, SavedBy, SavedData, VolumeMode, VolumeRecord};
pub use settle::settle;
pub use size::Size;
pub use task::{
    DEVICE_PLACE, EXAMPLES_MAX, FILES_PLACE, MOVER_END_BYTES_MAX, MoverEnd, MoverProgress,
    MoverReport, MoverTask, SavedRoot, TASK_KEY, TASK_PLACE, TERMINATION_PLACE, Work,
};

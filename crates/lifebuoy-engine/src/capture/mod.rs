//! Captures a cluster into a session of a repository: discover, select, list at
//! one revision, normalise, segment, commit.
//!
//! Needs `list` and `watch` only. Never holds a page of a list, never writes to
//! the cluster, and never takes a type that it could not read for an empty one.

mod choose;
mod domain;
mod facts;
mod fetch;
mod kube_lister;
mod lister;
mod normalise;
mod request;
mod run;
mod shallow;
mod splitter;
mod type_run;

pub use request::{
    CaptureProgress, CaptureRequest, Captured, ONLY_WARN_GROUPS, VolumesFound, VolumesSaved,
};
pub use run::{capture, cluster_uid, no_volumes};

#[cfg(test)]
mod tests;

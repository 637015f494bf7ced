//! Files and devices through a real repository and a real file system.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly")]

mod blows;
mod collect;
mod devices;
mod incremental;
mod oddities;
mod overwrite;
mod parts;
mod struck;
mod support;
mod verify;

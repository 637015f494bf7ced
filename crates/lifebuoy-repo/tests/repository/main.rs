//! The repository from outside, on stores that need no server.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly")]

mod check;
mod collect;
mod contract;
mod damage;
mod failures;
mod format;
mod independent;
mod limits;
mod mutations;
mod repair;
mod sessions;
mod support;

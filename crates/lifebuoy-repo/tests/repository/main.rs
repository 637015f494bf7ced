//! The repository from outside, on stores that need no server.

mod contract;
mod damage;
mod failures;
mod format;
mod sessions;
mod support;

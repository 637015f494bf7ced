//! The verbs of lifebuoy as a library: capture a cluster into a repository,
//! read what was captured, and restore it.
//!
//! Nothing in here is a controller, reads a clock that it was not given, or
//! prints. See README.md for the main paths.

pub mod archive;
pub mod capture;
mod contents;
pub mod discovery;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod point;
pub mod restore;
pub mod retention;
pub mod selection;
pub mod steps;
pub mod volumes;

#[cfg(test)]
mod testing;

pub use contents::AllContents;
pub use error::Error;

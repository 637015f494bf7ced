//! The controllers of lifebuoy: thin reconcilers over the engine.
//!
//! ```text
//! watch → observe (I/O) → validate (pure) → plan (pure) → execute (I/O) → publish status (I/O)
//! ```
//!
//! What takes long (a capture, a plan, an apply) runs as a task beside the
//! reconciler, which follows it. All that must survive this process is in the
//! objects' status and in the repository; nothing is decided by a file, and no
//! step trusts a watch cache where doing something twice would matter.
#![forbid(unsafe_code)]

mod backup;
mod config;
mod context;
mod controllers;
mod documents;
mod error;
mod events;
mod health;
mod keeper;
mod leader;
mod metrics;
mod mover;
mod recovery_point;
mod repository;
mod request;
mod restore;
mod run;
mod schedule;
mod snapshots;
mod status;
mod sweep;
mod tasks;
mod volume_restore;

pub use config::{Mode, OperatorConfig};
pub use error::Error;
pub use lifebuoy_engine::volumes::{MoverConfig, NodePath};
pub use run::run;

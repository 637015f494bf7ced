//! Fills a cluster for the benchmarks, and measures the two floors: how fast
//! this machine lists and creates at all, with nothing in between.
//!
//! Raw HTTP/1.1 connections, plain requests, bodies discarded. It never
//! decodes what it reads.

mod connection;
mod floors;
mod recipe;

pub use connection::{Connection, RawRequest};
pub use floors::{CreateFloor, ListFloor, create_floor, list_floor, send_all};
pub use recipe::{
    CONNECTIONS, LoadSpec, OBJECTS_PER_NAMESPACE, change_one_percent, create_big_secrets,
};

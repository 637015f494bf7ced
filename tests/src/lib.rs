//! What the scenarios, the demo and the benchmark share: the operator,
//! installed from the chart on a real control plane, and requests to it.
//!
//! Never a scenario itself: those stand in `scenarios/`, one file a user story.

mod application;
mod databases;
mod holder;
mod installation;
mod moving_databases;
mod node_world;
mod requests;
mod volumes;
mod world;

pub use application::*;
pub use databases::*;
pub use holder::*;
pub use installation::*;
pub use moving_databases::*;
pub use node_world::*;
pub use requests::*;
pub use volumes::*;
pub use world::*;

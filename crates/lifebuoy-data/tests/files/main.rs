//! Files and devices through a real repository and a real file system.

mod collect;
mod devices;
mod incremental;
mod oddities;
mod support;

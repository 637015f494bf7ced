//! The traits and servers that `build.rs` writes.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    reason = "the code is generated"
)]

include!(concat!(env!("OUT_DIR"), "/csi.v1.Identity.rs"));
include!(concat!(env!("OUT_DIR"), "/csi.v1.Controller.rs"));
include!(concat!(env!("OUT_DIR"), "/csi.v1.Node.rs"));
include!(concat!(
    env!("OUT_DIR"),
    "/pluginregistration.Registration.rs"
));

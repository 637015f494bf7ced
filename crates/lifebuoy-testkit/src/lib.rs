//! Real clusters and a real S3 server for tests, the demo and the benchmarks.
//!
//! Everything here starts the components that users run (etcd,
//! kube-apiserver, kube-controller-manager, kube-scheduler, kwok, versitygw)
//! as child processes on loopback ports, and with root a real node, in
//! namespaces of the test's own. It never talks to a cluster that it
//! did not start, never reads the user's kubeconfig, and knows nothing of
//! lifebuoy's engine: what it compares, it compares by its own eyes. It also
//! finds Python for the reader that knows nothing of the engine either.

pub mod compare;
pub mod control_plane;
pub mod counting_proxy;
pub mod directory;
pub mod kubectl;
pub mod load;
pub mod namespace;
pub mod node;
pub mod oddities;
mod ports;
pub mod process;
pub mod python;
pub mod s3;
pub mod sample;
pub mod tools;

pub use control_plane::{ControlPlane, ControlPlaneOptions};
pub use counting_proxy::CountingProxy;
pub use directory::TestDirectory;
pub use node::{Node, NodeStorage};
pub use process::{Process, ProcessSpec};
pub use s3::{PolicedS3, S3Server};
pub use tools::{Tool, ToolPaths};

/// Makes aws-lc-rs the TLS provider of this process. Calling it again, or
/// after someone else chose a provider, changes nothing.
pub fn install_tls_provider() {
    // An error means that a provider is installed already, which is the goal.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

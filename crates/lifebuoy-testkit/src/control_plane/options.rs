//! What a control plane consists of. Never starts anything.

use std::path::PathBuf;
use std::time::Duration;

use crate::tools::Tool;

/// How to start a [`crate::ControlPlane`]. The default has controllers and a
/// scheduler, no nodes, and data that goes when it is dropped.
#[derive(Clone, Debug)]
pub struct ControlPlaneOptions {
    /// Names it in folders, kubeconfig contexts and messages.
    pub name: String,
    /// Whether the built-in controllers run.
    pub controllers: bool,
    /// Whether the scheduler runs.
    pub scheduler: bool,
    /// Whether kwok plays the nodes, so that pods become ready.
    pub kwok: bool,
    /// More flags of the API server.
    pub apiserver_args: Vec<String>,
    /// Resources kept in a second etcd, as `group/resource`: `/secrets`.
    pub second_etcd_for: Vec<String>,
    /// How often old revisions are removed; Kubernetes' default is 5 minutes.
    pub compaction_interval: Option<Duration>,
    /// Whether the API server logs who asks for what.
    pub audit: bool,
    /// Where its files go, and stay; by default below `target/testkit/`.
    pub directory: Option<PathBuf>,
}

impl ControlPlaneOptions {
    /// The default options under this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            controllers: true,
            scheduler: true,
            kwok: false,
            apiserver_args: Vec::new(),
            second_etcd_for: Vec::new(),
            compaction_interval: None,
            audit: false,
            directory: None,
        }
    }

    /// An API server and nothing that acts on its own.
    pub fn bare(name: impl Into<String>) -> Self {
        Self {
            controllers: false,
            scheduler: false,
            ..Self::named(name)
        }
    }

    pub(super) fn tools(&self) -> Vec<Tool> {
        let mut tools = vec![Tool::Etcd, Tool::KubeApiserver];
        tools.extend(self.controllers.then_some(Tool::KubeControllerManager));
        tools.extend(self.scheduler.then_some(Tool::KubeScheduler));
        tools.extend(self.kwok.then_some(Tool::Kwok));
        tools
    }
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self::named("cluster")
    }
}

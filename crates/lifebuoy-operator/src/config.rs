//! What an installation tells the operator. Parsed from flags by the binary;
//! nothing here reads the environment.

use std::{net::SocketAddr, time::Duration};

use lifebuoy_engine::volumes::MoverConfig;

/// Which requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Backups and Schedules.
    Backup,
    /// Restores.
    Restore,
    /// All.
    Both,
}

impl Mode {
    /// Whether Backups and Schedules are served.
    #[must_use]
    pub const fn backs_up(self) -> bool {
        matches!(self, Self::Backup | Self::Both)
    }

    /// Whether Restores are served.
    #[must_use]
    pub const fn restores(self) -> bool {
        matches!(self, Self::Restore | Self::Both)
    }

    /// The word of the chart's values.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "Backup",
            Self::Restore => "Restore",
            Self::Both => "Both",
        }
    }
}

/// What an installation tells the operator.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// The operator's own namespace: the only one whose requests are served.
    pub namespace: String,
    /// The unique name of this cluster.
    pub cluster_name: String,
    /// What this process serves.
    pub mode: Mode,
    /// What all processes of the installation serve together. A kind that none
    /// of them serves is refused by the one with `repositories`.
    pub installation_mode: Mode,
    /// Whether this process owns the status of Repositories and the mirroring
    /// of recovery points. One process of an installation does.
    pub repositories: bool,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// Whether a Lease decides which replica works.
    pub leader_election: bool,
    /// The name of the Lease in the own namespace.
    pub lease_name: String,
    /// Who this replica is: the name of its pod.
    pub identity: String,
    /// How long a Lease is good that nobody renews; a leader ends when it could not for two
    /// thirds of that. A takeover too soon interrupts what runs, and one too late costs a
    /// minute: about as long as a cluster waits before it calls a node gone.
    pub lease_duration: Duration,
    /// How many Backups run at a time.
    pub max_concurrent_backups: usize,
    /// How many Restores run at a time.
    pub max_concurrent_restores: usize,
    /// How long the probe of a store is taken for true. A probe leaves one
    /// small object in the store for ever.
    pub probe_interval: Duration,
    /// How often a repository is listed.
    pub list_interval: Duration,
    /// How long running work may take to end when the process is asked to.
    pub shutdown_grace: Duration,
    /// What moves the data of volumes.
    pub movers: MoverConfig,
}

impl OperatorConfig {
    /// The defaults of the chart.
    #[must_use]
    pub fn new(namespace: impl Into<String>, cluster_name: impl Into<String>) -> Self {
        let namespace = namespace.into();
        Self {
            movers: MoverConfig::new(&namespace),
            namespace,
            cluster_name: cluster_name.into(),
            mode: Mode::Both,
            installation_mode: Mode::Both,
            repositories: true,
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            leader_election: true,
            lease_name: "lifebuoy".to_owned(),
            identity: "lifebuoy".to_owned(),
            lease_duration: Duration::from_secs(60),
            max_concurrent_backups: 1,
            max_concurrent_restores: 1,
            probe_interval: Duration::from_secs(6 * 60 * 60),
            list_interval: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

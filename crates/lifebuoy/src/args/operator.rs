//! `lifebuoy operator`: flags, each with an environment variable.

use std::{net::SocketAddr, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use lifebuoy_operator::{Mode, OperatorConfig};

use super::movers::MoverFlags;

#[derive(Args, Debug)]
pub(crate) struct OperatorArgs {
    /// The unique name of this cluster among those that share a repository.
    #[arg(
        long,
        value_name = "NAME",
        env = "LIFEBUOY_CLUSTER_NAME",
        hide_env_values = true
    )]
    cluster_name: String,

    /// Which requests this process serves.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "Both",
        env = "LIFEBUOY_MODE",
        hide_env_values = true
    )]
    mode: ModeArg,

    /// Which requests the processes of this installation serve together; without it, --mode.
    #[arg(
        long,
        value_name = "MODE",
        env = "LIFEBUOY_INSTALLATION_MODE",
        hide_env_values = true
    )]
    installation_mode: Option<ModeArg>,

    /// Whether this process looks after Repositories and RecoveryPoints.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        env = "LIFEBUOY_REPOSITORIES",
        hide_env_values = true
    )]
    repositories: bool,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080",
        env = "LIFEBUOY_LISTEN",
        hide_env_values = true
    )]
    listen: SocketAddr,

    /// Whether a Lease decides which replica works.
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        env = "LIFEBUOY_LEADER_ELECT",
        hide_env_values = true
    )]
    leader_elect: bool,

    /// The name of the Lease.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "lifebuoy",
        env = "LIFEBUOY_LEASE_NAME",
        hide_env_values = true
    )]
    lease_name: String,

    /// How long a Lease is good that nobody renews, in seconds. A leader that cannot renew it
    /// in two thirds of that ends, and what it did begins again: give it the longest stall of
    /// the API server, and half of that more.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(3..=600),
        env = "LIFEBUOY_LEASE_DURATION",
        hide_env_values = true
    )]
    lease_duration: u64,

    /// Who this replica is; without it, $HOSTNAME.
    #[arg(
        long,
        value_name = "NAME",
        env = "LIFEBUOY_IDENTITY",
        hide_env_values = true
    )]
    identity: Option<String>,

    /// How many Backups run at a time.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64),
        env = "LIFEBUOY_MAX_CONCURRENT_BACKUPS",
        hide_env_values = true
    )]
    max_concurrent_backups: u16,

    /// How many Restores run at a time.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64),
        env = "LIFEBUOY_MAX_CONCURRENT_RESTORES",
        hide_env_values = true
    )]
    max_concurrent_restores: u16,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    movers: MoverFlags,
}

#[derive(Args, Debug, Clone)]
pub(crate) struct LogArgs {
    /// The form of the log.
    #[arg(
        long,
        value_name = "FORM",
        default_value = "text",
        env = "LIFEBUOY_LOG_FORMAT",
        hide_env_values = true
    )]
    pub(crate) log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or directives such as
    /// info,lifebuoy_engine=debug.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "LIFEBUOY_LOG_LEVEL",
        hide_env_values = true
    )]
    pub(crate) log_level: String,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
enum ModeArg {
    /// Backups and Schedules.
    #[value(alias = "backup")]
    Backup,
    /// Restores.
    #[value(alias = "restore")]
    Restore,
    /// All.
    #[value(alias = "both")]
    Both,
}

impl From<ModeArg> for Mode {
    fn from(given: ModeArg) -> Self {
        match given {
            ModeArg::Backup => Self::Backup,
            ModeArg::Restore => Self::Restore,
            ModeArg::Both => Self::Both,
        }
    }
}

impl OperatorArgs {
    /// The configuration; `hostname` names this replica where no flag does.
    pub(crate) fn config(&self, namespace: &str, hostname: Option<String>) -> OperatorConfig {
        let Self {
            cluster_name,
            mode,
            installation_mode,
            repositories,
            listen,
            leader_elect,
            lease_name,
            lease_duration,
            identity,
            max_concurrent_backups,
            max_concurrent_restores,
            movers,
            log,
        } = self;
        let defaults = OperatorConfig::new(namespace, cluster_name);
        let movers = movers.config(defaults.movers.clone(), &log.log_level);
        OperatorConfig {
            mode: (*mode).into(),
            installation_mode: installation_mode.unwrap_or(*mode).into(),
            repositories: *repositories,
            listen: *listen,
            leader_election: *leader_elect,
            lease_name: lease_name.clone(),
            lease_duration: Duration::from_secs(*lease_duration),
            identity: identity
                .clone()
                .or(hostname)
                .unwrap_or_else(|| defaults.identity.clone()),
            max_concurrent_backups: usize::from(*max_concurrent_backups),
            max_concurrent_restores: usize::from(*max_concurrent_restores),
            movers,
            ..defaults
        }
    }
}

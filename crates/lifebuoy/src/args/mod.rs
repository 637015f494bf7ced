//! The grammar of the command line. Only parses: what the values mean is
//! decided where they are used.

mod backup;
mod cluster;
mod data;
mod direct;
mod mover;
mod movers;
mod operator;
mod output;
mod point;
mod remap;
mod repo;
mod restore;
mod schedule;
mod selection;
mod store;
mod wait;

use clap::{Args, Parser, Subcommand};

pub(crate) use backup::{BackupCommand, CreateBackup};
pub(crate) use cluster::ClusterArgs;
pub(crate) use data::{CatData, DiffData, ListData, RestoreData, SaveData, Whose};
pub(crate) use direct::DirectArgs;
pub(crate) use mover::MoverArgs;
pub(crate) use operator::{LogArgs, LogFormat, OperatorArgs};
pub(crate) use output::{Format, OutputArgs};
pub(crate) use point::{ListPoints, MarkPoint, PointCommand};
pub(crate) use remap::RemapArgs;
pub(crate) use repo::{CheckRepo, CollectRepo, Level, RepoCommand, RepoStatus};
pub(crate) use restore::{CreateRestore, RestoreCommand, RestoreRequest};
pub(crate) use schedule::ScheduleCommand;
pub(crate) use selection::SelectionArgs;
pub(crate) use store::StoreArgs;
pub(crate) use wait::WaitArgs;

use crate::exit::EXIT_CODES;

/// Backup, disaster recovery and migration for Kubernetes.
///
/// Commands work through the operator of a cluster (they create a custom
/// resource and follow it), or direct on a repository with --repo: then no
/// operator is needed, and `recoverypoint list` needs not even a cluster.
#[derive(Parser, Debug)]
#[command(version, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Repositories: make one, look at one.
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Backups: save a selection now.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Schedules: look at them, stop and start them.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Recovery points: what can be restored.
    #[command(subcommand, name = "recoverypoint", visible_alias = "rp", aliases = ["recoverypoints", "points"])]
    Point(PointCommand),
    /// Restores: plan, run and look at them.
    #[command(subcommand)]
    Restore(RestoreCommand),
    /// Run the operator: what the chart's Deployments do.
    Operator(Box<OperatorArgs>),
    /// Move the data of one volume: what the Jobs do that the operator makes. Not for people.
    #[command(hide = true)]
    Mover(MoverArgs),
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
    /// Print the version.
    Version,
}

/// An object by its name.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// Its name.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

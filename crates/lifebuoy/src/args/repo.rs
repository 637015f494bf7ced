//! `lifebuoy repo`

use clap::{Args, Subcommand};

use super::{OutputArgs, StoreArgs};

#[derive(Subcommand, Debug)]
pub(crate) enum RepoCommand {
    /// Make a repository in an empty place. Works direct.
    ///
    /// Whoever has the passphrase reads everything in it, and nobody does without: keep it in a
    /// second place.
    Init(InitRepo),
    /// Show what a repository holds and whether it can be used.
    ///
    /// With --repo direct; otherwise the Repository of this name in the cluster, or all of them.
    Status(RepoStatus),
    /// Stop all use of a Repository of the cluster.
    Suspend(Switch),
    /// Use a suspended Repository of the cluster again; one that was restored is suspended.
    Resume(Switch),
}

#[derive(Args, Debug)]
pub(crate) struct InitRepo {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RepoStatus {
    /// The Repository in the cluster; without it, all.
    #[arg(conflicts_with = "repo")]
    pub(crate) name: Option<String>,
    /// Also try what the credentials may do. Writes a small object that stays.
    #[arg(long)]
    pub(crate) probe: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// An object to suspend or resume.
#[derive(Args, Debug)]
pub(crate) struct Switch {
    /// Its name.
    pub(crate) name: String,
}

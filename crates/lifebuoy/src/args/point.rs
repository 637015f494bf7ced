//! `lifebuoy recoverypoint`

use clap::{Args, Subcommand};

use super::{OutputArgs, StoreArgs};

#[derive(Subcommand, Debug)]
pub(crate) enum PointCommand {
    /// List the recovery points.
    ///
    /// With --repo straight from the repository, of every cluster that saves there and without any
    /// cluster; otherwise those that are mirrored into this cluster.
    #[command(visible_alias = "ls")]
    List(ListPoints),
    /// Show what a recovery point holds, type by type.
    Describe(DescribePoint),
}

#[derive(Args, Debug)]
pub(crate) struct ListPoints {
    /// Only points of the cluster with this name.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Only points of this Schedule.
    #[arg(long, value_name = "NAME")]
    pub(crate) schedule: Option<String>,
    /// Only points of this Repository of the cluster.
    #[arg(long, value_name = "NAME", conflicts_with = "repo")]
    pub(crate) repository: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DescribePoint {
    /// With --repo the snapshot, or the first eight or more digits of it; otherwise the name of
    /// the RecoveryPoint.
    pub(crate) point: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

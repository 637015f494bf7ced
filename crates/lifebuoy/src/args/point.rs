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
    /// Pin a recovery point: no retention forgets it. Works direct.
    Pin(MarkPoint),
    /// Take the pin of a recovery point back. Works direct.
    Unpin(MarkPoint),
    /// Forget a recovery point. Works direct.
    ///
    /// It can be restored no more. Its data stays until the keeper of the repository collects
    /// garbage, not before the grace of forgetting has passed. Snapshots that it keeps in a storage
    /// system are deleted by the cluster that took them, after the same grace.
    Forget(MarkPoint),
}

#[derive(Args, Debug)]
pub(crate) struct MarkPoint {
    /// The snapshot, or the first eight or more digits of it.
    pub(crate) point: String,
    /// Why, for those who come later.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
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

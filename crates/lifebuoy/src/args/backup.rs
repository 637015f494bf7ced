//! `lifebuoy backup`

use clap::{Args, Subcommand, ValueEnum};
use lifebuoy_api::VolumePolicy;

use super::{Named, OutputArgs, SelectionArgs, StoreArgs, WaitArgs};

#[derive(Subcommand, Debug)]
pub(crate) enum BackupCommand {
    /// Save a selection now.
    ///
    /// Through the operator with --repository or --from-schedule; direct with --repo, which needs
    /// --cluster-name and the rights to list in this cluster.
    Create(Box<CreateBackup>),
    /// List the Backups.
    #[command(visible_alias = "ls")]
    List(ListBackups),
    /// Show how a Backup goes or ended.
    Describe(Named),
}

#[derive(Args, Debug)]
pub(crate) struct CreateBackup {
    /// Its name; without it, one is made up.
    pub(crate) name: Option<String>,

    /// The Repository of the cluster to save to.
    #[arg(long, value_name = "NAME", conflicts_with = "repo")]
    pub(crate) repository: Option<String>,

    /// Save what this Schedule saves, as one of its Backups.
    #[arg(long, value_name = "NAME", conflicts_with_all = [
        "repository", "repo", "namespaces", "exclude_namespaces", "resources",
        "exclude_resources", "selector", "cluster_scoped", "volumes",
    ])]
    pub(crate) from_schedule: Option<String>,

    /// The unique name of this cluster, for direct work.
    #[arg(
        long,
        value_name = "NAME",
        env = "LIFEBUOY_CLUSTER_NAME",
        hide_env_values = true
    )]
    pub(crate) cluster_name: Option<String>,

    /// What to do about the data of volumes: with Save, a claim whose data was not saved makes the
    /// recovery point partial. Save unless given.
    #[arg(long, value_name = "POLICY")]
    pub(crate) volumes: Option<VolumeArg>,

    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub(crate) enum VolumeArg {
    /// The data belongs to the backup.
    #[value(alias = "save")]
    Save,
    /// Claims are saved without their data.
    #[value(alias = "skip")]
    Skip,
}

impl From<VolumeArg> for VolumePolicy {
    fn from(given: VolumeArg) -> Self {
        match given {
            VolumeArg::Save => Self::Save,
            VolumeArg::Skip => Self::Skip,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct ListBackups {
    /// Only Backups of this Schedule.
    #[arg(long, value_name = "NAME")]
    pub(crate) schedule: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

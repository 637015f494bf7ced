//! `lifebuoy restore`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lifebuoy_api::{ExistingPolicy, ExistingVolumes, RestoreVolumePolicy};

use super::{Named, OutputArgs, RemapArgs, RestoreData, SelectionArgs, StoreArgs, WaitArgs};

#[derive(Subcommand, Debug)]
pub(crate) enum RestoreCommand {
    /// Show what a restore would do, and change nothing.
    ///
    /// Prints the plan and its digest, with `-o name` the digest alone; `restore create --plan-digest`
    /// runs that plan and no other.
    Plan(Box<RestoreRequest>),
    /// Replay a recovery point into this cluster.
    ///
    /// Through the operator with --from-point or --repository; direct with --repo, which needs
    /// the rights to create everything that is restored. Killed in the middle, the same command
    /// goes on where it stopped.
    Create(Box<CreateRestore>),
    /// List the Restores.
    #[command(visible_alias = "ls")]
    List(ListRestores),
    /// Show a Restore with its plan and its report.
    Describe(Named),
    /// Bring files of a volume back to this machine, or the whole volume; direct with --repo.
    ///
    /// The same as `lifebuoy repo restore --volume`; `repo ls`, `cat` and `diff` look into
    /// volumes as well.
    Files(Box<RestoreData>),
}

#[derive(Args, Debug)]
pub(crate) struct CreateRestore {
    /// Run only if the plan of now has this digest.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub(crate) plan_digest: Option<String>,

    /// Run once more what ran already; the token is any word that was not used for it before.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) rerun: Option<String>,

    #[command(flatten)]
    pub(crate) request: RestoreRequest,
}

/// What `plan` and `create` have in common.
#[derive(Args, Debug)]
pub(crate) struct RestoreRequest {
    /// The name of the Restore; without it, one is made up. Direct work has none.
    pub(crate) name: Option<String>,

    /// A file with a Restore or with its spec; the other options change what it says.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// What happens to objects that exist. Skip unless given.
    #[arg(long, value_name = "POLICY")]
    pub(crate) existing: Option<ExistingArg>,

    /// What happens to claims whose data was not saved, and whether the others are filled.
    /// Withhold unless given.
    #[arg(long, value_name = "POLICY")]
    pub(crate) volumes: Option<RestoreVolumeArg>,

    /// What happens to the data on the volumes of claims that exist. Keep unless given.
    #[arg(long, value_name = "POLICY")]
    pub(crate) existing_volumes: Option<ExistingVolumesArg>,

    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    pub(crate) remap: RemapArgs,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug, Default)]
#[command(next_help_heading = "What is restored")]
pub(crate) struct FromArgs {
    /// This RecoveryPoint of the cluster.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["repository", "snapshot", "cluster", "schedule", "repo"])]
    pub(crate) from_point: Option<String>,

    /// A point in this Repository of the cluster: with --snapshot or --cluster.
    #[arg(long, value_name = "NAME", conflicts_with = "repo")]
    pub(crate) repository: Option<String>,

    /// This snapshot; direct, the first eight or more digits are enough.
    #[arg(long, value_name = "ID", conflicts_with_all = ["cluster", "schedule"])]
    pub(crate) snapshot: Option<String>,

    /// The newest complete point of the cluster with this name.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,

    /// The newest complete point of this Schedule of --cluster.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub(crate) schedule: Option<String>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub(crate) enum ExistingArg {
    /// They are left alone.
    #[value(alias = "skip")]
    Skip,
    /// What was captured is merged into them.
    #[value(alias = "merge")]
    Merge,
    /// They become what was captured.
    #[value(alias = "replace")]
    Replace,
    /// The restore is refused before anything is changed.
    #[value(alias = "fail")]
    Fail,
}

impl From<ExistingArg> for ExistingPolicy {
    fn from(given: ExistingArg) -> Self {
        match given {
            ExistingArg::Skip => Self::Skip,
            ExistingArg::Merge => Self::Merge,
            ExistingArg::Replace => Self::Replace,
            ExistingArg::Fail => Self::Fail,
        }
    }
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub(crate) enum RestoreVolumeArg {
    /// Claims with data are filled; others are withheld, and everything that mounts them.
    #[value(alias = "withhold")]
    Withhold,
    /// Claims with data are filled; others are created empty.
    #[value(alias = "empty")]
    Empty,
    /// All claims are created empty.
    #[value(alias = "skip")]
    Skip,
}

impl From<RestoreVolumeArg> for RestoreVolumePolicy {
    fn from(given: RestoreVolumeArg) -> Self {
        match given {
            RestoreVolumeArg::Withhold => Self::Withhold,
            RestoreVolumeArg::Empty => Self::Empty,
            RestoreVolumeArg::Skip => Self::Skip,
        }
    }
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub(crate) enum ExistingVolumesArg {
    /// It stays.
    #[value(alias = "keep")]
    Keep,
    /// It is replaced by what was saved of it; what mounts them is stopped meanwhile.
    #[value(alias = "overwrite")]
    Overwrite,
}

impl From<ExistingVolumesArg> for ExistingVolumes {
    fn from(given: ExistingVolumesArg) -> Self {
        match given {
            ExistingVolumesArg::Keep => Self::Keep,
            ExistingVolumesArg::Overwrite => Self::Overwrite,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct ListRestores {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

fn digest(text: &str) -> Result<String, String> {
    let fits = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| text.to_owned())
        .ok_or_else(|| "expected the 64 hexadecimal digits that `restore plan` printed".to_owned())
}

//! `lifebuoy repo`

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use lifebuoy_api::{ParseTimeSpanError, TimeSpan};

use super::{CatData, DiffData, DirectArgs, ListData, RestoreData, SaveData};

#[derive(Subcommand, Debug)]
pub(crate) enum RepoCommand {
    /// Make a repository in an empty place. Works direct.
    ///
    /// Whoever has the passphrase reads everything in it, and nobody does without: keep it in a
    /// second place.
    Init(DirectArgs),
    /// Show what a repository holds and whether it can be used.
    ///
    /// With --repo direct; otherwise the Repository of this name in the cluster, or all of them.
    Status(RepoStatus),
    /// Check that what is stored can be restored. Works direct; changes nothing.
    ///
    /// Ends with 3 when something is damaged, and names it: the objects of the repository, the
    /// recovery points and the Kubernetes objects that are affected.
    Check(CheckRepo),
    /// Repair what can be repaired, without deleting or overwriting anything. Works direct.
    ///
    /// Indices are made anew from the packs; what was in lost or damaged packs is stored again by
    /// the next backup that still sees it. Ends with 3 when something is lost for now, and names it.
    Repair(CheckRepo),
    /// Upgrade a repository to the newest format. Works direct.
    ///
    /// Programs that know only older formats can then open it no more: first upgrade lifebuoy in
    /// every cluster that uses it.
    Upgrade(DirectArgs),
    /// Find out what no recovery point needs, and with --delete delete it. Works direct.
    ///
    /// The operator that keeps a repository does this by itself when its Repository says
    /// `maintenance.collect: Enabled`.
    Collect(Box<CollectRepo>),
    /// Save a directory, or a block device. Works direct, without a cluster.
    ///
    /// What did not change since the newest snapshot of the same place and host is not read again.
    /// Ends with 3 when something could not be saved.
    Save(Box<SaveData>),
    /// Restore files, or a block device. Works direct, without a cluster.
    ///
    /// Ends with 3 when something could not be restored.
    Restore(Box<RestoreData>),
    /// List the snapshots of files and devices, or what is in one. Works direct.
    Ls(Box<ListData>),
    /// Print a file of a snapshot. Works direct.
    Cat(Box<CatData>),
    /// List what differs between two snapshots of files. Works direct.
    ///
    /// `+` added, `-` removed, `M` other contents, `m` other mode, owner, time or attributes.
    Diff(Box<DiffData>),
    /// Stop all use of a Repository of the cluster.
    Suspend(Switch),
    /// Use a suspended Repository of the cluster again; one that was restored is suspended.
    Resume(Switch),
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
    pub(crate) direct: DirectArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CheckRepo {
    /// How much is read.
    #[arg(long, value_enum, default_value = "structure")]
    pub(crate) level: Level,
    /// Which share of the data, from 0 to one less than --of. All shares together are all data.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) part: u32,
    /// Into how many shares the data is divided.
    #[arg(long, value_name = "N", default_value = "30")]
    pub(crate) of: std::num::NonZeroU32,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
}

/// How much a check reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// All records, the trees of all recovery points, and that every pack is there.
    Structure,
    /// That, and every byte of a share of the packs.
    Share,
    /// That, and every byte of all packs.
    All,
}

#[derive(Args, Debug)]
pub(crate) struct CollectRepo {
    /// Delete what nothing needs. Without it, it is only counted.
    #[arg(long)]
    pub(crate) delete: bool,
    /// How long ago a recovery point must have been forgotten, such as 168h.
    #[arg(long, value_name = "TIME", default_value = "168h", value_parser = parse_time)]
    pub(crate) grace: Duration,
    /// How many of the newest recovery points of each cluster and schedule stay, and how many of
    /// the newest complete ones, whatever was forgotten.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) keep_at_least: usize,
    /// Refuse to delete more than this share of the stored bytes.
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) delete_at_most_percent: u8,
    /// Write packs anew of which less than this share is needed; 0 never does.
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) repack_below_percent: u8,
    /// Give up sessions that do not move for this time, such as 30m.
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_time)]
    pub(crate) stall: Duration,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
}

fn parse_time(text: &str) -> Result<Duration, ParseTimeSpanError> {
    Ok(text.parse::<TimeSpan>()?.duration())
}

/// An object to suspend or resume.
#[derive(Args, Debug)]
pub(crate) struct Switch {
    /// Its name.
    pub(crate) name: String,
}

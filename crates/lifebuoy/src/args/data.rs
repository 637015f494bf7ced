//! `lifebuoy repo save|restore|ls|cat|diff`: files and block devices.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::{DirectArgs, StoreArgs};

#[derive(Args, Debug)]
pub(crate) struct SaveData {
    /// The directory, file, block device or image to save.
    pub(crate) path: PathBuf,
    /// Save the bytes of a block device, or of the image of one, instead of a file.
    #[arg(long)]
    pub(crate) device: bool,
    /// A file that lists the regions of the device that may have changed since its newest
    /// snapshot, a line each: first byte, number of bytes.
    #[arg(long, value_name = "FILE", requires = "device")]
    pub(crate) changed: Option<PathBuf>,
    /// Leave out what matches: `*.o` at any depth, `/build` from the top, `cache/` directories.
    #[arg(long, value_name = "PATTERN", conflicts_with = "device")]
    pub(crate) exclude: Vec<String>,
    /// Leave out what is mounted below.
    #[arg(long, conflicts_with = "device")]
    pub(crate) one_file_system: bool,
    /// Read every file, also those that seem unchanged.
    #[arg(long, conflicts_with = "device")]
    pub(crate) read_all: bool,
    /// The name of this machine in the repository; without it, its host name.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
}

/// Whose snapshots are meant.
#[derive(Args, Debug)]
pub(crate) struct Whose {
    /// Of this machine only. Without it, `latest` is one of this machine, or where there is none
    /// of any.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Of this place on the machine only, such as /srv. `latest` needs it where there are
    /// snapshots of several places.
    #[arg(long, value_name = "PATH")]
    pub(crate) saved_from: Option<PathBuf>,
    /// The volume of this PersistentVolumeClaim: the snapshot is then a recovery point of a
    /// cluster, or `latest`. NAMESPACE/POD/VOLUME is an emptyDir. Nothing can be read of one that was
    /// saved by `way: Snapshot`: it stays in its storage system, and is lost with it.
    #[arg(long, value_name = "NAMESPACE/CLAIM", conflicts_with_all = ["host", "saved_from"])]
    pub(crate) volume: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RestoreData {
    /// The snapshot: its id, the beginning of it, or `latest`.
    pub(crate) snapshot: String,
    /// Where to: a place that does not exist or is an empty directory; or a block device, whose
    /// data is overwritten.
    pub(crate) target: PathBuf,
    /// Only this path of the snapshot, and what is in it.
    #[arg(long, value_name = "PATH", default_value = "")]
    pub(crate) path: OsString,
    /// Go on with a restore that was interrupted.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Read everything back from the disk and compare it with the snapshot.
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ListData {
    /// The snapshot: its id, the beginning of it, or `latest`. Without it, the snapshots are listed.
    pub(crate) snapshot: Option<String>,
    /// What of it is listed.
    #[arg(default_value = "")]
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CatData {
    /// The snapshot: its id, the beginning of it, or `latest`.
    pub(crate) snapshot: String,
    /// The file.
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DiffData {
    /// The earlier snapshot: its id, or the beginning of it.
    pub(crate) before: String,
    /// The later one, or `latest`.
    pub(crate) after: String,
    /// What of them is compared.
    #[arg(default_value = "")]
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
}

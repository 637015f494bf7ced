//! `lifebuoy repo save|restore|ls|cat|diff`: files and block devices.

use std::path::PathBuf;

use clap::Args;

use super::{OutputArgs, StoreArgs};

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
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
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
    pub(crate) path: String,
    /// Go on with a restore that was interrupted.
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ListData {
    /// The snapshot: its id, the beginning of it, or `latest`. Without it, the snapshots are listed.
    pub(crate) snapshot: Option<String>,
    /// What of it is listed.
    #[arg(default_value = "")]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CatData {
    /// The snapshot: its id, the beginning of it, or `latest`.
    pub(crate) snapshot: String,
    /// The file.
    pub(crate) path: String,
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
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

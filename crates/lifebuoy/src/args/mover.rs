//! `lifebuoy mover`: the places in a mover's pod. What it does stands in its task.

use std::path::PathBuf;

use clap::Args;

use super::LogArgs;

#[derive(Args, Debug)]
pub(crate) struct MoverArgs {
    /// The file with the task.
    #[arg(long, value_name = "FILE", default_value = lifebuoy_engine::volumes::TASK_PLACE)]
    pub(crate) task: PathBuf,

    /// The volume; without it, /volume for a file system and /dev/volume for a device.
    #[arg(long, value_name = "PATH")]
    pub(crate) volume: Option<PathBuf>,

    /// Where it says how it has ended.
    #[arg(
        long,
        value_name = "FILE",
        default_value = lifebuoy_engine::volumes::TERMINATION_PLACE
    )]
    pub(crate) end: PathBuf,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

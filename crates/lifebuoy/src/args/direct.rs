//! What every command has that works on a repository itself and prints what came of it.

use clap::Args;

use super::{OutputArgs, StoreArgs};

#[derive(Args, Debug)]
pub(crate) struct DirectArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

//! `lifebuoy schedule`

use clap::{Args, Subcommand};

use super::{OutputArgs, repo::Switch};

#[derive(Subcommand, Debug)]
pub(crate) enum ScheduleCommand {
    /// List the Schedules.
    #[command(visible_alias = "ls")]
    List(ListSchedules),
    /// Stop making Backups.
    Suspend(Switch),
    /// Make Backups again; a Schedule that was restored is suspended.
    Resume(Switch),
}

#[derive(Args, Debug)]
pub(crate) struct ListSchedules {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

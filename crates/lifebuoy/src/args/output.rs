//! In which form a command prints.

use clap::{Args, ValueEnum};

#[derive(Args, Debug, Clone, Copy)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// The form of the output.
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORM",
        default_value = "table"
    )]
    pub(crate) format: Format,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names only.
    Name,
}

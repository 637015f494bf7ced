//! Runs the machine's storage tools.

use std::ffi::OsStr;
use std::process::Command;

/// A tool that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed, or cannot be started.
    #[error("cannot run {program}")]
    Start {
        /// The tool.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It said no.
    #[error("{command} failed: {output}")]
    Failed {
        /// With its arguments.
        command: String,
        /// What it said.
        output: String,
    },
}

/// Runs a program to its end and gives what it printed. Blocks.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &'static str,
    args: impl IntoIterator<Item = A>,
) -> Result<String, CommandError> {
    let mut command = Command::new(program);
    command.args(args);
    let output = command
        .output()
        .map_err(|source| CommandError::Start { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(CommandError::Failed {
        command: format!("{command:?}"),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

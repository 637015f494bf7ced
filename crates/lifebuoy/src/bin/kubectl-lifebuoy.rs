//! The same command as a plugin: `kubectl lifebuoy`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    lifebuoy_cli::main(lifebuoy_cli::Program::KubectlPlugin)
}

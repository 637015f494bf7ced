//! The `lifebuoy` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    lifebuoy_cli::main(lifebuoy_cli::Program::Lifebuoy)
}

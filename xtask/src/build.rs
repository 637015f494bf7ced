//! Building the operator's binary, as cargo does it for a person.

use std::process::Command;

use anyhow::{Result, ensure};
use lifebuoy_testkit::tools::workspace_root;

/// Builds the `lifebuoy` binary in the profile of tests.
pub(crate) fn operator() -> Result<()> {
    // Together with this program, which is there already: cargo then takes the
    // dependencies as they were built for it.
    cargo(&[
        "build",
        "--package",
        "lifebuoy",
        "--package",
        "xtask",
        "--bins",
    ])
}

/// Builds the `lifebuoy` binary as it is released.
pub(crate) fn release() -> Result<()> {
    cargo(&["build", "--package", "lifebuoy", "--release"])
}

/// Runs cargo in the workspace; its output goes to the terminal.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .current_dir(workspace_root())
        .status()?;
    ensure!(
        status.success(),
        "cargo {} ended with {status}",
        args.join(" ")
    );
    Ok(())
}

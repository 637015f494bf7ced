//! `--keep`: the demo runs in a process of its own, which holds the clusters
//! after the command has ended. Children of the testkit die with their parent,
//! so somebody has to stay.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::timeline::say;

/// Set for the process that holds.
const HOLDER: &str = "LIFEBUOY_DEMO_HOLDER";

/// The holder's last line but for the result.
const FINISHED: &str = "demo finished: ";

/// How long clusters are held before they end by themselves.
const HOLD_LIMIT: Duration = Duration::from_secs(12 * 3600);

/// Whether this process is the one that holds.
pub(super) fn is_holder() -> bool {
    std::env::var_os(HOLDER).is_some()
}

fn pid_file(folder: &Path) -> PathBuf {
    folder.with_extension("pid")
}

/// Runs the demo in a holder, shows what it says, and leaves it running.
pub(super) fn run_and_leave(folder: &Path) -> Result<ExitCode> {
    let mut holder = Command::new(std::env::current_exe()?)
        .args(["demo", "--keep"])
        .env(HOLDER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let pid = holder.id();
    fs::create_dir_all(folder.parent().context("no folder")?)?;
    fs::write(pid_file(folder), pid.to_string())?;
    let output = holder.stdout.take().context("the demo has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(result) = line.strip_prefix(FINISHED) {
            say(
                "The clusters go on running: KUBECONFIG=target/demo/b.kubeconfig kubectl get pods -A",
            );
            say("Stop them with: cargo xtask demo --stop");
            return Ok(ExitCode::from(u8::from(result != "true")));
        }
        say(&line);
    }
    let status = holder.wait()?;
    bail!("the demo ended with {status}")
}

/// In the holder: says how the demo went, and stays until it is stopped.
pub(super) async fn hold_if_asked(succeeded: bool) {
    if !is_holder() {
        return;
    }
    say(&format!("{FINISHED}{succeeded}"));
    drop(tokio::time::timeout(HOLD_LIMIT, tokio::signal::ctrl_c()).await);
}

/// Stops a holder.
pub(super) fn stop(folder: &Path) -> Result<ExitCode> {
    let file = pid_file(folder);
    let pid = fs::read_to_string(&file).context("no demo was left running")?;
    let status = Command::new("kill").args(["-INT", pid.trim()]).status()?;
    fs::remove_file(file)?;
    Ok(ExitCode::from(u8::from(!status.success())))
}

//! What one process costs: its time, processor time and peak memory, as the
//! kernel counts them. A process of its own waits for it, so that what the kernel
//! says of children is of this one and of those that it started.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// What a process cost, or several one after another.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Seconds from its start to its end.
    pub(crate) wall_s: f64,
    /// Seconds of processor time, of user and system.
    pub(crate) cpu_s: f64,
    /// Peak resident memory in MiB.
    pub(crate) peak_mib: f64,
}

impl Cost {
    /// Of one after the other.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            wall_s: self.wall_s + next.wall_s,
            cpu_s: self.cpu_s + next.cpu_s,
            peak_mib: self.peak_mib.max(next.peak_mib),
        }
    }
}

/// The hidden command: runs a program and prints its [`Cost`] as JSON.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Measured {
    /// A file for what the program prints.
    log: std::path::PathBuf,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Measured {
    pub(crate) fn run(&self) -> Result<()> {
        let (program, arguments) = self.command.split_first().context("no program")?;
        let log = File::create(&self.log)?;
        let began = Instant::now();
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .with_context(|| format!("running {}", program.display()))?;
        let wall_s = began.elapsed().as_secs_f64();
        ensure!(status.success(), "it ended with {status}");
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let seconds = |time: nix::sys::time::TimeVal| {
            time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0
        };
        let cost = Cost {
            wall_s,
            cpu_s: seconds(usage.user_time()) + seconds(usage.system_time()),
            peak_mib: usage.max_rss() as f64 / 1024.0,
        };
        println!("{}", serde_json::to_string(&cost)?);
        Ok(())
    }
}

/// Runs a command and measures it. What it printed is left at `log`.
///
/// # Errors
/// When it cannot be run or fails, with the end of what it printed.
pub(crate) fn measure(command: &Command, log: &Path) -> Result<Cost> {
    let mut measured = Command::new(std::env::current_exe()?);
    measured.arg("measured-process").arg(log).arg("--");
    measured.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => measured.env(name, value),
            None => measured.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        measured.current_dir(directory);
    }
    let output = measured.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{} failed: {}{}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr),
        tail(log)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

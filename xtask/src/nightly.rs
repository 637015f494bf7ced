//! `cargo xtask nightly`: what takes too long for every change. Each step is what
//! CI runs as well, with more seeds, more states, or more time.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// What runs at night.
#[derive(Debug, clap::Args)]
pub(crate) struct Nightly {
    /// Seeds of each simulation of the engine on a faulty store.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// How deep the protocol is explored with three writers and two collectors.
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Random changes of stored objects.
    #[arg(long, default_value_t = 1_000_000)]
    mutations: u64,
    /// Seconds for each fuzz target.
    #[arg(long, default_value_t = 300)]
    fuzz_seconds: u64,
    /// Seconds of writers and collectors on one bucket, killed all the time.
    #[arg(long, default_value_t = 600)]
    soak_seconds: u64,
}

impl Nightly {
    /// Runs all of it; the first step that fails ends it.
    pub(crate) fn run(&self) -> Result<()> {
        let repo = ["test", "--release", "-p", "lifebuoy-repo"];
        let test = |name: &str, more: &[&str]| {
            let mut command = Command::new(env!("CARGO"));
            command.args(repo).args(more).args(["--", "--nocapture"]);
            (name.to_owned(), command)
        };
        let (name, mut command) = test("simulation", &["--test", "simulation"]);
        command.env("LIFEBUOY_SEEDS", self.seeds.to_string());
        step(&name, command)?;
        let (name, mut command) = test("model", &["--lib", "protocol::model"]);
        command.env("LIFEBUOY_MODEL_DEPTH", self.depth.to_string());
        step(&name, command)?;
        let (name, mut command) = test("mutations", &["--test", "repository", "mutations"]);
        command.env("LIFEBUOY_MUTATIONS", self.mutations.to_string());
        step(&name, command)?;
        let xtask = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO"));
            command.arg("xtask").args(arguments);
            command
        };
        let seconds = self.fuzz_seconds.to_string();
        step("fuzz", xtask(&["fuzz", "--seconds", &seconds]))?;
        let seconds = self.soak_seconds.to_string();
        step("soak", xtask(&["soak", "--seconds", &seconds]))
    }
}

fn step(name: &str, mut command: Command) -> Result<()> {
    println!("== {name}: {command:?}");
    let begun = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name} ended with {status}");
    println!("== {name}: ok in {} s", begun.elapsed().as_secs());
    Ok(())
}

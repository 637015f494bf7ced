//! What people and CI call: `cargo xtask demo|test|fuzz|bench|soak|nightly|generate|golden`.
//!
//! Each command is a file of its own. None of them touches a cluster that it
//! did not start itself, and none reads the user's kubeconfig.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to a person at a terminal"
)]

mod bench;
mod build;
mod demo;
mod fuzz;
mod generate;
mod golden;
mod nightly;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Shows the main job end to end: two clusters, a backup on a schedule, a disaster, a restore.
    Demo(demo::Demo),
    /// Measures backup and restore beside what the API server can do at all.
    Bench(bench::Bench),
    /// Runs the parsers of what is stored on inputs that nobody thought of.
    Fuzz(fuzz::Options),
    /// Writes the generated files: `crds/` and the chart's CRD templates.
    Generate(generate::Options),
    /// Makes a golden repository below tests/golden/, to be read for ever.
    Golden(golden::Golden),
    /// Runs what takes too long for every change.
    Nightly(nightly::Nightly),
    /// Runs writers and collectors on one bucket, and kills them all the time.
    Soak(soak::Soak),
    #[command(hide = true)]
    SoakWorker(soak::Worker),
    #[command(hide = true)]
    MeasuredProcess(bench::repo::process::Measured),
    /// Builds what the tests need and runs everything that must pass.
    Test(test::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo(demo) => demo.run(),
        Task::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Generate(options) => generate::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Golden(golden) => golden.run().map(|()| ExitCode::SUCCESS),
        Task::Nightly(nightly) => nightly.run().map(|()| ExitCode::SUCCESS),
        Task::Soak(soak) => soak.run().map(|()| ExitCode::SUCCESS),
        Task::MeasuredProcess(process) => process.run().map(|()| ExitCode::SUCCESS),
        Task::SoakWorker(worker) => worker.run().map(|()| ExitCode::SUCCESS),
        Task::Test(options) => test::run(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

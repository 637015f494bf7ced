//! `cargo xtask fuzz`: the parsers of what is stored, on inputs that nobody
//! thought of.
//!
//! Builds the targets in `fuzz/` with the compiler of this workspace, and runs
//! each for some seconds. There is no sanitizer: our code has no unsafe code that
//! one could check, and without one no other compiler is needed. The corpus in
//! `fuzz/corpus` is only read; what is found on top stays in the target folder.

mod outcome;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lifebuoy_testkit::tools::workspace_root;

use outcome::Outcome;

/// What makes a program report which branches it took and what it compared:
/// libFuzzer makes new inputs from that.
const COVERAGE_FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// The longest that one input may take, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;
/// The most memory that a target's process may take, in MiB.
const PROCESS_MIB_MAX: u32 = 1024;
/// How many lines of a failed target's output are shown.
const LINES_SHOWN: usize = 40;
/// As in the tests of the crates that have targets.
const SEEDS_VARIABLE: &str = "LIFEBUOY_WRITE_SEEDS";

/// What is fuzzed.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Seconds for each target.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Also writes the figures to this file: one JSON object a line, one line a target.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the seeds in `fuzz/corpus` anew, as the library writes them now, and
    /// fuzzes nothing.
    #[arg(long, conflicts_with_all = ["targets", "json"])]
    seeds: bool,
    /// Targets, as the files in `fuzz/fuzz_targets` are named. Without any, all.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Builds, runs, and sums up.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.seeds {
        return write_seeds().map(|()| ExitCode::SUCCESS);
    }
    let targets = choose(&all_targets()?, &options.targets)?;
    let programs = build(&targets)?;
    println!("{}", Outcome::HEADING);
    let outcomes = run_all(&targets, &programs, options.seconds)?;
    if let Some(file) = &options.json {
        let lines: Vec<String> = outcomes.iter().map(Outcome::json).collect();
        fs::write(file, lines.join("\n") + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| o.failed).collect();
    for outcome in &failed {
        println!("\n{} failed:\n{}", outcome.target, outcome.last_lines);
        if let Some(input) = &outcome.input {
            println!("the input: {}", input.display());
            println!(
                "once more: {} {}",
                programs.join(&outcome.target).display(),
                input.display()
            );
            println!(
                "when it is fixed, move it to fuzz/corpus/{}",
                outcome.target
            );
        }
    }
    let executions: u64 = outcomes.iter().map(|o| o.executions).sum();
    println!(
        "\n{executions} executions, {} of {} targets failed",
        failed.len(),
        outcomes.len()
    );
    Ok(ExitCode::from(u8::from(!failed.is_empty())))
}

fn fuzz_folder() -> PathBuf {
    workspace_root().join("fuzz")
}

fn target_folder() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR");
    let folder = set.unwrap_or_else(|| "target".into());
    workspace_root().join(folder).join("fuzz")
}

fn all_targets() -> Result<Vec<String>> {
    let folder = fuzz_folder().join("fuzz_targets");
    let mut targets = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            targets.push(name.to_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

fn choose(all: &[String], wanted: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    let chosen = |name: &&String| wanted.is_empty() || wanted.contains(name);
    Ok(all.iter().filter(chosen).cloned().collect())
}

fn write_seeds() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "test",
            "--lib",
            "-p",
            "lifebuoy-repo",
            "-p",
            "lifebuoy-data",
            "-p",
            "lifebuoy-engine",
            "fuzzing::tests::every_seed",
        ])
        .env(SEEDS_VARIABLE, "1")
        .current_dir(workspace_root())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "`cargo test` ended with {status}");
    Ok(())
}

/// Builds the targets and returns the folder of their programs.
fn build(targets: &[String]) -> Result<PathBuf> {
    // With an explicit target, the flags do not reach build scripts and macros.
    let host = host()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--target", &host, "--target-dir"])
        .arg(target_folder())
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE_FLAGS.join("\u{1f}"))
        .current_dir(fuzz_folder());
    for target in targets {
        command.args(["--bin", target]);
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the targets cannot be built: cargo ended with {status}; a C++ compiler is needed"
    );
    Ok(target_folder().join(host).join("debug"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc")
        .args(["--print", "host-tuple"])
        .current_dir(workspace_root())
        .output()
        .context("cannot run rustc")?;
    ensure!(
        output.status.success(),
        "rustc ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Runs as many targets at a time as there are cores. Prints each as it ends.
fn run_all(targets: &[String], programs: &Path, seconds: u32) -> Result<Vec<Outcome>> {
    let waiting: Mutex<VecDeque<&String>> = Mutex::new(targets.iter().collect());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let work = || -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        while let Some(target) = next() {
            let outcome = run_one(target, programs, seconds)?;
            println!("{}", outcome.row());
            outcomes.push(outcome);
        }
        Ok(outcomes)
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut outcomes = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(done) => outcomes.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(outcomes)
    })?;
    outcomes.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(outcomes)
}

fn run_one(target: &str, programs: &Path, seconds: u32) -> Result<Outcome> {
    let found = target_folder().join("corpus").join(target);
    let artifacts = fuzz_folder().join("artifacts").join(target);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let output = Command::new(programs.join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={PROCESS_MIB_MAX}"))
        // The slash makes it a folder.
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .arg(&found)
        .arg(fuzz_folder().join("corpus").join(target))
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {target}"))?;
    // libFuzzer writes to the standard error.
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(Outcome::read(target, output.status.success(), &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_corpus_and_every_corpus_a_target() {
        let corpus = fs::read_dir(fuzz_folder().join("corpus")).unwrap();
        let mut names: Vec<_> = corpus
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, all_targets().unwrap());
    }

    #[test]
    fn targets_are_chosen_by_name_and_a_wrong_name_is_told() {
        let owned = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        let all = owned(&["index", "pack", "slot"]);
        assert_eq!(choose(&all, &[]).unwrap(), all);
        let some = choose(&all, &owned(&["slot", "index"])).unwrap();
        assert_eq!(some, owned(&["index", "slot"]));
        let error = choose(&all, &owned(&["pakc"])).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no target pakc; there are index, pack, slot"
        );
    }
}

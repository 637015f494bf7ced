//! `cargo xtask test`: everything that must pass, with one command.
//!
//! Builds the programs of the test clusters and the binaries of lifebuoy, then
//! runs every test of the workspace. It skips nothing silently: what Cargo
//! does not run is not a test of this repository. As root on Debian it installs
//! the packages that a real node needs; without root those tests are skipped.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use lifebuoy_testkit::Tool;
use lifebuoy_testkit::namespace;
use lifebuoy_testkit::node::images::{self, Layer};
use lifebuoy_testkit::python::ensure_python;
use lifebuoy_testkit::tools::{self, workspace_root};

/// How many tests of a program run at a time; what the caller has set wins.
const THREADS_VARIABLE: &str = "RUST_TEST_THREADS";

/// Tests of one test program that run at a time: each may have control planes
/// of its own, of about 500 MB.
const TEST_THREADS: &str = "4";

/// What is tested.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// More arguments for `cargo test`, such as `-p lifebuoy-engine` or the name
    /// of a test. Without `-p`, the whole workspace is tested.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CARGO TEST ARGUMENTS"
    )]
    arguments: Vec<String>,
}

/// Builds, tests, and sums up.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    println!("== the programs of the test clusters");
    let say = |line: &str| println!("{line}");
    match node_cannot_run(&say) {
        None => {
            tools::ensure(&[&Tool::ALL[..], &Tool::NODE].concat(), &say)?;
            for layer in Layer::ALL {
                images::ensure(layer, &say)?;
            }
        }
        Some(why) => {
            say(&format!("without the tests on a real node: {why}"));
            tools::ensure(&Tool::ALL, &say)?;
        }
    }
    ensure_python(&say)?;
    let tools_ready = start.elapsed();

    println!("== the binaries of lifebuoy");
    crate::build::operator()?;
    let built = start.elapsed();

    println!("== the tests");
    let outcome = cargo_test(&options.arguments);
    let tested = start.elapsed();

    println!();
    println!("programs {:6.1} s", tools_ready.as_secs_f64());
    println!("binaries {:6.1} s", (built - tools_ready).as_secs_f64());
    println!("tests    {:6.1} s", (tested - built).as_secs_f64());
    match outcome {
        Ok(()) => {
            println!("every test passed");
            Ok(())
        }
        Err(error) => Err(error.context("not every test passed")),
    }
}

/// Why the tests on a real node will be skipped, or fail in CI: said before the
/// others run. Installs what can be installed.
fn node_cannot_run(say: &dyn Fn(&str)) -> Option<String> {
    match namespace::install_missing(say) {
        Ok(()) => namespace::missing(),
        Err(error) => Some(format!("{error:#}")),
    }
}

fn test_arguments(given: &[String]) -> Vec<&str> {
    let picks_packages = given
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "-p" || argument.starts_with("--package"));
    let mut arguments = vec!["test", "--no-fail-fast"];
    if !picks_packages {
        arguments.push("--workspace");
    }
    arguments.extend(given.iter().map(String::as_str));
    arguments
}

fn cargo_test(given: &[String]) -> Result<()> {
    // Cargo sets $CARGO for the programs that it runs.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(test_arguments(given))
        .current_dir(workspace_root());
    if std::env::var_os(THREADS_VARIABLE).is_none() {
        command.env(THREADS_VARIABLE, TEST_THREADS);
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "`cargo test` ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tested_unless_packages_are_named() {
        let owned = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            test_arguments(&[]),
            ["test", "--no-fail-fast", "--workspace"]
        );
        let named = owned(&["-p", "lifebuoy-api", "--", "--nocapture"]);
        assert!(!test_arguments(&named).contains(&"--workspace"));
        let after = owned(&["--", "-p"]);
        assert!(test_arguments(&after).contains(&"--workspace"));
    }
}

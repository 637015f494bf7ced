//! The command line of lifebuoy: `lifebuoy`, `kubectl lifebuoy` and
//! `lifebuoy operator` are this code.
//!
//! Every command works in one of two ways. *Through* the operator it creates a
//! custom resource and follows it. *Direct* it calls the engine itself on a
//! kubeconfig and a repository URL, and needs no operator. It never decides
//! what a backup or a restore does, and never prints a secret.
#![forbid(unsafe_code)]

mod args;
mod cluster;
mod commands;
mod conditions;
mod direct;
mod documents;
mod error;
mod exit;
mod follow;
mod label_selector;
mod logging;
mod output;
mod requests;
mod store;

use std::{num::NonZeroUsize, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

use crate::{args::Cli, error::Error, exit::Exit, output::Terminal};

/// Pools of memory that are not contended for, also where there is only one core.
const ARENAS_MIN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// Under which name the command was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `lifebuoy`
    Lifebuoy,
    /// `kubectl lifebuoy`, which runs the binary `kubectl-lifebuoy`.
    KubectlPlugin,
}

impl Program {
    /// What a person types to start it.
    const fn typed(self) -> &'static str {
        match self {
            Self::Lifebuoy => "lifebuoy",
            Self::KubectlPlugin => "kubectl lifebuoy",
        }
    }

    /// The name of the binary.
    const fn binary(self) -> &'static str {
        match self {
            Self::Lifebuoy => "lifebuoy",
            Self::KubectlPlugin => "kubectl-lifebuoy",
        }
    }
}

/// The grammar of the command line, for help, documentation and completions.
#[must_use]
pub fn grammar(program: Program) -> clap::Command {
    Cli::command()
        .name(program.binary())
        .bin_name(program.typed())
        .display_name(program.typed())
}

/// Runs the command that the process was started with. The exit code is one of
/// those that `--help` lists.
#[must_use]
pub fn main(program: Program) -> ExitCode {
    let cores = std::thread::available_parallelism().unwrap_or(ARENAS_MIN);
    lifebuoy_allocator::limit_arenas(cores.max(ARENAS_MIN));
    // Fails only if a provider is installed already, which then serves as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let matches = grammar(program).get_matches();
    let terminal = Terminal::detect();
    let ended = Cli::from_arg_matches(&matches)
        .map_err(|error| Error::usage(error.to_string(), "see --help"))
        .and_then(|cli| run(program, cli, &terminal));
    match ended {
        Ok(exit) => exit.into(),
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Exit::Done.into()
        }
        Err(error) => {
            terminal.fail(&error);
            error.exit().into()
        }
    }
}

fn run(program: Program, cli: Cli, terminal: &Terminal) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::io("start the runtime", source))?;
    let ended = runtime.block_on(commands::run(program, cli, terminal));
    // Work that cannot be interrupted, such as a key derivation, is not waited for.
    runtime.shutdown_background();
    ended
}

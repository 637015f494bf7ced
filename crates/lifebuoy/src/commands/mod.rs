//! The commands: each reads its arguments, calls what does the work, and shows
//! what came of it.

mod backup;
mod care;
mod data;
mod mover;
mod operator;
mod point;
mod repo;
mod restore;
mod schedule;

use std::time::Duration;

use clap_complete::generate;
use tokio_util::sync::CancellationToken;

use crate::{
    Program,
    args::{Cli, Command},
    error::Error,
    exit::Exit,
    grammar,
    output::Terminal,
};

/// Runs the command.
///
/// # Errors
/// Whatever it failed with; the error knows its exit code.
pub(crate) async fn run(program: Program, cli: Cli, terminal: &Terminal) -> Result<Exit, Error> {
    let Cli { cluster, command } = cli;
    match command {
        Command::Repo(command) => repo::run(&cluster, command, *terminal).await,
        Command::Backup(command) => backup::run(&cluster, command, *terminal).await,
        Command::Schedule(command) => schedule::run(&cluster, command, *terminal).await,
        Command::Point(command) => point::run(&cluster, command, *terminal).await,
        Command::Restore(command) => restore::run(&cluster, command, *terminal).await,
        Command::Operator(args) => operator::run(&cluster, &args).await,
        Command::Mover(args) => mover::run(&args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            generate(shell, &mut grammar(program), program.binary(), &mut script);
            terminal.print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
        Command::Crds => {
            terminal.print(&crds()?)?;
            Ok(Exit::Done)
        }
        Command::Version => {
            terminal.print(&format!("lifebuoy {}", env!("CARGO_PKG_VERSION")))?;
            Ok(Exit::Done)
        }
    }
}

fn crds() -> Result<String, Error> {
    let mut text = String::new();
    for crd in lifebuoy_api::all_crds() {
        text.push_str("---\n");
        text.push_str(
            &serde_saphyr::to_string(&crd).map_err(|error| Error::document("a CRD", error))?,
        );
    }
    Ok(text)
}

/// Work that ends at Ctrl-C and after `timeout`: the token is cancelled, and
/// the work ends what it has begun.
async fn bounded<T>(
    what: &str,
    timeout: Option<Duration>,
    work: impl AsyncFnOnce(CancellationToken) -> Result<T, Error>,
    hint: &str,
) -> Result<T, Error> {
    let cancel = CancellationToken::new();
    let work = work(cancel.clone());
    tokio::pin!(work);
    let late = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = &mut work => return done,
        () = late => {}
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|source| Error::io("listen for Ctrl-C", source))?;
            cancel.cancel();
            return work.await;
        }
    }
    cancel.cancel();
    match work.await {
        Ok(done) => Ok(done),
        Err(_) => Err(Error::TimedOut {
            what: what.to_owned(),
            hint: hint.to_owned(),
        }),
    }
}

//! `lifebuoy operator`

use std::env;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{ClusterArgs, OperatorArgs},
    cluster::Cluster,
    error::Error,
    exit::Exit,
    logging,
};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What the operator ended with.
pub(crate) async fn run(cluster: &ClusterArgs, args: &OperatorArgs) -> Result<Exit, Error> {
    logging::start(&args.log)?;
    let config = args.config(&cluster.namespace, env::var("HOSTNAME").ok());
    let client = Cluster::connect(cluster).await?.client;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to end");
        token.cancel();
    });
    lifebuoy_operator::run(config, client, shutdown).await?;
    Ok(Exit::Done)
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    signal(kind).map_err(|source| Error::io("listen for signals", source))
}

//! The life of the operator: serve health, win the Lease, run the controllers,
//! and end in an order in which nothing is left half done.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use futures::future::join_all;
use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Mode, OperatorConfig,
    context::Context,
    controllers::{Wakers, controllers, kinds_are_served},
    health::{Health, serve},
    keeper::{self, Care},
    leader::Election,
    metrics::Metrics,
    sweep,
    tasks::Tasks,
};

/// Without a Lease there is no regular request to tell that the API server
/// answers: what counts is that it once did.
const ALWAYS: Duration = Duration::from_secs(u32::MAX as u64);

/// Runs the operator until `shutdown`.
///
/// After `shutdown`, controllers end first, then what runs is cancelled and
/// ended in its repository, at most for `shutdown_grace`; then the Lease is
/// given back. Requests that were under way are continued by whoever is next.
///
/// # Errors
/// [`Error::Config`], [`Error::Listen`]; [`Error::LeaseLost`] when another
/// replica took over, after which the process should start again.
pub async fn run(
    config: OperatorConfig,
    client: Client,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    validate(&config)?;
    let metrics = Arc::new(Metrics::new());
    let (alive, alive_now) = watch::channel(None);
    let health = Health {
        metrics: metrics.clone(),
        alive: alive_now,
        stale_after: if config.leader_election {
            config.lease_duration * 2
        } else {
            ALWAYS
        },
    };
    let served = CancellationToken::new();
    // Ends with this function, however it ends.
    let _served = served.clone().drop_guard();
    let endpoints = serve(config.listen, health, served);
    tokio::select! {
        ended = endpoints => ended.and(Err(Error::Ended("the health endpoint"))),
        ended = lead(config, client, metrics, alive, shutdown) => ended,
    }
}

fn validate(config: &OperatorConfig) -> Result<(), Error> {
    let wrong = |field, message: String| Err(Error::Config { field, message });
    let name = &config.cluster_name;
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = (1..=63).contains(&name.len())
        && name.chars().all(label)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !is_label {
        return wrong(
            "cluster-name",
            format!("`{name}` is not 1 to 63 lower-case letters, digits and inner dashes"),
        );
    }
    if config.lease_duration < Duration::from_secs(2) {
        return wrong(
            "lease-duration",
            "at least two seconds are needed".to_owned(),
        );
    }
    let served = config.installation_mode;
    if served != Mode::Both && served != config.mode {
        return wrong(
            "mode",
            format!(
                "a process with mode {} in an installation with mode {}",
                config.mode.as_str(),
                served.as_str()
            ),
        );
    }
    Ok(())
}

/// Works while the Lease is ours.
async fn lead(
    config: OperatorConfig,
    client: Client,
    metrics: Arc<Metrics>,
    alive: watch::Sender<Option<Instant>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    if !config.leader_election {
        metrics.leading(true);
        return work(config, client, metrics, &alive, shutdown).await;
    }
    let mut election = Election::new(
        client.clone(),
        &config.namespace,
        &config.lease_name,
        &config.identity,
        config.lease_duration,
        Utc::now,
    );
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = election.acquire(&alive) => {}
    }
    metrics.leading(true);
    let release = CancellationToken::new();
    let worked = async {
        let ended = work(config, client, metrics.clone(), &alive, shutdown).await;
        release.cancel();
        ended
    };
    let mut worked = std::pin::pin!(worked);
    let mut held = std::pin::pin!(election.hold(&alive, &release));
    // The Lease is held until the last of the work has ended. When it is lost,
    // the work is dropped where it stands.
    tokio::select! {
        held = &mut held => {
            metrics.leading(false);
            held.and(Err(Error::Ended("the lease")))
        }
        worked = &mut worked => {
            metrics.leading(false);
            held.await.and(worked)
        }
    }
}

/// Runs the controllers until `shutdown`. Who leads is ready once they run.
async fn work(
    config: OperatorConfig,
    client: Client,
    metrics: Arc<Metrics>,
    alive: &watch::Sender<Option<Instant>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = kinds_are_served(&client) => {}
    }
    let grace = config.shutdown_grace;
    let stopping = CancellationToken::new();
    // Whatever ends this function ends the tasks.
    let _stopping = stopping.clone().drop_guard();
    let (backup_finished, backups) = mpsc::unbounded_channel();
    let (restore_finished, restores) = mpsc::unbounded_channel();
    let (volume_finished, volume_restores) = mpsc::unbounded_channel();
    let (care_finished, repositories) = mpsc::unbounded_channel();
    let context = Arc::new(Context::new(
        client,
        config.clone(),
        metrics,
        Tasks::new(
            config.max_concurrent_backups,
            stopping.clone(),
            backup_finished,
        ),
        Tasks::new(
            config.max_concurrent_restores,
            stopping.clone(),
            restore_finished,
        ),
        Tasks::new(
            config.movers.volumes_at_a_time(),
            stopping.clone(),
            volume_finished,
        ),
        Care::new(care_finished),
        stopping.clone(),
    ));
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    let mut caught_up = Vec::new();
    let wakers = Wakers {
        repositories,
        backups,
        restores,
        volume_restores,
    };
    for controller in controllers(&context, wakers, &stop) {
        running.spawn(controller.work);
        caught_up.push(controller.caught_up);
    }
    if config.repositories {
        running.spawn(keeper::run(context.clone(), stop.clone()));
    }
    running.spawn(sweep::run(context.clone(), stop.clone()));
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = join_all(caught_up) => {}
    }
    alive.send_replace(Some(Instant::now()));
    tracing::info!(
        namespace = config.namespace,
        cluster = config.cluster_name,
        mode = config.mode.as_str(),
        "working"
    );
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = running.join_next() => return Err(Error::Ended("a controller")),
    }
    tracing::info!("ending: what runs is stopped, and continued by whoever is next");
    stop.cancel();
    let ended = async {
        stopping.cancel();
        while running.join_next().await.is_some() {}
        tokio::join!(
            context.backups.idle(),
            context.restores.idle(),
            context.volume_restores.idle(),
        );
    };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::warn!("something did not end in time; it is continued from its status");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_contradicts_itself_is_refused() {
        let base = || OperatorConfig::new("lifebuoy", "prod-1");
        assert!(validate(&base()).is_ok());
        for name in ["", "Prod", "a.b", "-a", "a-", &"x".repeat(64)] {
            let config = OperatorConfig {
                cluster_name: name.to_owned(),
                ..base()
            };
            assert!(
                matches!(validate(&config), Err(Error::Config { .. })),
                "{name}"
            );
        }
        let config = OperatorConfig {
            mode: Mode::Backup,
            installation_mode: Mode::Restore,
            ..base()
        };
        assert!(matches!(
            validate(&config),
            Err(Error::Config { field: "mode", .. })
        ));
    }
}

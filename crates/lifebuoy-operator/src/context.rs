//! What every reconciler is given: clients, caches and registries. Decides nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use kube::Client;
use lifebuoy_api::{PointCluster, Reason};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, OperatorConfig, backup::BackupTasks, events::Events, keeper::Care, metrics::Metrics,
    mover::Places, repository::Repositories, restore::RestoreTasks, schedule::Retained,
    volume_restore::VolumeTasks,
};

/// The first and the longest wait after a reconciliation that failed.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What every reconciler is given.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) config: OperatorConfig,
    pub(crate) clock: fn() -> DateTime<Utc>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) repositories: Repositories,
    pub(crate) backups: Arc<BackupTasks>,
    pub(crate) restores: Arc<RestoreTasks>,
    pub(crate) volume_restores: Arc<VolumeTasks>,
    pub(crate) retained: Retained,
    pub(crate) care: Care,
    /// Places for movers.
    pub(crate) movers: Places,
    /// Cancelled when this process is about to end: what runs elsewhere may go on then.
    pub(crate) ending: CancellationToken,
    cluster: OnceCell<PointCluster>,
    failures: Mutex<HashMap<String, u32>>,
}

impl Context {
    #[allow(clippy::too_many_arguments, reason = "each is one part of the whole")]
    pub(crate) fn new(
        client: Client,
        config: OperatorConfig,
        metrics: Arc<Metrics>,
        backups: Arc<BackupTasks>,
        restores: Arc<RestoreTasks>,
        volume_restores: Arc<VolumeTasks>,
        care: Care,
        ending: CancellationToken,
    ) -> Self {
        Self {
            events: Events::new(client.clone(), &config.identity),
            movers: Places::new(config.movers.max_concurrent, config.movers.max_per_node),
            ending,
            client,
            config,
            clock: Utc::now,
            metrics,
            repositories: Repositories::default(),
            backups,
            restores,
            volume_restores,
            retained: Retained::default(),
            care,
            cluster: OnceCell::new(),
            failures: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// This cluster: its name by the installation, its uid by the API server.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(crate) async fn cluster(&self) -> Result<&PointCluster, lifebuoy_engine::Error> {
        self.cluster
            .get_or_try_init(|| async {
                let uid = lifebuoy_engine::capture::cluster_uid(&self.client).await?;
                Ok(PointCluster {
                    name: self.config.cluster_name.clone(),
                    uid,
                })
            })
            .await
    }

    /// Counts a failed reconciliation; gives how often it failed in a row and
    /// how long to wait.
    pub(crate) fn failed(&self, uid: &str) -> (u32, Duration) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        let wait = RETRY_MIN
            .saturating_mul(1 << (*count - 1).min(10))
            .min(RETRY_MAX);
        (*count, wait)
    }

    pub(crate) fn succeeded(&self, uid: &str) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }

    /// Why a request of this kind in this namespace is not served, if so.
    /// Decided before anything is read for it.
    pub(crate) fn refuses(&self, namespace: &str, served: bool) -> Option<(Reason, String)> {
        let config = &self.config;
        if namespace != config.namespace {
            return Some((
                Reason::NamespaceNotPermitted,
                format!(
                    "requests are served in the operator's own namespace `{}` only: \
                     nothing was read or written for this one",
                    config.namespace
                ),
            ));
        }
        (!served).then(|| {
            (
                Reason::ModeNotPermitted,
                format!(
                    "this installation runs with `mode: {}`, which does not serve such requests; \
                     upgrade the chart with another mode",
                    config.installation_mode.as_str()
                ),
            )
        })
    }
}

/// The longest that a reconciler waits for the wall clock in one piece, so that
/// a clock that jumps is noticed.
pub(crate) const NAP_MAX: Duration = Duration::from_secs(60);

/// What one reconciliation leads to.
pub(crate) type Reconciled = Result<kube::runtime::controller::Action, Error>;

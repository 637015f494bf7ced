//! A backup without an operator.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use kube::Client;
use lifebuoy_api::{BackupSpec, PointCluster};
use lifebuoy_engine::{
    capture::{self, CaptureProgress, CaptureRequest, Captured, ONLY_WARN_GROUPS},
    point,
    selection::{Glob, Selector},
};
use lifebuoy_repo::{Purpose, Repository, SessionId, SessionRequest, Writer};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    output::{Progress, Terminal},
};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What is to be saved, by whom and when.
pub(crate) struct Saving {
    pub(crate) name: String,
    pub(crate) cluster_name: String,
    pub(crate) own_namespace: String,
    pub(crate) spec: BackupSpec,
    pub(crate) at: DateTime<Utc>,
}

/// Saves, and commits. Stopped before the commit, nothing is left in the
/// repository but an ended session.
///
/// # Errors
/// [`Error::Refused`] when another cluster uses the name; those of the engine.
pub(crate) async fn save(
    client: &Client,
    repo: &Repository,
    saving: Saving,
    cancel: &CancellationToken,
    terminal: Terminal,
) -> Result<Captured, Error> {
    let selector = Selector::parse(&saving.spec.selection, "selection")?;
    let uid = capture::cluster_uid(client).await?;
    let cluster = PointCluster {
        name: saving.cluster_name,
        uid,
    };
    refuse_conflict(repo, &cluster).await?;
    let label = Bytes::from(format!("lifebuoy backup create {}", saving.name));
    let writer = Arc::new(begin(repo, &cluster, label).await?);
    let only_warn = ONLY_WARN_GROUPS
        .iter()
        .map(|glob| Glob::parse(glob).map_err(lifebuoy_engine::Error::Internal));
    let request = CaptureRequest {
        selector,
        selection: saving.spec.selection,
        cluster,
        backup: saving.name,
        backup_uid: String::new(),
        schedule: String::new(),
        volumes: saving.spec.volumes,
        empty_dirs: false,
        taken_at: saving.at,
        own_namespace: Some(saving.own_namespace),
        down_groups_that_only_warn: only_warn.collect::<Result<_, _>>()?,
    };
    let progress = CaptureProgress::new();
    let captured = {
        let work = capture::capture(
            client,
            Arc::clone(&writer),
            &request,
            &progress,
            capture::no_volumes,
            cancel,
        );
        watch(work, &progress, terminal).await
    };
    match captured {
        Ok(captured) => Ok(captured),
        Err(error) => {
            writer.abandon().await;
            Err(error.into())
        }
    }
}

/// Begins a session; under another id, if a garbage collection begins meanwhile.
async fn begin(repo: &Repository, cluster: &PointCluster, label: Bytes) -> Result<Writer, Error> {
    loop {
        let id = SessionId::random(&mut rand::rng());
        let session = SessionRequest {
            id,
            cluster: repo.cluster_key(&cluster.uid),
            purpose: Purpose::Backup,
            label: label.clone(),
        };
        match repo.begin(session).await {
            Err(lifebuoy_repo::Error::Outdated { .. }) => {}
            begun => return Ok(begun?),
        }
    }
}

/// One name with two uids: the lineages would be mixed up.
async fn refuse_conflict(repo: &Repository, cluster: &PointCluster) -> Result<(), Error> {
    let points = point::points(repo).await?.points;
    let conflict = points
        .iter()
        .map(|point| &point.summary.cluster)
        .find(|other| (other.name == cluster.name) != (other.uid == cluster.uid));
    let Some(other) = conflict else { return Ok(()) };
    let message = if other.name == cluster.name {
        format!(
            "another cluster (uid {}) has saved here under the name `{}`",
            other.uid, other.name
        )
    } else {
        format!(
            "this cluster has saved here under the name `{}`",
            other.name
        )
    };
    Err(Error::Refused {
        what: "backup".to_owned(),
        message,
        hint: "give --cluster-name the name that belongs to this cluster alone".to_owned(),
    })
}

async fn watch<T>(
    work: impl Future<Output = T>,
    progress: &CaptureProgress,
    terminal: Terminal,
) -> T {
    let mut shown = Progress::begin(terminal);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let now = progress.snapshot();
                let count = |value: i64| u64::try_from(value).unwrap_or(0);
                let text = format!("Saving ({} objects), types", now.objects);
                shown.update(&text, count(now.types), count(now.types_total));
            }
        }
    }
}

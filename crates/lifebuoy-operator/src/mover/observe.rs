//! Looking at a mover: its pod, its Job, what is warned of, its log. Only what the
//! decision needs, for it is looked at often.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    ResourceExt,
    api::{ListParams, LogParams},
};
use lifebuoy_api::PLACE_LABEL;
use lifebuoy_engine::volumes::{MOVER_CONTAINER, MoverEnd, MoverProgress};

use super::{
    decide::{Seen, Stage, is_in_place, is_on_node, stage},
    error::MoverError,
    objects::Objects,
};

/// The label that the Job controller puts on pods.
const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// Lines of a log among which there is one of progress.
const LOG_LINES: i64 = 20;
/// Bytes of a log that are read at most.
const LOG_BYTES_MAX: i64 = 64 * 1024;
/// Warnings of a pod that are looked at.
const EVENTS_MAX: u32 = 50;

impl Objects<'_> {
    /// What there is of a mover.
    pub(super) async fn observe(&self, name: &str) -> Result<Seen, MoverError> {
        let mut seen = Seen {
            pod: self.pods_of(name).await?.into_iter().next(),
            ..Seen::default()
        };
        let about = match &seen.pod {
            Some(pod) => pod.uid(),
            None => {
                seen.job = self
                    .jobs
                    .get_opt(name)
                    .await
                    .map_err(MoverError::kube("read the Job of a mover"))?;
                seen.job.as_ref().and_then(ResourceExt::uid)
            }
        };
        if matches!(stage(&seen), Stage::NoPod | Stage::Pending)
            && let Some(uid) = about
        {
            seen.warning = self.warning(&uid).await?;
        }
        if stage(&seen) == Stage::Pending && !seen.pod.as_ref().is_some_and(is_on_node) {
            seen.is_behind_others = self.others_are_in_place().await?;
        }
        Ok(seen)
    }

    /// Whether any mover is on a node.
    async fn others_are_in_place(&self) -> Result<bool, MoverError> {
        let params = ListParams::default().labels(PLACE_LABEL);
        let listed = self.pods.list(&params).await;
        let pods = listed.map_err(MoverError::kube("list the pods of movers"))?;
        Ok(pods.items.iter().any(is_in_place))
    }

    /// The pods of a Job, the newest first.
    pub(super) async fn pods_of(&self, job: &str) -> Result<Vec<Pod>, MoverError> {
        let params = ListParams::default().labels(&format!("{JOB_NAME_LABEL}={job}"));
        let listed = self.pods.list(&params).await;
        let mut pods = listed
            .map_err(MoverError::kube("list the pods of a mover"))?
            .items;
        pods.sort_by_key(|pod| {
            std::cmp::Reverse(pod.metadata.creation_timestamp.as_ref().map(|at| at.0))
        });
        Ok(pods)
    }

    /// The newest warning about an object.
    async fn warning(&self, uid: &str) -> Result<Option<String>, MoverError> {
        let params = ListParams::default()
            .fields(&format!("involvedObject.uid={uid},type=Warning"))
            .limit(EVENTS_MAX);
        let listed = self.events.list(&params).await;
        let events = listed
            .map_err(MoverError::kube("list the events of a mover"))?
            .items;
        let newest = events.into_iter().max_by_key(when);
        Ok(newest.map(|event| {
            let reason = event.reason.unwrap_or_default();
            let message = event.message.unwrap_or_default();
            format!("{reason}: {message}")
        }))
    }

    /// How far it is, if its log tells.
    pub(super) async fn progress(&self, seen: &Seen) -> Option<MoverProgress> {
        MoverProgress::last_of(&self.log(seen).await?)
    }

    /// Keeps what one that said nothing has logged: its pod goes.
    pub(super) async fn log_end(&self, seen: &Seen, end: &MoverEnd) {
        if let MoverEnd::Failed { message, .. } | MoverEnd::Untouched { message, .. } = end
            && let Some(log) = self.log(seen).await
        {
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| !line.starts_with("{\"progress\""))
                .collect();
            tracing::warn!(log = lines.join("\n"), "{message}");
        }
    }

    async fn log(&self, seen: &Seen) -> Option<String> {
        let name = seen.pod.as_ref()?.name_any();
        let params = LogParams {
            container: Some(MOVER_CONTAINER.to_owned()),
            tail_lines: Some(LOG_LINES),
            limit_bytes: Some(LOG_BYTES_MAX),
            ..LogParams::default()
        };
        // A log is good to have, and no more.
        match self.pods.logs(&name, &params).await {
            Ok(log) => Some(log),
            Err(error) => {
                tracing::debug!(%error, pod = name, "cannot read the log of a mover");
                None
            }
        }
    }
}

fn when(event: &Event) -> Option<k8s_openapi::jiff::Timestamp> {
    let last = event.last_timestamp.as_ref().map(|at| at.0);
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref())
        .map(|at| at.0);
    let first = event.event_time.as_ref().map(|at| at.0);
    last.max(series).max(first)
}

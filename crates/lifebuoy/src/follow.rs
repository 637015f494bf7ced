//! Follows a request until it has ended, through restarts of the operator and
//! of the API server. Changes nothing.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use lifebuoy_api::{Backup, Restore};

use crate::{
    cluster::{Cluster, Kind},
    conditions::{Verdict, verdict},
    error::Error,
    exit::Exit,
    output::{Progress, Terminal},
};

/// A kind that asks for work.
pub(crate) trait Request: Kind {
    /// The word in commands: `backup`.
    const WORD: &'static str;
    fn conditions(&self) -> &[Condition];
    /// What is done now, and how much of how much is done.
    fn progress(&self) -> (String, i64, i64);
}

impl Request for Backup {
    const WORD: &'static str = "backup";

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }

    fn progress(&self) -> (String, i64, i64) {
        let status = self.status.clone().unwrap_or_default();
        let text = format!(
            "{} ({} objects), types",
            phase(&status.phase),
            status.progress.objects
        );
        (text, status.progress.types, status.progress.types_total)
    }
}

impl Request for Restore {
    const WORD: &'static str = "restore";

    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }

    fn progress(&self) -> (String, i64, i64) {
        let status = self.status.clone().unwrap_or_default();
        // When all objects are written, the volumes may still be filled.
        if let Some(volumes) = &status.volumes
            && status.counts.done >= status.counts.planned
            && volumes.done + volumes.failed < volumes.total
        {
            let text = format!(
                "{}, {} of {} volumes, bytes",
                phase(&status.phase),
                volumes.done,
                volumes.total
            );
            return (text, volumes.bytes, volumes.bytes_total);
        }
        let text = format!("{}, objects", phase(&status.phase));
        (text, status.counts.done, status.counts.planned)
    }
}

fn phase(phase: &str) -> &str {
    if phase.is_empty() {
        "Waiting for the operator"
    } else {
        phase
    }
}

/// Follows `request` until it has ended or cannot go on.
///
/// # Errors
/// [`Error::TimedOut`] after `timeout`; an error when the object is deleted or
/// may not be watched.
pub(crate) async fn follow<K: Request>(
    cluster: &Cluster,
    request: &K,
    timeout: Option<Duration>,
    terminal: Terminal,
) -> Result<(K, Verdict), Error> {
    let name = request.name_any();
    let what = format!("{} {name}", K::WORD);
    let ended = watch(cluster, request, terminal);
    let Some(timeout) = timeout else {
        return ended.await;
    };
    match tokio::time::timeout(timeout, ended).await {
        Ok(ended) => ended,
        Err(_) => Err(Error::TimedOut {
            what,
            hint: format!(
                "the request goes on: look at it with `lifebuoy {} describe {name} -n {}`",
                K::WORD,
                cluster.namespace
            ),
        }),
    }
}

async fn watch<K: Request>(
    cluster: &Cluster,
    request: &K,
    terminal: Terminal,
) -> Result<(K, Verdict), Error> {
    let name = request.name_any();
    let uid = request.uid();
    let mut progress = Progress::begin(terminal);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(cluster.api::<K>(), config)
        .default_backoff()
        .boxed();
    // Whether the list that a watch begins with has held it: it may have been
    // deleted while nobody watched.
    let mut listed = false;
    while let Some(event) = events.next().await {
        let seen = match event {
            Ok(watcher::Event::Apply(object)) => object,
            Ok(watcher::Event::InitApply(object)) => {
                listed = true;
                object
            }
            Ok(watcher::Event::Init) => {
                listed = false;
                continue;
            }
            Ok(watcher::Event::InitDone) if listed => continue,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => {
                return Err(gone::<K>(&name));
            }
            Err(error) => {
                fatal(error, &name)?;
                continue;
            }
        };
        if seen.uid() != uid {
            return Err(gone::<K>(&name));
        }
        if let Some(verdict) = verdict(seen.conditions()) {
            return Ok((seen, verdict));
        }
        let (text, done, total) = seen.progress();
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        progress.update(&text, count(done), count(total));
    }
    Err(gone::<K>(&name))
}

/// A watch goes on after whatever may pass; a refusal does not pass.
fn fatal(error: watcher::Error, name: &str) -> Result<(), Error> {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) if matches!(&error, kube::Error::Api(status) if matches!(status.code, 401 | 403)) => {
            Err(Error::kube(format!("watch {name}"), error))
        }
        _ => Ok(()),
    }
}

fn gone<K: Request>(name: &str) -> Error {
    Error::Ended {
        what: format!("{} {name}", K::WORD),
        reason: "Deleted".to_owned(),
        message: "it was deleted while it was followed; how it ended is not known".to_owned(),
        hint: None,
        exit: Exit::Failed,
    }
}

/// The exit code of a request that has ended and was shown.
///
/// # Errors
/// [`Error::Ended`] with the exit code of the verdict, unless all is well.
pub(crate) fn conclude<K: Request>(request: &K, verdict: Verdict) -> Result<Exit, Error> {
    let Verdict {
        exit,
        reason,
        message,
        stalled,
    } = verdict;
    if exit == Exit::Done {
        return Ok(exit);
    }
    let hint = match (stalled, exit) {
        (false, _) => None,
        (true, Exit::Refused) => Some("a request cannot be changed: delete it, and make another"),
        (true, _) => Some("it goes on by itself once that is put right"),
    };
    Err(Error::Ended {
        what: format!("{} {}", K::WORD, request.name_any()),
        reason,
        message,
        hint: hint.map(str::to_owned),
        exit,
    })
}

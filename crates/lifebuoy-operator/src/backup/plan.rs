//! What is done next about a Backup. Pure: tested with plain values.

use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lifebuoy_api::{Backup, Reason, time::from_kube};
use lifebuoy_engine::selection::Selector;
use lifebuoy_repo::SessionId;

use super::observe::Seen;
use crate::{
    context::NAP_MAX,
    status::{Standing, has_ended},
    tasks::TaskState,
};

/// How often an attempt is begun that the operator does not survive.
pub(crate) const ATTEMPTS_MAX: i64 = 5;

/// What is done next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing, until something changes or this long.
    Rest(Option<Duration>),
    /// The object has outlived its end by `ttlSecondsAfterFinished`.
    Delete,
    /// It says how it stands and waits.
    Stand(Standing),
    /// An attempt is begun, in a new session.
    Begin(Selector),
    /// Somebody began a session and is gone: how did it end?
    Recover(SessionId),
    /// The task runs on.
    Follow,
    /// The task is told to stop.
    Stop,
    /// The task has ended.
    Finish,
}

/// Whether a Backup has ended.
pub(crate) fn ended(backup: &Backup) -> bool {
    backup
        .status
        .as_ref()
        .is_some_and(|status| has_ended(&status.conditions))
}

pub(crate) fn next(seen: &Seen) -> Step {
    let backup = &seen.backup;
    if ended(backup) {
        return after_the_end(backup, seen.now);
    }
    match seen.task {
        TaskState::Done => return Step::Finish,
        TaskState::Running { stopping: true, .. } => return Step::Follow,
        TaskState::Running { running, .. } => {
            let stop = backup.spec.cancel || overdue(backup, running);
            return if stop { Step::Stop } else { Step::Follow };
        }
        TaskState::None => {}
    }
    let status = backup.status.as_ref();
    if let Some(session) = status.and_then(|status| status.session.as_deref()) {
        return match session.parse() {
            Ok(session) => Step::Recover(session),
            // Somebody else wrote into our status; begin afresh.
            Err(_) => begin(seen),
        };
    }
    begin(seen)
}

fn begin(seen: &Seen) -> Step {
    let backup = &seen.backup;
    if backup.spec.cancel {
        return Step::Stand(Standing::Failed(
            Reason::Cancelled,
            "it was cancelled".to_owned(),
        ));
    }
    if attempts(backup) >= ATTEMPTS_MAX {
        return Step::Stand(Standing::Failed(
            Reason::Interrupted,
            format!(
                "the operator was stopped during each of {ATTEMPTS_MAX} attempts; see whether it \
                 runs out of memory, then create another Backup"
            ),
        ));
    }
    let selector = match Selector::parse(&backup.spec.selection, "spec.selection") {
        Ok(selector) => selector,
        Err(error) => {
            return Step::Stand(Standing::Stalled(Reason::InvalidSpec, error.to_string()));
        }
    };
    let name = &backup.spec.repository;
    let Some(repository) = &seen.repository else {
        return Step::Stand(Standing::Stalled(
            Reason::RepositoryNotFound,
            format!(
                "spec.repository: there is no Repository `{name}` in the namespace `{}`; create \
                 it, and this Backup begins",
                backup.namespace().unwrap_or_default()
            ),
        ));
    };
    if repository.spec.suspend {
        return waits_for(format!("the Repository `{name}` is suspended"));
    }
    let looked_at = repository
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    if looked_at != repository.metadata.generation {
        return waits_for(format!("the Repository `{name}` was not looked at yet"));
    }
    if seen.its_turn {
        return Step::Begin(selector);
    }
    Step::Stand(Standing::Waiting(
        Reason::Waiting,
        "another Backup runs".to_owned(),
    ))
}

fn waits_for(message: String) -> Step {
    Step::Stand(Standing::Waiting(Reason::RepositoryNotReady, message))
}

pub(crate) fn attempts(backup: &Backup) -> i64 {
    backup.status.as_ref().map_or(0, |status| status.attempts)
}

/// Whether the task runs longer than it may. Only the monotonic clock of this
/// process counts: a wall clock that jumps ends no backup.
pub(crate) fn overdue(backup: &Backup, running: Duration) -> bool {
    let deadline = backup
        .spec
        .active_deadline_seconds
        .and_then(|s| u64::try_from(s).ok());
    deadline.is_some_and(|seconds| running >= Duration::from_secs(seconds))
}

fn after_the_end(backup: &Backup, now: DateTime<Utc>) -> Step {
    let completed = backup
        .status
        .as_ref()
        .and_then(|status| status.completion_time.as_ref());
    rest_of_life(backup.spec.ttl_seconds_after_finished, completed, now)
        .map_or(Step::Delete, Step::Rest)
}

/// How long an ended request stays: `Some(None)` for ever, `None` no longer.
pub(crate) fn rest_of_life(
    ttl: Option<i64>,
    completed: Option<&Time>,
    now: DateTime<Utc>,
) -> Option<Option<Duration>> {
    let (Some(ttl), Some(completed)) = (ttl, completed) else {
        return Some(None);
    };
    let left = from_kube(completed) + chrono::Duration::seconds(ttl.min(i64::from(u32::MAX))) - now;
    let left = left.to_std().ok().filter(|left| !left.is_zero())?;
    Some(Some(left.min(NAP_MAX)))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use lifebuoy_api::{
        self as api, BackupSpec, BackupStatus, ConditionType, Selection, VolumePolicy, condition,
        time::to_kube,
    };

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_474_800, 0).unwrap()
    }

    fn seen(change: impl FnOnce(&mut Seen)) -> Seen {
        let mut backup = Backup::new(
            "b",
            BackupSpec {
                repository: "main".into(),
                selection: Selection::default(),
                volumes: VolumePolicy::Skip,
                volume_policies: Vec::new(),
                hooks: Vec::new(),
                active_deadline_seconds: None,
                ttl_seconds_after_finished: None,
                cancel: false,
            },
        );
        backup.metadata.namespace = Some("lifebuoy".into());
        backup.status = Some(BackupStatus::default());
        let repository: api::Repository = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "main", "generation": 3},
            "spec": {"url": "s3://x", "passphraseSecretRef": {"name": "a", "key": "b"}},
            "status": {"observedGeneration": 3},
        }))
        .unwrap();
        let mut seen = Seen {
            backup,
            task: TaskState::None,
            repository: Some(repository),
            its_turn: true,
            now: now(),
        };
        change(&mut seen);
        seen
    }

    fn told(step: &Step) -> String {
        match step {
            Step::Stand(Standing::Failed(reason, _)) => format!("failed {reason}"),
            Step::Stand(Standing::Stalled(reason, message)) => {
                format!("stalled {reason} {message}")
            }
            Step::Stand(Standing::Waiting(reason, _)) => format!("waits {reason}"),
            Step::Begin(_) => "begin".into(),
            other => format!("{other:?}"),
        }
    }

    fn status(seen: &mut Seen) -> &mut BackupStatus {
        seen.backup.status.as_mut().unwrap()
    }

    fn running(seconds: u64) -> TaskState {
        TaskState::Running {
            running: Duration::from_secs(seconds),
            stopping: false,
        }
    }

    #[test]
    fn each_state_has_one_next_step() {
        let session = "00112233445566778899aabbccddeeff";
        type Change = fn(&mut Seen);
        let cases: &[(&str, Change, &str)] = &[
            ("new", |_| {}, "begin"),
            ("no room", |s| s.its_turn = false, "waits Waiting"),
            (
                "cancelled early",
                |s| s.backup.spec.cancel = true,
                "failed Cancelled",
            ),
            (
                "no repository",
                |s| s.repository = None,
                "stalled RepositoryNotFound spec.repository: there is no Repository `main` in the namespace `lifebuoy`; create it, and this Backup begins",
            ),
            (
                "fresh repository",
                |s| s.repository.as_mut().unwrap().status = None,
                "waits RepositoryNotReady",
            ),
            (
                "suspended",
                |s| s.repository.as_mut().unwrap().spec.suspend = true,
                "waits RepositoryNotReady",
            ),
            (
                "interrupted",
                |s| status(s).session = Some("00112233445566778899aabbccddeeff".into()),
                "Recover(SessionId(00112233445566778899aabbccddeeff))",
            ),
            (
                "interrupted and cancelled: the session is ended first",
                |s| {
                    s.backup.spec.cancel = true;
                    status(s).session = Some("00112233445566778899aabbccddeeff".into());
                },
                "Recover(SessionId(00112233445566778899aabbccddeeff))",
            ),
            (
                "too often",
                |s| status(s).attempts = 5,
                "failed Interrupted",
            ),
            ("running", |s| s.task = running(1), "Follow"),
            (
                "running and cancelled",
                |s| {
                    s.task = running(1);
                    s.backup.spec.cancel = true;
                },
                "Stop",
            ),
            (
                "overdue",
                |s| {
                    s.task = running(10);
                    s.backup.spec.active_deadline_seconds = Some(10);
                },
                "Stop",
            ),
            (
                "in time",
                |s| {
                    s.task = running(9);
                    s.backup.spec.active_deadline_seconds = Some(10);
                },
                "Follow",
            ),
            ("done", |s| s.task = TaskState::Done, "Finish"),
        ];
        assert!(session.parse::<SessionId>().is_ok());
        for (name, change, expected) in cases {
            assert_eq!(told(&next(&seen(change))), *expected, "{name}");
        }
    }

    #[test]
    fn an_invalid_field_is_named() {
        let step = next(&seen(|s| {
            s.backup.spec.selection.namespaces = vec!["team-[".into()]
        }));
        let told = told(&step);
        assert!(
            told.starts_with("stalled InvalidSpec spec.selection.namespaces[0]"),
            "{told}"
        );
    }

    #[test]
    fn a_clock_that_jumps_decides_nothing_about_what_runs() {
        for hours in [-1, 0, 1, 1000] {
            let step = next(&seen(|s| {
                s.task = running(9);
                s.backup.spec.active_deadline_seconds = Some(10);
                status(s).start_time = Some(to_kube(now()));
                s.now = now() + TimeDelta::hours(hours);
            }));
            assert_eq!(told(&step), "Follow", "{hours} h");
        }
    }

    #[test]
    fn an_ended_backup_stays_for_its_time_to_live() {
        let ended = |ttl, after: i64| {
            told(&next(&seen(|s| {
                s.backup.spec.ttl_seconds_after_finished = ttl;
                s.now = now() + TimeDelta::seconds(after);
                // Even a task that is still known changes nothing any more.
                s.task = TaskState::Done;
                let status = status(s);
                status.completion_time = Some(to_kube(now()));
                status.conditions = vec![condition(
                    ConditionType::Failed,
                    true,
                    Reason::Partial,
                    "",
                    None,
                    now(),
                )];
            })))
        };
        assert_eq!(ended(None, 1_000_000), "Rest(None)");
        assert_eq!(ended(Some(30), 10), "Rest(Some(20s))");
        assert_eq!(ended(Some(30), 30), "Delete");
        assert_eq!(ended(Some(30), -3600), "Rest(Some(60s))");
        assert_eq!(ended(Some(0), 0), "Delete");
    }
}

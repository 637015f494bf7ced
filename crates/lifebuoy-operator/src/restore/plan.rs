//! What is done next about a Restore. Pure: tested with plain values.

use std::time::Duration;

use kube::ResourceExt;
use lifebuoy_api::{Reason, Restore, RestoreMode, RestoreStatus};
use lifebuoy_engine::restore::Rules;
use lifebuoy_repo::SessionId;

use super::observe::Seen;
use crate::{
    backup::rest_of_life,
    status::{Standing, has_ended},
    tasks::TaskState,
};

/// How often work is begun again that the operator did not survive. A restore
/// that is resumed does not begin at its beginning.
pub(crate) const ATTEMPTS_MAX: i64 = 20;

/// The phases in which a task is at work.
pub(crate) const PLANNING: &str = "Planning";
pub(crate) const RUNNING: &str = "Running";

/// What is done next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing, until something changes or this long.
    Rest(Option<Duration>),
    /// The object has outlived its end by `ttlSecondsAfterFinished`.
    Delete,
    /// It says how it stands and waits.
    Stand(Standing),
    /// It is found out which snapshot `from` stands for.
    Resolve,
    /// The plan is made.
    Plan {
        rules: Box<Rules>,
        snapshot: SessionId,
        again: bool,
    },
    /// The stored plan is carried out.
    Apply {
        rules: Box<Rules>,
        snapshot: SessionId,
        again: bool,
    },
    /// The task runs on.
    Follow,
    /// The task is told to stop.
    Stop,
    /// The task has ended.
    Finish,
}

/// Whether a Restore has ended.
pub(crate) fn ended(restore: &Restore) -> bool {
    restore
        .status
        .as_ref()
        .is_some_and(|status| has_ended(&status.conditions))
}

pub(crate) fn next(seen: &Seen) -> Step {
    let restore = &seen.restore;
    let status = restore.status.clone().unwrap_or_default();
    if ended(restore) {
        let completed = status.completion_time.as_ref();
        return rest_of_life(restore.spec.ttl_seconds_after_finished, completed, seen.now)
            .map_or(Step::Delete, Step::Rest);
    }
    match seen.task {
        TaskState::Done => return Step::Finish,
        TaskState::Running {
            stopping: false, ..
        } if restore.spec.cancel => return Step::Stop,
        TaskState::Running { .. } => return Step::Follow,
        TaskState::None => {}
    }
    if restore.spec.cancel {
        let done = status.counts.done;
        let message = format!("it was cancelled; what was restored stays ({done} objects)");
        return Step::Stand(Standing::Failed(Reason::Cancelled, message));
    }
    let rules = match Rules::parse(&restore.spec) {
        Ok(rules) => Box::new(rules),
        Err(error) => {
            return Step::Stand(Standing::Stalled(Reason::InvalidSpec, error.to_string()));
        }
    };
    let Some(snapshot) = status
        .snapshot
        .as_deref()
        .and_then(|text| text.parse().ok())
    else {
        return Step::Resolve;
    };
    if status.attempts > ATTEMPTS_MAX {
        return Step::Stand(Standing::Failed(
            Reason::Interrupted,
            format!(
                "the operator was stopped {ATTEMPTS_MAX} times while it worked on it; see whether \
                 it runs out of memory, then create another Restore"
            ),
        ));
    }
    with_snapshot(restore, &status, rules, snapshot)
}

fn with_snapshot(
    restore: &Restore,
    status: &RestoreStatus,
    rules: Box<Rules>,
    snapshot: SessionId,
) -> Step {
    let Some(digest) = status
        .plan_digest
        .as_deref()
        .filter(|_| !status.plan_secrets.is_empty())
    else {
        return Step::Plan {
            rules,
            snapshot,
            again: status.phase == PLANNING,
        };
    };
    if restore.spec.mode == RestoreMode::Plan {
        return Step::Stand(Standing::Complete(
            Reason::Planned,
            format!("the plan has the digest {digest}; nothing was changed"),
        ));
    }
    if let Some(reviewed) = restore
        .spec
        .plan_digest
        .as_deref()
        .filter(|reviewed| *reviewed != digest)
    {
        return Step::Stand(Standing::Failed(
            Reason::PlanChanged,
            format!(
                "spec.planDigest: the plan of now ({digest}) is not the plan that was reviewed \
                 ({reviewed}); nothing was changed. Compare the two, and review the new one"
            ),
        ));
    }
    Step::Apply {
        rules,
        snapshot,
        again: status.phase == RUNNING,
    }
}

/// The name of the Repository that `from` names itself.
pub(crate) fn named_repository(restore: &Restore) -> Option<&str> {
    restore.spec.from.repository.as_deref()
}

/// What a person would call it in a log.
pub(crate) fn title(restore: &Restore) -> String {
    format!(
        "{}/{}",
        restore.namespace().unwrap_or_default(),
        restore.name_any()
    )
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use lifebuoy_api::{ConditionType, condition};
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "00000000000000000000000000000000";

    fn seen(change: impl FnOnce(&mut Seen, &mut RestoreStatus)) -> Seen {
        let restore: Restore = serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": "lifebuoy"},
            "spec": {"from": {"repository": "main", "snapshot": "00112233445566778899aabbccddeeff"}},
        }))
        .unwrap();
        let mut seen = Seen {
            restore,
            task: TaskState::None,
            now: DateTime::UNIX_EPOCH,
        };
        let mut status = RestoreStatus::default();
        change(&mut seen, &mut status);
        seen.restore.status = Some(status);
        seen
    }

    fn told(step: &Step) -> String {
        match step {
            Step::Stand(Standing::Failed(reason, _)) => format!("failed {reason}"),
            Step::Stand(Standing::Complete(reason, _)) => format!("complete {reason}"),
            Step::Stand(Standing::Stalled(reason, text)) => format!("stalled {reason} {text}"),
            Step::Plan { again, .. } => format!("plan again={again}"),
            Step::Apply { again, .. } => format!("apply again={again}"),
            other => format!("{other:?}"),
        }
    }

    fn pinned(status: &mut RestoreStatus) {
        status.snapshot = Some("00112233445566778899aabbccddeeff".into());
    }

    fn planned(status: &mut RestoreStatus) {
        pinned(status);
        status.plan_digest = Some(DIGEST.into());
        status.plan_secrets = vec!["r-plan-0".into()];
        status.phase = "Planned".into();
    }

    #[test]
    fn each_state_has_one_next_step() {
        type Change = fn(&mut Seen, &mut RestoreStatus);
        let running = TaskState::Running {
            running: Duration::ZERO,
            stopping: false,
        };
        assert_eq!(told(&next(&seen(|s, _| s.task = running))), "Follow");
        let cases: &[(&str, Change, &str)] = &[
            ("new", |_, _| {}, "Resolve"),
            ("pinned", |_, s| pinned(s), "plan again=false"),
            (
                "interrupted while planning",
                |_, s| {
                    pinned(s);
                    s.phase = PLANNING.into();
                },
                "plan again=true",
            ),
            (
                "the plan was stored, the status not",
                |_, s| {
                    pinned(s);
                    s.plan_digest = Some(DIGEST.into());
                },
                "plan again=false",
            ),
            ("planned", |_, s| planned(s), "apply again=false"),
            (
                "interrupted while applying",
                |_, s| {
                    planned(s);
                    s.phase = RUNNING.into();
                },
                "apply again=true",
            ),
            (
                "only a plan was wanted",
                |r, s| {
                    planned(s);
                    r.restore.spec.mode = RestoreMode::Plan;
                },
                "complete Planned",
            ),
            (
                "as reviewed",
                |r, s| {
                    planned(s);
                    r.restore.spec.plan_digest = Some(DIGEST.into());
                },
                "apply again=false",
            ),
            (
                "not as reviewed",
                |r, s| {
                    planned(s);
                    r.restore.spec.plan_digest = Some("1".into());
                },
                "failed PlanChanged",
            ),
            (
                "cancelled",
                |r, s| {
                    planned(s);
                    r.restore.spec.cancel = true;
                },
                "failed Cancelled",
            ),
            (
                "too often",
                |_, s| {
                    planned(s);
                    s.attempts = 21;
                },
                "failed Interrupted",
            ),
            (
                "done",
                |r, s| {
                    planned(s);
                    r.task = TaskState::Done;
                },
                "Finish",
            ),
        ];
        for (name, change, expected) in cases {
            assert_eq!(told(&next(&seen(change))), *expected, "{name}");
        }
    }

    #[test]
    fn an_invalid_field_is_named_before_anything_is_read() {
        let step = next(&seen(|s, _| {
            s.restore.spec.selection.namespaces = vec!["ok".into(), "team-[".into()];
        }));
        let told = told(&step);
        assert!(
            told.starts_with("stalled InvalidSpec spec.selection.namespaces[1]"),
            "{told}"
        );
    }

    #[test]
    fn what_has_ended_stays_ended() {
        let step = next(&seen(|s, status| {
            s.task = TaskState::Done;
            status.conditions = vec![condition(
                ConditionType::Complete,
                true,
                Reason::Succeeded,
                "",
                None,
                DateTime::UNIX_EPOCH,
            )];
        }));
        assert_eq!(told(&step), "Rest(None)");
    }
}

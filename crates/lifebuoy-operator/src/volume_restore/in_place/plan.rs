//! What is done next about a volume that is overwritten. Pure: tested with plain values.
//!
//! Until the claim carries our mark nothing was written, and whatever fails then undoes what
//! was done. From then on only a whole volume lets anybody start.

use chrono::TimeDelta;
use lifebuoy_api::{Reason, VolumeRestoreStatus, time::from_kube};

use super::{
    super::{
        observe::Asker,
        plan::{ATTEMPTS_MAX, ended, is_let_go},
    },
    holding::{Holding, Stop},
    observe::{Mark, Seen},
    stand_in,
};
use crate::{status::Standing, tasks::TaskState};

/// So long pods may take to let go of a volume, and a second volume to be bound.
const HOLD_MAX: TimeDelta = TimeDelta::minutes(10);

/// What is done next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// It has ended.
    Rest,
    /// It has ended, and is let go of: with the Restore it goes as well.
    LetGo,
    /// It says how it stands and waits.
    Stand(Standing),
    /// What mounts the claim is stopped.
    Hold(Vec<Stop>),
    /// The second volume and its claim are made.
    Make,
    /// The volume is overwritten.
    Fill,
    /// The task runs on.
    Follow,
    /// The task is told to stop.
    Stop,
    /// The task has ended.
    Finish,
    /// What was made goes, the mark goes, what was held runs again, and all is done.
    Conclude,
    /// What was made goes, and it has failed. Nothing runs on what is half written.
    GiveUp(Standing),
    /// It is being deleted: the same, without a word.
    Vanish,
}

pub(crate) fn next(seen: &Seen) -> Step {
    let request = &seen.request;
    let status = request.status.clone().unwrap_or_default();
    if ended(request) {
        return if is_let_go(request, seen.asker) {
            Step::LetGo
        } else {
            Step::Rest
        };
    }
    let deleted = request.metadata.deletion_timestamp.is_some();
    match seen.task {
        TaskState::Done => return Step::Finish,
        TaskState::Running { stopping, .. } => {
            let stops = deleted || given_up(seen, &status).is_some();
            return if stops && !stopping {
                Step::Stop
            } else {
                Step::Follow
            };
        }
        TaskState::None => {}
    }
    if deleted {
        return Step::Vanish;
    }
    if status.filled_time.is_some() {
        return Step::Conclude;
    }
    if let Some(standing) = given_up(seen, &status) {
        return Step::GiveUp(standing);
    }
    if let Some(why) = unwritable(seen) {
        return Step::GiveUp(failed(Reason::VolumeNotFilled, why));
    }
    match &seen.holding {
        Some(Holding::Refused(why)) => Step::GiveUp(failed(Reason::VolumeInUse, why.clone())),
        Some(Holding::Hold(stops)) => Step::Hold(stops.clone()),
        Some(Holding::Waits(why)) => wait(seen, &status, why),
        Some(Holding::Free) => when_free(seen, &status),
        None => Step::Stand(Standing::Waiting(Reason::InProgress, String::new())),
    }
}

/// Whether something may have been written that is not whole.
pub(crate) fn is_torn(seen: &Seen) -> bool {
    let status = seen.request.status.as_ref();
    let begun = status.is_some_and(|status| status.attempts > 0);
    // With the claim its mark is gone: then it counts that writing was begun.
    seen.mark != Mark::None || (seen.claim.is_none() && begun)
}

fn failed(reason: Reason, message: impl Into<String>) -> Standing {
    Standing::Failed(reason, message.into())
}

/// Why it cannot, or must not, go on.
fn given_up(seen: &Seen, status: &VolumeRestoreStatus) -> Option<Standing> {
    let (reason, why) = match seen.asker {
        Asker::Works => return without_claim(seen, status),
        Asker::Cancelled => (Reason::Cancelled, "the Restore was cancelled"),
        Asker::Ended => (Reason::Cancelled, "its Restore has ended"),
        Asker::Gone => (Reason::Cancelled, "its Restore is gone"),
        Asker::Forbids => (
            Reason::InvalidSpec,
            "its Restore does not say `existingVolumes: Overwrite`",
        ),
    };
    Some(failed(reason, why))
}

fn without_claim(seen: &Seen, status: &VolumeRestoreStatus) -> Option<Standing> {
    let known = status.claim_uid.as_deref();
    let claim = seen.claim.as_ref().filter(|claim| !claim.deleted);
    match claim {
        Some(claim) if known.is_none_or(|uid| uid == claim.uid) => None,
        _ => {
            let why = "the claim is not there any more, or is being deleted";
            Some(failed(Reason::ClaimNotFound, why))
        }
    }
}

fn unwritable(seen: &Seen) -> Option<&'static str> {
    let claim = seen.claim.as_ref()?;
    if !claim.bound {
        return Some("the claim is not bound to a volume");
    }
    let owners = claim.object.metadata.owner_references.iter().flatten();
    if owners.into_iter().any(|owner| owner.kind == "Pod") {
        return Some("the claim belongs to a pod, and would go with it");
    }
    stand_in::unwritable(claim, seen.volume.as_ref())
}

/// Waits, for a while if nothing was written: others wait with it. Later only a person can
/// say what is better.
fn wait(seen: &Seen, status: &VolumeRestoreStatus, why: &str) -> Step {
    let since = status.start_time.as_ref().map(from_kube);
    let is_late = since.is_some_and(|since| seen.now - since > HOLD_MAX);
    if is_late && seen.mark != Mark::Ours {
        let minutes = HOLD_MAX.num_minutes();
        let text = format!("after {minutes} minutes {why}");
        return Step::GiveUp(failed(Reason::VolumeInUse, text));
    }
    Step::Stand(Standing::Waiting(Reason::Waiting, why.to_owned()))
}

fn when_free(seen: &Seen, status: &VolumeRestoreStatus) -> Step {
    let between = match (&seen.between, &seen.stand_in) {
        (Some(between), Some(_)) => between,
        _ => return Step::Make,
    };
    if between.deleted {
        return wait(seen, status, "the claim of a mover before is going");
    }
    if !between.bound {
        return wait(seen, status, "the second volume is not bound");
    }
    if status.attempts >= ATTEMPTS_MAX {
        return Step::GiveUp(failed(
            Reason::Interrupted,
            format!("the operator was stopped {ATTEMPTS_MAX} times while it was overwritten"),
        ));
    }
    Step::Fill
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{DateTime, Utc};
    use lifebuoy_api::{ConditionType, VolumeRestore, condition, time::to_kube};
    use serde_json::json;

    use super::*;
    use crate::volume_restore::objects::{Between, Claim};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn seen(change: impl FnOnce(&mut Seen, &mut VolumeRestoreStatus)) -> Seen {
        let request: VolumeRestore = serde_json::from_value(json!({
            "metadata": {"name": "data-1", "namespace": "lifebuoy", "uid": "r"},
            "spec": {"repository": "main", "snapshot": "0".repeat(32), "inPlace": true,
                "volume": {"namespace": "a", "name": "data"}, "claim": {"namespace": "b", "name": "data"},
                "restore": {"name": "x", "uid": "u"}},
        }))
        .unwrap();
        let claim = json!({"metadata": {"name": "data", "namespace": "b", "uid": "c"},
            "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"uid": "c"}}});
        let mut seen = Seen {
            request,
            task: TaskState::None,
            asker: Asker::Works,
            claim: Some(Claim::read(
                serde_json::from_value(claim).unwrap(),
                "data-1",
            )),
            volume: serde_json::from_value(volume).unwrap(),
            mark: Mark::None,
            between: None,
            stand_in: None,
            attached: Vec::new(),
            holding: Some(Holding::Free),
            now: at(10),
        };
        let mut status = VolumeRestoreStatus {
            start_time: Some(to_kube(at(0))),
            ..VolumeRestoreStatus::default()
        };
        change(&mut seen, &mut status);
        seen.request.status = Some(status);
        seen
    }

    fn made(seen: &mut Seen) {
        seen.between = Some(Between {
            uid: "b".into(),
            deleted: false,
            made: Some(at(0)),
            node: None,
            volume: Some("lifebuoy-r".into()),
            bound: true,
        });
        seen.stand_in = Some("s".into());
    }

    fn told(step: &Step) -> String {
        match step {
            Step::Stand(Standing::Waiting(reason, _)) => format!("wait {reason}"),
            Step::GiveUp(Standing::Failed(reason, _)) => format!("give up {reason}"),
            other => format!("{other:?}"),
        }
    }

    type Change = fn(&mut Seen, &mut VolumeRestoreStatus);

    #[track_caller]
    fn check(cases: &[(&str, Change, &str)]) {
        for (name, change, expected) in cases {
            assert_eq!(told(&next(&seen(change))), *expected, "{name}");
        }
    }

    #[test]
    fn a_volume_is_held_overwritten_and_let_go() {
        check(&[
            (
                "somebody has to be stopped",
                |s, _| s.holding = Some(Holding::Hold(Vec::new())),
                "Hold([])",
            ),
            (
                "somebody has not let go",
                |s, _| s.holding = Some(Holding::Waits("x".into())),
                "wait Waiting",
            ),
            ("free", |_, _| {}, "Make"),
            (
                "made in part",
                |s, _| {
                    made(s);
                    s.stand_in = None;
                },
                "Make",
            ),
            (
                "not bound yet",
                |s, _| {
                    made(s);
                    s.between.as_mut().unwrap().bound = false;
                },
                "wait Waiting",
            ),
            ("made", |s, _| made(s), "Fill"),
            (
                "the operator begins anew",
                |s, status| {
                    made(s);
                    s.mark = Mark::Ours;
                    status.attempts = 1;
                },
                "Fill",
            ),
            (
                "whole",
                |s, status| {
                    s.mark = Mark::Ours;
                    status.filled_time = Some(to_kube(at(5)));
                    s.asker = Asker::Cancelled;
                },
                "Conclude",
            ),
        ]);
    }

    #[test]
    fn it_is_given_up_where_it_must_not_go_on() {
        check(&[
            (
                "cancelled",
                |s, _| s.asker = Asker::Cancelled,
                "give up Cancelled",
            ),
            (
                "the Restore is gone",
                |s, _| s.asker = Asker::Gone,
                "give up Cancelled",
            ),
            (
                "the Restore does not say so",
                |s, _| s.asker = Asker::Forbids,
                "give up InvalidSpec",
            ),
            ("no claim", |s, _| s.claim = None, "give up ClaimNotFound"),
            (
                "another claim",
                |_, status| status.claim_uid = Some("d".into()),
                "give up ClaimNotFound",
            ),
            (
                "another one's volume",
                |s, _| s.volume = None,
                "give up VolumeNotFilled",
            ),
            (
                "a pod that cannot be stopped",
                |s, _| s.holding = Some(Holding::Refused("x".into())),
                "give up VolumeInUse",
            ),
            (
                "pods that do not let go",
                |s, _| {
                    s.holding = Some(Holding::Waits("x".into()));
                    s.now = at(601);
                },
                "give up VolumeInUse",
            ),
            (
                "pods that do not let go of what is half written",
                |s, _| {
                    s.holding = Some(Holding::Waits("x".into()));
                    s.now = at(601);
                    s.mark = Mark::Ours;
                },
                "wait Waiting",
            ),
            (
                "too often",
                |s, status| {
                    made(s);
                    status.attempts = ATTEMPTS_MAX;
                },
                "give up Interrupted",
            ),
            (
                "deleted",
                |s, _| s.request.metadata.deletion_timestamp = Some(to_kube(at(0))),
                "Vanish",
            ),
        ]);
    }

    #[test]
    fn a_task_is_stopped_only_when_it_must() {
        let running = TaskState::Running {
            running: Duration::ZERO,
            stopping: false,
        };
        let step = |asker| {
            next(&seen(|s, _| {
                (s.task, s.asker) = (running, asker);
            }))
        };
        assert_eq!(step(Asker::Works), Step::Follow);
        assert_eq!(step(Asker::Cancelled), Step::Stop);
    }

    #[test]
    fn what_was_begun_and_is_not_whole_is_torn() {
        let torn = |change: Change| is_torn(&seen(change));
        assert!(!torn(|_, _| {}));
        assert!(!torn(|_, status| status.attempts = 1));
        assert!(torn(|s, _| s.mark = Mark::Ours));
        assert!(torn(|s, _| s.mark = Mark::Others));
        assert!(torn(|s, status| {
            s.claim = None;
            status.attempts = 1;
        }));
    }

    #[test]
    fn what_has_ended_is_let_go() {
        let over = |phase: &'static str| {
            next(&seen(move |s, status| {
                s.request.metadata.finalizers = Some(vec!["x".into()]);
                status.phase = phase.into();
                let reason = Reason::Overwritten;
                let of = condition(ConditionType::Complete, true, reason, "", None, at(0));
                status.conditions = vec![of];
            }))
        };
        assert_eq!(over("Complete"), Step::LetGo);
    }
}

//! What is to be done about a mover, from what was seen of it. Pure: no clock, no client.

use std::time::Duration;

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod},
};
use lifebuoy_api::bounded;
use lifebuoy_engine::volumes::{MOVER_CONTAINER, MoverEnd};

use super::MOVER_TRIES;

/// What keeps a pod from starting is told after this...
const TELL_AFTER: Duration = Duration::from_secs(30);
/// ...and the mover given up after this. A volume that hangs on a node that is gone is let
/// go after six minutes, and a node that is ordered comes within some.
const START_MAX: Duration = Duration::from_secs(12 * 60);
/// A pod that is deleted and does not end: its node does not answer.
const LOST_AFTER: Duration = Duration::from_secs(2 * 60);
/// What the kubelet says of a directory of its node that is gone with its pod, and of a link
/// that leads elsewhere: neither passes.
const LASTING: [&str; 2] = ["hostPath type check failed", "failed to prepare subPath"];
/// The wait before the second try; three times as long before each further one.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);
/// What is kept of the words of others, in bytes.
const WORDS_BYTES_MAX: usize = 256;

/// What was seen of a mover.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its Job; looked at only where there is no pod.
    pub(super) job: Option<Job>,
    /// The newest of its pods.
    pub(super) pod: Option<Pod>,
    /// The newest warning about the pod, or about the Job if it has none: reason and words.
    pub(super) warning: Option<String>,
    /// Whether it is on no node yet, while others are: it may have to wait for one of them.
    pub(super) is_behind_others: bool,
}

/// What else the decision depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// How long it has been in its stage.
    pub(super) in_stage: Duration,
    pub(super) restores: bool,
}

/// How far a mover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no pod of it.
    NoPod,
    /// Its pod has not started.
    Pending,
    /// It runs.
    Running,
    /// Its pod is deleted and has not ended.
    Terminating,
    /// Its pod has ended.
    Ended,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Look again later; and what is wrong, if something is.
    Wait(Option<String>),
    /// It has ended.
    End(MoverEnd),
    /// It does not start, for this reason.
    GiveUp(String),
}

pub(super) fn stage(seen: &Seen) -> Stage {
    let Some(pod) = &seen.pod else {
        return Stage::NoPod;
    };
    match phase(pod) {
        Some("Succeeded" | "Failed") => Stage::Ended,
        _ if pod.metadata.deletion_timestamp.is_some() => Stage::Terminating,
        None | Some("Pending") => Stage::Pending,
        Some(_) => Stage::Running,
    }
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Whether a pod has a node.
pub(super) fn is_on_node(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|name| !name.is_empty())
}

/// Whether a pod has a place on its node that it has not given back.
pub(super) fn is_in_place(pod: &Pod) -> bool {
    is_on_node(pod) && !matches!(phase(pod), Some("Succeeded" | "Failed"))
}

pub(super) fn next(seen: &Seen, situation: &Situation) -> Next {
    let late = situation.in_stage >= TELL_AFTER;
    let too_late = situation.in_stage >= START_MAX;
    match stage(seen) {
        Stage::Running => Next::Wait(None),
        Stage::Ended => Next::End(end(seen)),
        Stage::NoPod => match &seen.job {
            None => failed("its Job was deleted by somebody", true),
            Some(job) if has_ended(job) => failed("its pod is gone", true),
            Some(_) => not_starting(seen, "no pod was made for its Job", late, too_late),
        },
        Stage::Pending => not_starting(seen, "its pod does not start", late, too_late),
        Stage::Terminating if situation.in_stage < LOST_AFTER => Next::Wait(None),
        // Two that write to one volume would be worse than one that is late.
        Stage::Terminating if situation.restores => Next::Wait(Some(
            "its pod was deleted and does not end: its node does not answer".to_owned(),
        )),
        Stage::Terminating => failed("its node does not answer", true),
    }
}

/// How long to wait before the next try; none if there is none.
pub(super) fn next_try(attempt: u32, again: bool) -> Option<Duration> {
    if !again || attempt >= MOVER_TRIES {
        return None;
    }
    let factor = 3_u32.saturating_pow(attempt.saturating_sub(1));
    Some(RETRY_MIN.saturating_mul(factor).min(RETRY_MAX))
}

fn failed(message: impl Into<String>, again: bool) -> Next {
    Next::End(MoverEnd::Failed {
        message: format!("the mover was lost: {}", message.into()),
        again,
    })
}

fn has_ended(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.status == "True" && matches!(&*condition.type_, "Complete" | "Failed")
    })
}

fn not_starting(seen: &Seen, otherwise: &str, late: bool, too_late: bool) -> Next {
    if !late {
        return Next::Wait(None);
    }
    let why = trouble(seen).unwrap_or_else(|| otherwise.to_owned());
    if too_late || LASTING.iter().any(|lasting| why.contains(lasting)) {
        Next::GiveUp(why)
    } else {
        Next::Wait(Some(why))
    }
}

/// Why a pod does not start.
fn trouble(seen: &Seen) -> Option<String> {
    let status = seen.pod.as_ref().and_then(|pod| pod.status.as_ref());
    let unscheduled = status.and_then(|status| {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let condition = conditions
            .iter()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        let reason = condition.reason.as_deref().unwrap_or("Unschedulable");
        Some(words(reason, condition.message.as_deref()))
    });
    let waiting = status.and_then(|status| {
        let state = own(status.container_statuses.as_deref())?.state.as_ref()?;
        let waiting = state.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        // The kubelet says so of all that it does before: its warnings say more.
        (reason != "ContainerCreating" && reason != "PodInitializing")
            .then(|| words(reason, waiting.message.as_deref()))
    });
    unscheduled.or(waiting).or_else(|| {
        let warning = seen.warning.as_deref()?;
        Some(bounded(warning, WORDS_BYTES_MAX))
    })
}

fn own(statuses: Option<&[ContainerStatus]>) -> Option<&ContainerStatus> {
    statuses?
        .iter()
        .find(|status| status.name == MOVER_CONTAINER)
}

fn words(reason: &str, message: Option<&str>) -> String {
    let text = match message {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    };
    bounded(&text, WORDS_BYTES_MAX)
}

/// How a pod has ended.
fn end(seen: &Seen) -> MoverEnd {
    let status = seen.pod.as_ref().and_then(|pod| pod.status.as_ref());
    let terminated = status
        .and_then(|status| own(status.container_statuses.as_deref()))
        .and_then(|container| container.state.as_ref())
        .and_then(|state: &ContainerState| state.terminated.as_ref());
    let said = terminated
        .and_then(|terminated| terminated.message.as_deref())
        .and_then(MoverEnd::from_message);
    // What it says counts, however its pod has ended.
    said.unwrap_or_else(|| {
        let message = match terminated {
            Some(terminated) => of_container(terminated),
            None => words(
                status
                    .and_then(|status| status.reason.as_deref())
                    .unwrap_or("its pod has failed"),
                status.and_then(|status| status.message.as_deref()),
            ),
        };
        MoverEnd::Failed {
            message: format!("the mover was lost: {message}"),
            again: true,
        }
    })
}

fn of_container(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref(), terminated.exit_code) {
        (Some("OOMKilled"), _) => {
            "it needed more memory than it may have; raise `movers.resources.limits.memory`"
                .to_owned()
        }
        (_, 137) => "it was killed".to_owned(),
        (_, 143) => "it was told to end".to_owned(),
        (reason, code) => words(
            &format!("it ended with code {code} and did not say why"),
            reason.filter(|reason| !matches!(*reason, "Error" | "Completed")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_engine::volumes::MoverReport;
    use serde_json::{Value, json};

    use super::*;

    fn seen(job: Value, pod: Value, warning: Option<&str>) -> Seen {
        Seen {
            job: serde_json::from_value(job).unwrap(),
            pod: serde_json::from_value(pod).unwrap(),
            warning: warning.map(str::to_owned),
            is_behind_others: false,
        }
    }

    fn pod(status: Value) -> Seen {
        seen(json!(null), json!({"metadata": {}, "status": status}), None)
    }

    fn ended(state: Value) -> Seen {
        let container = json!({
            "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": state},
        });
        pod(json!({"phase": "Failed", "containerStatuses": [container]}))
    }

    fn after(seconds: u64, restores: bool) -> Situation {
        Situation {
            in_stage: Duration::from_secs(seconds),
            restores,
        }
    }

    fn at(seen: &Seen, seconds: u64) -> Next {
        next(seen, &after(seconds, false))
    }

    fn lost(next: Next) -> String {
        match next {
            Next::End(MoverEnd::Failed {
                message,
                again: true,
            }) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_mover_says_counts() {
        let report = MoverReport {
            entries: 7,
            problems: 1,
            ..MoverReport::default()
        };
        for end in [
            MoverEnd::Done(report),
            MoverEnd::Failed {
                message: "no room".to_owned(),
                again: false,
            },
        ] {
            let seen = ended(json!({"exitCode": 1, "message": end.to_message()}));
            assert_eq!(at(&seen, 0), Next::End(end));
        }
    }

    #[test]
    fn one_that_says_nothing_is_lost_and_tried_again() {
        for (state, expected) in [
            (json!({"exitCode": 137, "reason": "OOMKilled"}), "memory"),
            (json!({"exitCode": 137, "reason": "Error"}), "killed"),
            (
                json!({"exitCode": 101, "reason": "Error", "message": "panicked"}),
                "it ended with code 101 and did not say why",
            ),
            (
                json!({"exitCode": 128, "reason": "ContainerCannotRun"}),
                "ContainerCannotRun",
            ),
        ] {
            let message = lost(at(&ended(state), 0));
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("panicked"), "{message}");
        }
        let evicted = pod(json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}));
        assert_eq!(lost(at(&evicted, 0)), "the mover was lost: Evicted: disk");
    }

    #[test]
    fn a_job_or_pod_that_is_gone_is_lost() {
        let gone = seen(json!(null), json!(null), None);
        assert!(lost(at(&gone, 0)).contains("deleted by somebody"));
        let failed = json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}});
        assert!(lost(at(&seen(failed, json!(null), None), 0)).contains("its pod is gone"));
    }

    #[test]
    fn a_pod_that_does_not_start_says_why_and_is_given_up() {
        let pulling = json!({
            "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        });
        let creating = json!({
            "name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}},
        });
        let unscheduled = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available",
        });
        let pending = |status: Value, warning| {
            seen(
                json!(null),
                json!({"metadata": {}, "status": status}),
                warning,
            )
        };
        for (seen, expected) in [
            (
                pending(
                    json!({"phase": "Pending", "containerStatuses": [pulling]}),
                    None,
                ),
                "ImagePullBackOff: no such image",
            ),
            (
                pending(
                    json!({"phase": "Pending", "containerStatuses": [creating]}),
                    Some("FailedMount: timed out"),
                ),
                "FailedMount: timed out",
            ),
            (
                pending(
                    json!({"phase": "Pending", "conditions": [unscheduled]}),
                    None,
                ),
                "Unschedulable: 0/3 nodes are available",
            ),
            (
                pending(json!({"phase": "Pending"}), None),
                "its pod does not start",
            ),
            (
                seen(json!({}), json!(null), Some("FailedCreate: exceeded quota")),
                "FailedCreate: exceeded quota",
            ),
        ] {
            assert_eq!(at(&seen, 1), Next::Wait(None));
            assert_eq!(at(&seen, 60), Next::Wait(Some(expected.to_owned())));
            assert_eq!(at(&seen, 3600), Next::GiveUp(expected.to_owned()));
        }
    }

    #[test]
    fn a_directory_that_is_gone_is_not_waited_for() {
        let gone = "FailedMount: MountVolume.SetUp failed for volume \"volume\" : hostPath type \
                    check failed: /pods/u/volumes/x is not a directory";
        let pod = json!({"metadata": {}, "status": {"phase": "Pending"}});
        let seen = seen(json!(null), pod, Some(gone));
        assert_eq!(at(&seen, 1), Next::Wait(None));
        assert_eq!(at(&seen, 60), Next::GiveUp(gone.to_owned()));
    }

    #[test]
    fn a_restore_is_never_joined_by_a_second_one() {
        let at = |seconds, restores| {
            let seen = seen(
                json!(null),
                json!({
                    "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
                    "status": {"phase": "Running"},
                }),
                None,
            );
            next(&seen, &after(seconds, restores))
        };
        assert_eq!(at(10, true), Next::Wait(None));
        assert!(matches!(at(86_400, true), Next::Wait(Some(_))));
        assert!(lost(at(600, false)).contains("node"));
    }

    #[test]
    fn one_that_runs_may_take_its_time() {
        let runs = pod(json!({"phase": "Running"}));
        assert_eq!(at(&runs, 86_400 * 7), Next::Wait(None));
    }

    #[test]
    fn tries_are_counted_and_ever_further_apart() {
        let waits: Vec<_> = (1..=MOVER_TRIES).map(|n| next_try(n, true)).collect();
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(
            waits,
            [seconds(5), seconds(15), seconds(45), seconds(135), None]
        );
        assert_eq!(next_try(1, false), None);
    }
}

//! What the conditions of a request say about how it ended. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lifebuoy_api::{ConditionType, Reason, find};

use crate::exit::Exit;

/// How a request ended, or why it cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) exit: Exit,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// It has not ended: a person has to change something first.
    pub(crate) stalled: bool,
}

/// Reasons for which a request is refused with nothing changed.
const REFUSALS: &[Reason] = &[
    Reason::AlreadyRestored,
    Reason::PlanChanged,
    Reason::PlanRefused,
    Reason::InvalidSpec,
    Reason::NamespaceNotPermitted,
    Reason::ModeNotPermitted,
    Reason::ClusterNameConflict,
];

/// The verdict, or none while the request goes on.
pub(crate) fn verdict(conditions: &[Condition]) -> Option<Verdict> {
    let is_set = |kind| find(conditions, kind).filter(|condition| condition.status == "True");
    let (condition, otherwise, stalled) = if let Some(complete) = is_set(ConditionType::Complete) {
        (complete, Exit::Done, false)
    } else if let Some(failed) = is_set(ConditionType::Failed) {
        (failed, Exit::Failed, false)
    } else {
        (is_set(ConditionType::Stalled)?, Exit::Failed, true)
    };
    let exit = if condition.reason == Reason::Partial.as_str() {
        Exit::Partial
    } else if REFUSALS
        .iter()
        .any(|reason| reason.as_str() == condition.reason)
    {
        Exit::Refused
    } else {
        otherwise
    };
    Some(Verdict {
        exit,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        stalled,
    })
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::condition;

    use super::*;

    fn of(kind: ConditionType, status: bool, reason: Reason) -> Option<(Exit, bool)> {
        let now = chrono::DateTime::UNIX_EPOCH;
        verdict(&[condition(kind, status, reason, "", None, now)]).map(|v| (v.exit, v.stalled))
    }

    #[test]
    fn exit_codes_follow_from_conditions() {
        use ConditionType::{Complete, Failed, Reconciling, Stalled};
        for (kind, reason, expected) in [
            (Complete, Reason::Succeeded, Some((Exit::Done, false))),
            (Complete, Reason::Planned, Some((Exit::Done, false))),
            (
                Complete,
                Reason::AlreadyRestored,
                Some((Exit::Refused, false)),
            ),
            (Failed, Reason::Partial, Some((Exit::Partial, false))),
            (
                Failed,
                Reason::StoreUnreachable,
                Some((Exit::Failed, false)),
            ),
            (Failed, Reason::PlanChanged, Some((Exit::Refused, false))),
            (Failed, Reason::Cancelled, Some((Exit::Failed, false))),
            (Stalled, Reason::InvalidSpec, Some((Exit::Refused, true))),
            (
                Stalled,
                Reason::RepositoryNotFound,
                Some((Exit::Failed, true)),
            ),
            (Reconciling, Reason::InProgress, None),
        ] {
            assert_eq!(of(kind, true, reason), expected, "{kind:?} {reason}");
            assert_eq!(of(kind, false, reason), None, "{kind:?} {reason}");
        }
    }
}

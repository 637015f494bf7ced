//! How a status is written: only what changed, as a merge patch; and how the
//! conditions of a request tell its state.

use chrono::{DateTime, Utc};
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use lifebuoy_api::{
    ConditionType, FIELD_MANAGER, MAX_PROBLEMS, Problem, Reason, Severity, bounded, condition,
    is_true, upsert,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::Error;

/// The longest message of a condition, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// How a request stands. Conditions and phase are made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits for something that comes by itself.
    Waiting(Reason, String),
    /// It is worked on.
    Running(String),
    /// It has ended, and did all that was asked.
    Complete(Reason, String),
    /// It has ended, and something that was asked for is missing.
    Failed(Reason, String),
    /// It cannot go on until a person changes something.
    Stalled(Reason, String),
}

impl Standing {
    /// The word for the printed column, where nothing better is known.
    pub(crate) fn phase(&self) -> &'static str {
        match self {
            Self::Waiting(..) => "Pending",
            Self::Running(..) => "Running",
            Self::Complete(Reason::Planned, _) => "Planned",
            Self::Complete(..) => "Complete",
            Self::Failed(Reason::Partial, _) => "Partial",
            Self::Failed(Reason::Cancelled, _) => "Cancelled",
            Self::Failed(..) => "Failed",
            Self::Stalled(..) => "Stalled",
        }
    }

    pub(crate) fn ended(&self) -> bool {
        matches!(self, Self::Complete(..) | Self::Failed(..))
    }

    /// Brings `conditions` to this standing.
    pub(crate) fn apply(
        &self,
        conditions: &mut Vec<Condition>,
        generation: Option<i64>,
        now: DateTime<Utc>,
    ) {
        use ConditionType::{Complete, Failed, Ready, Reconciling, Stalled};
        let (reason, message) = match self {
            Self::Running(message) => (Reason::InProgress, message),
            Self::Waiting(reason, message)
            | Self::Complete(reason, message)
            | Self::Failed(reason, message)
            | Self::Stalled(reason, message) => (*reason, message),
        };
        let mut set = |kind: ConditionType, status: bool| {
            let message = bounded(message, MESSAGE_BYTES_MAX);
            upsert(
                conditions,
                condition(kind, status, reason, message, generation, now),
            );
        };
        set(Ready, matches!(self, Self::Complete(..)));
        set(
            Reconciling,
            matches!(self, Self::Waiting(..) | Self::Running(..)),
        );
        set(Stalled, matches!(self, Self::Stalled(..)));
        match self {
            Self::Complete(..) => set(Complete, true),
            Self::Failed(..) => set(Failed, true),
            _ => {}
        }
    }
}

/// Whether a request has ended, by its conditions.
pub(crate) fn has_ended(conditions: &[Condition]) -> bool {
    is_true(conditions, ConditionType::Complete) || is_true(conditions, ConditionType::Failed)
}

/// The worst problems, as many as a status may list, and how many there are.
pub(crate) fn listed(mut problems: Vec<Problem>) -> (i64, Vec<Problem>) {
    let count = i64::try_from(problems.len()).unwrap_or(i64::MAX);
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    problems.truncate(MAX_PROBLEMS);
    (count, problems)
}

/// How many of the problems leave something missing.
pub(crate) fn errors(problems: &[Problem]) -> usize {
    problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count()
}

/// The smallest merge patch (RFC 7396) that makes `new` of `old`; `None` when
/// they are equal.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(old) => {
                if let Some(change) = difference(old, value) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Writes what changed between two statuses. With `resource_version` the write
/// is refused if the object has changed since.
///
/// # Errors
/// [`Error::Kube`]; a conflict among them.
pub(crate) async fn publish<K, S>(
    client: &Client,
    object: &K,
    old: Option<&S>,
    new: &S,
    resource_version: Option<&str>,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
    S: Serialize,
{
    let as_json = |status: Option<&S>| {
        serde_json::to_value(status).map_err(|error| Error::Internal(error.to_string()))
    };
    let old = match as_json(old)? {
        Value::Null => json!({}),
        old => old,
    };
    let Some(change) = difference(&old, &as_json(Some(new))?) else {
        return Ok(());
    };
    let meta = object.meta();
    let (Some(name), Some(namespace)) = (&meta.name, &meta.namespace) else {
        return Err(Error::Internal("an object without a name".to_owned()));
    };
    let mut patch = json!({"status": change});
    if let Some(version) = resource_version {
        patch["metadata"] = json!({"resourceVersion": version});
    }
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api.patch_status(name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        // It is gone, and its status with it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::kube(
            format!("write the status of {} {namespace}/{name}", K::kind(&())),
            error,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_only_what_changed() {
        for (old, new, patch) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({}), json!({"a": 1}), Some(json!({"a": 1}))),
            (
                json!({"a": 1, "b": 2}),
                json!({"b": 3}),
                Some(json!({"a": null, "b": 3})),
            ),
            (
                json!({"a": {"x": 1, "y": 1}, "l": [1]}),
                json!({"a": {"x": 1, "y": 2}, "l": [1, 2]}),
                Some(json!({"a": {"y": 2}, "l": [1, 2]})),
            ),
        ] {
            assert_eq!(difference(&old, &new), patch, "{old} -> {new}");
        }
    }

    #[test]
    fn conditions_say_one_thing_at_a_time() {
        let now = DateTime::from_timestamp(100, 0).unwrap();
        let mut conditions = Vec::new();
        let told = |conditions: &[Condition]| {
            conditions
                .iter()
                .map(|c| format!("{}={} {}", c.type_, c.status, c.reason))
                .collect::<Vec<_>>()
                .join(", ")
        };
        Standing::Running("reading".into()).apply(&mut conditions, Some(1), now);
        assert_eq!(
            told(&conditions),
            "Ready=False InProgress, Reconciling=True InProgress, Stalled=False InProgress"
        );
        assert!(!has_ended(&conditions));
        Standing::Failed(Reason::Partial, "x".into()).apply(&mut conditions, Some(1), now);
        assert_eq!(
            told(&conditions),
            "Ready=False Partial, Reconciling=False Partial, Stalled=False Partial, \
             Failed=True Partial"
        );
        assert!(has_ended(&conditions));
    }

    #[test]
    fn a_status_lists_the_worst_problems_first_and_at_most_twenty() {
        let mut problems: Vec<Problem> = (0..30)
            .map(|n| Problem::warning("W", format!("{n}"), "w"))
            .collect();
        problems.push(Problem::error("E", "the one", "e"));
        assert_eq!(errors(&problems), 1);
        let (count, listed) = listed(problems);
        assert_eq!((count, listed.len()), (31, MAX_PROBLEMS));
        assert_eq!(listed[0].subject, "the one");
    }
}

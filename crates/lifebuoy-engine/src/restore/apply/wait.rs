//! Waits for what objects need before they can be written: types that are
//! served, accounts, workloads that answer for others. Each wait has a deadline,
//! after which the restore goes on and says so.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use lifebuoy_api::{Problem, Reason};
use serde_json::Value;
use tokio::time::Instant;

use super::answer::Verdict;
use super::http::{Call, Op, Place};
use super::send::Sender;
use crate::archive::TypeId;
use crate::restore::{Key, Plan};

/// How many things are waited for at a time.
const WAITS_AT_ONCE: usize = 16;
/// The first pause between two looks.
const POLL: Duration = Duration::from_millis(20);
/// The longest pause between two looks.
const POLL_MAX: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Debug)]
pub(crate) enum Gate<'a> {
    /// A type is served, once its definition is established.
    Served {
        place: &'a Place,
        definition: String,
    },
    /// The account that pods get when they name none.
    DefaultAccount { namespace: String },
    /// A workload that answers for webhooks, conversions or aggregated APIs.
    Available {
        place: &'a Place,
        key: &'a Key,
        kind: &'a str,
        subject: String,
    },
}

/// Waits for all gates, each at most until the deadline. A problem for each
/// that stays shut.
pub(crate) async fn wait_for(
    sender: &Sender,
    gates: Vec<Gate<'_>>,
    within: Duration,
) -> Vec<Problem> {
    let deadline = Instant::now() + within;
    stream::iter(gates)
        .map(|gate| async move {
            let open = wait(sender, &gate, deadline).await;
            (!open && !sender.cancel.is_cancelled()).then(|| gate.problem(within))
        })
        .buffer_unordered(WAITS_AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

async fn wait(sender: &Sender, gate: &Gate<'_>, deadline: Instant) -> bool {
    let mut pause = POLL;
    loop {
        if gate.is_open(sender).await {
            return true;
        }
        if Instant::now() + pause > deadline || !sender.wait(pause).await {
            return false;
        }
        pause = (pause * 2).min(POLL_MAX);
    }
}

impl Gate<'_> {
    async fn is_open(&self, sender: &Sender) -> bool {
        match self {
            Self::Served { place, .. } => {
                let uri = format!("{}?limit=1", place.list(""));
                let answer = sender.http.read(uri, super::http::METADATA_LIST).await;
                answer.is_ok_and(|answer| answer.code != 404 && answer.code < 500)
            }
            Self::DefaultAccount { namespace } => {
                let place = Place::new(&TypeId::new("", "serviceaccounts"), "v1", true);
                let key = Key::new(namespace, "default");
                let call = Call {
                    op: Op::Metadata,
                    place: &place,
                    key: &key,
                    body: Bytes::new(),
                };
                sender.send(&call, true).await.verdict == Verdict::Done
            }
            Self::Available {
                place, key, kind, ..
            } => {
                let call = Call {
                    op: Op::Read,
                    place,
                    key,
                    body: Bytes::new(),
                };
                let sent = sender.send(&call, true).await;
                match sent.verdict {
                    Verdict::Done => serde_json::from_slice(&sent.body)
                        .is_ok_and(|object: Value| is_available(kind, &object)),
                    // What was not restored is not waited for.
                    Verdict::Missing(_) => true,
                    _ => false,
                }
            }
        }
    }

    fn problem(&self, within: Duration) -> Problem {
        let (subject, what) = match self {
            Self::Served { definition, .. } => (
                format!("customresourcedefinitions.apiextensions.k8s.io {definition}"),
                "its type is not served: see the conditions Established and NamesAccepted",
            ),
            Self::DefaultAccount { namespace } => (
                format!("serviceaccounts {namespace}/default"),
                "the account does not exist: is the controller manager running?",
            ),
            Self::Available { subject, .. } => (
                subject.clone(),
                "others depend on it, and it is not available: see its pods and events",
            ),
        };
        let message = format!("after {} s, {what}", within.as_secs());
        Problem::warning(Reason::DependencyNotReady, subject, &message)
    }
}

/// Whether a workload can answer.
fn is_available(kind: &str, object: &Value) -> bool {
    let status = &object["status"];
    let replicas = |field: &str| status[field].as_i64().unwrap_or(0) > 0;
    let scaled_down = object["spec"]["replicas"].as_i64() == Some(0);
    match kind {
        "Pod" => status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        "DaemonSet" => replicas("numberAvailable"),
        _ => scaled_down || replicas("availableReplicas") || replicas("readyReplicas"),
    }
}

/// The gates of the types that a plan defines and uses, of the waves that are
/// due.
pub(crate) fn types_to_be_served<'a>(
    plan: &'a Plan,
    places: &'a [Place],
    due: impl Fn(u8) -> bool,
) -> Vec<Gate<'a>> {
    let defined: BTreeSet<&str> = plan
        .entries
        .iter()
        .filter(|entry| {
            entry.action.writes() && plan.type_of(entry).kind == "CustomResourceDefinition"
        })
        .map(|entry| &*entry.target.name)
        .collect();
    if defined.is_empty() {
        return Vec::new();
    }
    plan.types
        .iter()
        .zip(places)
        .filter(|(of, _)| due(of.wave))
        .map(|(of, place)| (of.id.to_string(), place))
        .filter(|(definition, _)| defined.contains(definition.as_str()))
        .map(|(definition, place)| Gate::Served { place, definition })
        .collect()
}

/// The gates of the namespaces in which a plan makes pods itself.
pub(crate) fn accounts_of_pods(plan: &Plan) -> Vec<Gate<'static>> {
    let namespaces: BTreeSet<&str> = plan
        .entries
        .iter()
        .filter(|entry| entry.action.writes())
        .filter(|entry| {
            let of = plan.type_of(entry);
            of.id.group.is_empty() && of.kind == "Pod"
        })
        .map(|entry| &*entry.target.namespace)
        .collect();
    namespaces
        .into_iter()
        .map(|namespace| Gate::DefaultAccount {
            namespace: namespace.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_workload_is_available_when_a_replica_is_or_none_is_wanted() {
        assert!(!is_available(
            "Deployment",
            &json!({"spec": {"replicas": 1}})
        ));
        assert!(is_available(
            "Deployment",
            &json!({"spec": {"replicas": 0}})
        ));
        assert!(is_available(
            "Deployment",
            &json!({"status": {"availableReplicas": 1}})
        ));
        assert!(is_available(
            "DaemonSet",
            &json!({"status": {"numberAvailable": 2}})
        ));
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(is_available("Pod", &ready));
        assert!(!is_available(
            "Pod",
            &json!({"status": {"phase": "Pending"}})
        ));
    }
}

//! Jobs and CronJobs.

use serde_json::{Map, Value};

use super::Verdict;

/// Labels with which the Job controller finds its pods; the server puts them on
/// again and refuses the old ones.
const CONTROLLER_LABELS: &[&str] = &[
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "job-name",
    "batch.kubernetes.io/job-name",
];

/// A finished Job would run again: it is left out.
pub(super) fn job(
    body: &mut Value,
    volatile: &Map<String, Value>,
    notes: &mut Vec<String>,
) -> Verdict {
    let conditions = volatile
        .get("status")
        .and_then(|status| status["conditions"].as_array());
    let finished = conditions.into_iter().flatten().any(|condition| {
        matches!(condition["type"].as_str(), Some("Complete" | "Failed"))
            && condition["status"] == "True"
    });
    if finished {
        return Verdict::Leave("it has finished, and would run again".into());
    }
    if body["spec"]["suspend"] != true {
        notes.push("it had not finished, and begins anew when it is restored".to_owned());
    }
    if body["spec"]["manualSelector"] != true {
        if let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("selector");
        }
        let of_controller = |key: &str| CONTROLLER_LABELS.contains(&key);
        super::remove_key(body, "/metadata", "labels", of_controller);
        super::remove_key(body, "/spec/template/metadata", "labels", of_controller);
    }
    Verdict::Restore
}

/// A CronJob comes back as it was: suspended only if it was.
pub(super) fn cron_job(body: &Value, notes: &mut Vec<String>) {
    if body["spec"]["suspend"] != true {
        notes.push(
            "it runs at its times as soon as it is restored: a transform can set `spec.suspend`"
                .to_owned(),
        );
    }
}

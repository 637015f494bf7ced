//! What an answer of the API server to a write means. Pure.

use std::time::Duration;

use lifebuoy_api::{Reason, bounded};
use serde::Deserialize;

/// How much of the server's own words goes into the report, in bytes.
pub(crate) const WORDS_BYTES_MAX: usize = 900;

/// An answer, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// The header `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: bytes::Bytes,
}

/// What is to be done about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done.
    Done,
    /// An object of this name exists.
    Exists,
    /// The object changed meanwhile, or is not the one that was meant.
    Conflict,
    /// There is no such object, namespace or type.
    Missing(Refusal),
    /// The server asks everyone to slow down.
    Throttled(Option<Duration>, Refusal),
    /// The server failed, and may not the next time.
    Failed(Option<Duration>, Refusal),
    /// It is refused now; what is restored meanwhile can change that.
    NotYet(Refusal),
    /// It is refused, and would be again.
    Refused(Refusal),
    /// It is refused since the object is not valid, or a field of the existing
    /// one cannot change.
    Invalid(Refusal),
}

/// A refusal for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) words: String,
    /// Whether it passes by itself, so that waiting a little is worth it.
    pub(crate) passing: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    causes: Vec<Cause>,
    retry_after_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    field: String,
}

/// What a server says that a later round can change: webhooks that are not
/// served yet, conversions, quotas.
const PASSING: &[&str] = &[
    "failed calling webhook",
    "no endpoints available for service",
    "conversion webhook",
    "the server is currently unable to handle the request",
    "error trying to reach service",
    "status unknown for quota",
    "error looking up service account",
    "no API token found for service account",
];

/// What a server says that only something else's restore can change.
const DENIED: &[&str] = &["denied the request"];

/// What no repetition changes, although the code says that the server failed.
const LASTING: &[&str] = &[
    "request is too large",
    "trying to send message larger than max",
];

/// What an answer to a write means. Of a Secret, nothing that the server says
/// is kept but codes and field paths: its text can hold values.
pub(crate) fn classify(answer: &Answer, secret: bool) -> Verdict {
    if (200..300).contains(&answer.code) {
        return Verdict::Done;
    }
    let status: Status = serde_json::from_slice(&answer.body).unwrap_or_default();
    let after = answer.retry_after.or_else(|| {
        let seconds = status.details.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    });
    let caused_by = |reason: &str| status.details.causes.iter().any(|c| c.reason == reason);
    let says = |texts: &[&str]| texts.iter().any(|text| status.message.contains(text));
    let refusal = |reason| Refusal {
        reason,
        words: words(answer.code, &status, secret),
        passing: answer.code == 404 || says(PASSING),
    };
    if caused_by("NamespaceTerminating") {
        return Verdict::NotYet(refusal(Reason::NamespaceTerminating));
    }
    match answer.code {
        409 if status.reason == "AlreadyExists" => Verdict::Exists,
        409 => Verdict::Conflict,
        404 | 410 => Verdict::Missing(refusal(missing_reason(&status))),
        403 => Verdict::NotYet(refusal(Reason::Refused)),
        429 => Verdict::Throttled(after, refusal(Reason::Refused)),
        401 | 408 => Verdict::Failed(after, refusal(Reason::Refused)),
        500..=599 if says(LASTING) => Verdict::Refused(refusal(Reason::Refused)),
        400..=599 if says(PASSING) || says(DENIED) => Verdict::NotYet(refusal(Reason::Refused)),
        500..=599 => Verdict::Failed(after, refusal(Reason::Refused)),
        422 => Verdict::Invalid(refusal(Reason::Refused)),
        _ => Verdict::Refused(refusal(Reason::Refused)),
    }
}

/// A path that is not served is answered in plain text or without a kind; a
/// namespace that is not there, by its name.
fn missing_reason(status: &Status) -> Reason {
    if status.message.is_empty()
        || status
            .message
            .contains("could not find the requested resource")
    {
        Reason::TypeNotServed
    } else {
        Reason::DependencyNotReady
    }
}

fn words(code: u16, status: &Status, secret: bool) -> String {
    let kind = if status.reason.is_empty() {
        String::new()
    } else {
        format!(" {}", status.reason)
    };
    if !secret && !status.message.is_empty() {
        let said = bounded(&status.message, WORDS_BYTES_MAX);
        return format!("the API server answered {code}{kind}: {said}");
    }
    let mut fields: Vec<&str> = Vec::new();
    for cause in &status.details.causes {
        if !cause.field.is_empty() && !fields.contains(&&*cause.field) {
            fields.push(&cause.field);
        }
    }
    if fields.is_empty() {
        format!("the API server answered {code}{kind}")
    } else {
        let fields = bounded(&fields.join(", "), WORDS_BYTES_MAX);
        format!("the API server answered {code}{kind} about {fields}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(code: u16, body: &Value) -> Answer {
        Answer {
            code,
            retry_after: None,
            body: serde_json::to_vec(body).unwrap().into(),
        }
    }

    fn of(code: u16, body: Value) -> Verdict {
        classify(&answer(code, &body), false)
    }

    #[test]
    fn answers_are_told_apart() {
        let failing = "Internal error occurred: failed calling webhook \"a.b.c\": no endpoints available for service \"gate\"";
        let denied = "admission webhook \"a.b.c\" denied the request: no";
        assert_eq!(of(201, json!({})), Verdict::Done);
        assert_eq!(of(409, json!({"reason": "AlreadyExists"})), Verdict::Exists);
        assert_eq!(of(409, json!({"reason": "Conflict"})), Verdict::Conflict);
        assert!(matches!(
            of(500, json!({"message": failing})),
            Verdict::NotYet(_)
        ));
        assert!(matches!(
            of(400, json!({"message": denied})),
            Verdict::NotYet(_)
        ));
        assert!(matches!(
            of(403, json!({"message": "exceeded quota: q"})),
            Verdict::NotYet(_)
        ));
        assert!(matches!(
            of(500, json!({"message": "etcdserver: request is too large"})),
            Verdict::Refused(_)
        ));
        assert!(matches!(
            of(500, json!({"message": "etcdserver: leader changed"})),
            Verdict::Failed(None, _)
        ));
        assert!(matches!(
            of(504, json!({"details": {"retryAfterSeconds": 1}})),
            Verdict::Failed(Some(_), _)
        ));
        assert!(matches!(of(429, json!({})), Verdict::Throttled(None, _)));
        assert!(matches!(
            of(422, json!({"reason": "Invalid"})),
            Verdict::Invalid(_)
        ));
        assert!(matches!(
            of(400, json!({"message": "cannot unmarshal"})),
            Verdict::Refused(_)
        ));
        assert!(matches!(of(413, json!({})), Verdict::Refused(_)));
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        let reason = |body| match of(404, body) {
            Verdict::Missing(refusal) => refusal.reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            reason(json!({"message": "the server could not find the requested resource"})),
            Reason::TypeNotServed
        );
        assert_eq!(
            reason(json!({"message": "namespaces \"shop\" not found"})),
            Reason::DependencyNotReady
        );
        let closed =
            json!({"message": "…", "details": {"causes": [{"reason": "NamespaceTerminating"}]}});
        assert!(
            matches!(of(403, closed), Verdict::NotYet(r) if r.reason == Reason::NamespaceTerminating)
        );
    }

    #[test]
    fn the_servers_words_about_a_secret_are_never_kept() {
        let said = json!({
            "reason": "Invalid",
            "message": "Secret \"s\" is invalid: data[password]: Invalid value: \"hunter2\"",
            "details": {"causes": [
                {"reason": "FieldValueInvalid", "message": "hunter2", "field": "data[password]"},
                {"reason": "FieldValueInvalid", "message": "hunter2", "field": "data[password]"},
            ]},
        });
        let Verdict::Invalid(refusal) = classify(&answer(422, &said), true) else {
            panic!("not invalid");
        };
        assert_eq!(
            refusal.words,
            "the API server answered 422 Invalid about data[password]"
        );
        let Verdict::Invalid(refusal) = classify(&answer(422, &said), false) else {
            panic!("not invalid");
        };
        assert!(refusal.words.contains("hunter2"), "{}", refusal.words);
    }

    #[test]
    fn words_are_bounded() {
        let long = json!({"message": "x".repeat(100_000)});
        let Verdict::Refused(refusal) = of(400, long) else {
            panic!("not refused");
        };
        assert!(refusal.words.len() < 1024);
    }
}

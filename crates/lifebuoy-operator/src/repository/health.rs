//! Whether anything that is stored is known to be damaged: what the last check
//! found, and what cannot be read right now. Pure.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lifebuoy_api::{ConditionType, Reason, RepositoryCheck, bounded, condition, unknown};

use super::status::MESSAGE_BYTES_MAX;

/// What is known of a repository's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// `None` when nobody has checked.
    pub(crate) healthy: Option<bool>,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Health {
    pub(crate) fn condition(&self, generation: Option<i64>, now: DateTime<Utc>) -> Condition {
        let message = bounded(&self.message, MESSAGE_BYTES_MAX);
        let (kind, reason) = (ConditionType::Healthy, self.reason);
        match self.healthy {
            Some(healthy) => condition(kind, healthy, reason, message, generation, now),
            None => unknown(kind, reason, message, generation, now),
        }
    }
}

/// `unreadable` are the records that could not be read just now, and why. What
/// a check found counts until another one ends.
pub(crate) fn judge(unreadable: &[(String, String)], check: Option<&RepositoryCheck>) -> Health {
    if let Some((record, why)) = unreadable.first() {
        return Health {
            healthy: Some(false),
            reason: Reason::RecordUnreadable,
            message: format!(
                "{} of its records cannot be read, such as {record}: {why}; nothing is forgotten or \
                 deleted while that is so",
                unreadable.len()
            ),
        };
    }
    let Some(check) = check else {
        return Health {
            healthy: None,
            reason: Reason::NotChecked,
            message: "all records can be read; no check has ended yet".to_owned(),
        };
    };
    let (healthy, reason) = match check.outcome.as_str() {
        word if word == Reason::CheckPassed.as_str() => (Some(true), Reason::CheckPassed),
        word if word == Reason::CheckFailed.as_str() => (Some(false), Reason::CheckFailed),
        _ => (None, Reason::NotChecked),
    };
    Health {
        healthy,
        reason,
        message: match reason {
            Reason::NotChecked => format!("the last check did not end: {}", check.message),
            _ => check.message.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::{CheckLevel, time::to_kube};

    use super::*;

    fn check(outcome: &str) -> RepositoryCheck {
        RepositoryCheck {
            time: to_kube(DateTime::UNIX_EPOCH),
            level: CheckLevel::Share,
            outcome: outcome.to_owned(),
            message: "said".to_owned(),
            objects_checked: 1,
            bytes_checked: 1,
            problem_count: 0,
            problems: Vec::new(),
            read_through_time: None,
            reading: None,
        }
    }

    #[test]
    fn health_is_what_the_last_check_found_unless_a_record_is_unreadable() {
        let bad = [("end/x".to_owned(), "damaged".to_owned())];
        for (unreadable, outcome, expected) in [
            (&[][..], None, "Unknown NotChecked"),
            (&[], Some("CheckPassed"), "True CheckPassed"),
            (&[], Some("CheckFailed"), "False CheckFailed"),
            (&[], Some("StoreUnreachable"), "Unknown NotChecked"),
            (&bad, None, "False RecordUnreadable"),
            (&bad, Some("CheckPassed"), "False RecordUnreadable"),
        ] {
            let check = outcome.map(check);
            let health = judge(unreadable, check.as_ref());
            let condition = health.condition(Some(1), DateTime::UNIX_EPOCH);
            let told = format!("{} {}", condition.status, condition.reason);
            assert_eq!(told, expected, "{unreadable:?} {outcome:?}");
            assert_eq!(condition.type_, "Healthy");
        }
    }
}

//! Whether anything that is stored is known to be damaged: what the last check
//! found, and what cannot be read right now. Where another cluster checks, its
//! status tells. Pure.

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
/// a check found counts until another one ends. `elsewhere` says that another
/// cluster checks: what this one found before is old then.
pub(crate) fn judge(
    unreadable: &[(String, String)],
    check: Option<&RepositoryCheck>,
    elsewhere: bool,
) -> Health {
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
    if elsewhere {
        return Health {
            healthy: None,
            reason: Reason::NotKeeper,
            message: "all records can be read; another cluster keeps the repository, and its \
                      status says what its checks found"
                .to_owned(),
        };
    }
    let Some(check) = check else {
        return Health {
            healthy: None,
            reason: Reason::NotChecked,
            message: "all records can be read; no check has ended yet".to_owned(),
        };
    };
    let said = &check.message;
    let (healthy, reason, message) = match check.outcome.as_str() {
        word if word == Reason::CheckPassed.as_str() => {
            (Some(true), Reason::CheckPassed, said.clone())
        }
        word if word == Reason::CheckFailed.as_str() => {
            (Some(false), Reason::CheckFailed, said.clone())
        }
        // A check that did not end has not found sound what was damaged before.
        _ if check.problem_count > 0 => {
            let known = check.problem_count;
            let message = format!("{known} known problems; the last check did not end: {said}");
            (Some(false), Reason::CheckFailed, message)
        }
        _ => {
            let message = format!("the last check did not end: {said}");
            (None, Reason::NotChecked, message)
        }
    };
    Health {
        healthy,
        reason,
        message,
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
            let health = judge(unreadable, check.as_ref(), false);
            let condition = health.condition(Some(1), DateTime::UNIX_EPOCH);
            let told = format!("{} {}", condition.status, condition.reason);
            assert_eq!(told, expected, "{unreadable:?} {outcome:?}");
            assert_eq!(condition.type_, "Healthy");
        }
    }

    #[test]
    fn a_check_that_did_not_end_does_not_make_damage_forgotten() {
        let stopped = RepositoryCheck {
            problem_count: 2,
            ..check("StoreUnreachable")
        };
        let health = judge(&[], Some(&stopped), false);
        assert_eq!(
            (health.healthy, health.reason),
            (Some(false), Reason::CheckFailed)
        );
        assert!(health.message.contains("did not end"), "{}", health.message);
    }

    #[test]
    fn where_another_cluster_checks_its_status_tells() {
        let old = check("CheckFailed");
        let health = judge(&[], Some(&old), true);
        assert_eq!((health.healthy, health.reason), (None, Reason::NotKeeper));
        let bad = [("end/x".to_owned(), "damaged".to_owned())];
        assert_eq!(judge(&bad, Some(&old), true).healthy, Some(false));
    }
}

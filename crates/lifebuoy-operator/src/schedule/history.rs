//! Which Backups of a Schedule stay as objects, by its history limits. Pure.

use chrono::{DateTime, Utc};
use lifebuoy_api::{Backup, ConditionType, is_true, time::from_kube};

use crate::backup::ended;

/// The Backups whose objects are history: those that ended, beyond the newest
/// `successful` and `failed` ones.
pub(crate) fn history(backups: &[Backup], successful: usize, failed: usize) -> Vec<&Backup> {
    let conditions = |backup: &&Backup, kind: ConditionType| {
        backup
            .status
            .as_ref()
            .is_some_and(|status| is_true(&status.conditions, kind))
    };
    let done = |backup: &&Backup| conditions(backup, ConditionType::Complete);
    let over = |backup: &&Backup| ended(backup) || conditions(backup, ConditionType::Stalled);
    let mut newest: Vec<&Backup> = backups.iter().filter(over).collect();
    newest.sort_by_key(|backup| std::cmp::Reverse((created(backup), backup.metadata.name.clone())));
    let (good, bad): (Vec<&Backup>, Vec<&Backup>) = newest.into_iter().partition(done);
    good.into_iter()
        .skip(successful)
        .chain(bad.into_iter().skip(failed))
        .collect()
}

fn created(backup: &Backup) -> Option<DateTime<Utc>> {
    backup.metadata.creation_timestamp.as_ref().map(from_kube)
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::{Reason, condition, time::to_kube};

    use super::*;

    #[test]
    fn history_keeps_the_newest_of_each_kind_and_whatever_runs() {
        let backup = |name: &str, kind: Option<ConditionType>| {
            let mut backup: Backup = serde_json::from_value(serde_json::json!({
                "metadata": {"name": name}, "spec": {"repository": "main"}, "status": {},
            }))
            .unwrap();
            let second = name.bytes().map(i64::from).sum();
            let at = DateTime::from_timestamp(second, 0).unwrap();
            backup.metadata.creation_timestamp = Some(to_kube(at));
            if let (Some(kind), Some(status)) = (kind, backup.status.as_mut()) {
                let now = DateTime::UNIX_EPOCH;
                status.conditions = vec![condition(kind, true, Reason::Succeeded, "", None, now)];
            }
            backup
        };
        let all = [
            backup("a", Some(ConditionType::Complete)),
            backup("b", Some(ConditionType::Failed)),
            backup("c", Some(ConditionType::Complete)),
            backup("d", None),
            backup("e", Some(ConditionType::Stalled)),
        ];
        let mut names: Vec<_> = history(&all, 1, 1)
            .iter()
            .map(|b| b.metadata.name.clone().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(history(&all, 0, 0).len(), 4);
    }
}

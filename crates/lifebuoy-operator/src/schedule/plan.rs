//! What a Schedule does at a moment. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use kube::ResourceExt;
use lifebuoy_api::{
    Backup, ConcurrencyPolicy, ConditionType, Reason, Schedule, is_true, time::from_kube,
};
use lifebuoy_engine::{retention::Rules, selection::Selector};

use super::{
    due::{Decision, backup_name, due},
    history::history,
    timetable::Timetable,
};
use crate::backup::ended;

/// The longest name of a Schedule: with a tick it is the name of a Backup, and
/// by itself the value of a label.
const NAME_BYTES_MAX: usize = 52;

/// A spec that makes sense.
#[derive(Debug)]
pub(crate) struct Valid {
    timetable: Timetable,
    rules: Rules,
}

impl Valid {
    /// Which recovery points are kept.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// Parses what a schema cannot say no to.
///
/// # Errors
/// A sentence that begins with the path of the field.
pub(crate) fn validate(schedule: &Schedule, now: DateTime<Utc>) -> Result<Valid, String> {
    let name = schedule.name_any();
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "metadata.name: `{name}` is longer than {NAME_BYTES_MAX} characters, and its Backups \
             are named after it"
        ));
    }
    let selection = &schedule.spec.template.spec.selection;
    Selector::parse(selection, "spec.template.spec.selection")
        .map_err(|error| error.to_string())?;
    let timetable = Timetable::parse(&schedule.spec.cron, &schedule.spec.time_zone, now)?;
    let rules = Rules::new(&schedule.spec.retention, timetable.zone());
    Ok(Valid { timetable, rules })
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// The Backup to create: its name and its tick.
    pub(crate) create: Option<(String, DateTime<Utc>)>,
    /// Backups to cancel, so that the new one takes their place.
    pub(crate) cancel: Vec<&'a Backup>,
    /// Backups whose objects are history.
    pub(crate) delete: Vec<&'a Backup>,
    /// Backups that have not ended.
    pub(crate) active: Vec<String>,
    /// The tick that is dealt with, whether it gets a Backup or not.
    pub(crate) tick: Option<DateTime<Utc>>,
    /// Ticks that got no Backup.
    pub(crate) missed: u32,
    /// When to look again.
    pub(crate) next: Option<DateTime<Utc>>,
    /// When a Backup last completed.
    pub(crate) succeeded: Option<DateTime<Utc>>,
    /// What the condition says.
    pub(crate) reason: Option<(Reason, String)>,
}

/// `backups` are all that belong to the Schedule, those made by hand included.
pub(crate) fn plan<'a>(
    schedule: &Schedule,
    valid: &Valid,
    backups: &'a [Backup],
    now: DateTime<Utc>,
) -> Plan<'a> {
    let spec = &schedule.spec;
    let (made, by_hand): (Vec<&Backup>, Vec<&Backup>) =
        backups.iter().partition(|backup| made_by(backup, schedule));
    let active: Vec<&Backup> = made
        .iter()
        .copied()
        .filter(|backup| is_active(backup))
        .collect();
    let limit = |value: i64| usize::try_from(value).unwrap_or(0);
    let history = history(
        backups,
        limit(spec.successful_backups_history_limit),
        limit(spec.failed_backups_history_limit),
    );
    let mut plan = Plan {
        delete: history
            .into_iter()
            .filter(|backup| made_by(backup, schedule))
            .collect(),
        active: active.iter().map(|backup| backup.name_any()).collect(),
        succeeded: made
            .iter()
            .chain(&by_hand)
            .filter_map(|backup| completed(backup))
            .max(),
        ..Plan::default()
    };
    let status = schedule.status.as_ref();
    let created = schedule
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, from_kube);
    let last = status
        .and_then(|status| status.last_schedule_time.as_ref())
        .map_or(created, from_kube);
    if spec.suspend {
        plan.reason = Some((Reason::Suspended, "`spec.suspend` is set".to_owned()));
        return plan;
    }
    let deadline = spec.starting_deadline_seconds.map(TimeDelta::seconds);
    match due(&valid.timetable, last, now, deadline) {
        Decision::Wait { next } => {
            plan.next = next;
            plan.reason = Some((Reason::Scheduling, "it waits for the next time".to_owned()));
        }
        Decision::TooLate { tick, missed } => {
            plan.tick = Some(tick);
            plan.missed = missed;
            plan.reason = Some((
                Reason::TicksMissed,
                format!("{missed} times passed, and the newest is past `startingDeadlineSeconds`"),
            ));
        }
        Decision::Run { tick, missed } => {
            plan.tick = Some(tick);
            plan.missed = missed;
            run(&mut plan, schedule, &active, tick);
        }
    }
    if plan.tick.is_some() {
        plan.next = valid.timetable.next_after(now);
    }
    plan
}

fn run<'a>(plan: &mut Plan<'a>, schedule: &Schedule, active: &[&'a Backup], tick: DateTime<Utc>) {
    let name = backup_name(&schedule.name_any(), tick);
    // It was created, but the status could not be written any more.
    let others: Vec<&Backup> = active
        .iter()
        .copied()
        .filter(|backup| backup.name_any() != name)
        .collect();
    let missed = plan.missed;
    match schedule.spec.concurrency_policy {
        ConcurrencyPolicy::Forbid if !others.is_empty() => {
            plan.missed += 1;
            plan.reason = Some((
                Reason::TickSkipped,
                format!("the Backup `{}` has not ended", others[0].name_any()),
            ));
            return;
        }
        ConcurrencyPolicy::Replace => plan.cancel = others,
        ConcurrencyPolicy::Forbid | ConcurrencyPolicy::Allow => {}
    }
    plan.reason = Some(if missed == 0 {
        (Reason::Scheduling, format!("the Backup `{name}` was made"))
    } else {
        (
            Reason::TicksMissed,
            format!("{missed} times were missed; `{name}` makes up for them"),
        )
    });
    plan.create = Some((name, tick));
}

/// Whether the Schedule made it, and not a person from its template.
fn made_by(backup: &Backup, schedule: &Schedule) -> bool {
    let uid = schedule.uid();
    backup
        .owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == uid.as_ref())
}

fn is_active(backup: &Backup) -> bool {
    let stalled = backup
        .status
        .as_ref()
        .is_some_and(|status| is_true(&status.conditions, ConditionType::Stalled));
    !ended(backup) && !stalled && backup.metadata.deletion_timestamp.is_none()
}

fn completed(backup: &Backup) -> Option<DateTime<Utc>> {
    let status = backup.status.as_ref()?;
    is_true(&status.conditions, ConditionType::Complete)
        .then(|| status.completion_time.as_ref().map(from_kube))
        .flatten()
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::time::to_kube;
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn schedule(policy: &str) -> Schedule {
        let mut schedule: Schedule = serde_json::from_value(json!({
            "metadata": {"name": "hourly", "uid": "s", "namespace": "lifebuoy"},
            "spec": {
                "cron": "0 * * * *",
                "concurrencyPolicy": policy,
                "template": {"spec": {"repository": "main"}},
            },
        }))
        .unwrap();
        schedule.metadata.creation_timestamp = Some(to_kube(at("2026-11-23T09:30:00Z")));
        schedule
    }

    fn backup(name: &str) -> Backup {
        serde_json::from_value(json!({
            "metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "lifebuoy.dev/v1alpha1", "kind": "Schedule", "name": "hourly", "uid": "s"},
            ]},
            "spec": {"repository": "main"},
        }))
        .unwrap()
    }

    fn told(schedule: &Schedule, backups: &[Backup], now: &str) -> String {
        let valid = validate(schedule, at(now)).unwrap();
        let plan = plan(schedule, &valid, backups, at(now));
        let reason = plan
            .reason
            .map(|(reason, _)| reason.as_str())
            .unwrap_or_default();
        let created = plan.create.map(|(name, _)| name).unwrap_or_default();
        let cancelled: Vec<_> = plan.cancel.iter().map(|backup| backup.name_any()).collect();
        format!(
            "{reason} create={created} cancel={} missed={}",
            cancelled.join(","),
            plan.missed
        )
    }

    #[test]
    fn a_tick_makes_one_backup_as_the_policy_says() {
        let running = [backup("hourly-1")];
        let this_one = [backup("hourly-29923800")];
        for (policy, backups, now, expected) in [
            (
                "Forbid",
                &[][..],
                "2026-11-23T09:59:00Z",
                "Scheduling create= cancel= missed=0",
            ),
            (
                "Forbid",
                &[],
                "2026-11-23T10:00:01Z",
                "Scheduling create=hourly-29923800 cancel= missed=0",
            ),
            (
                "Forbid",
                &[],
                "2026-11-23T12:00:01Z",
                "TicksMissed create=hourly-29923920 cancel= missed=2",
            ),
            (
                "Forbid",
                &running,
                "2026-11-23T10:00:01Z",
                "TickSkipped create= cancel= missed=1",
            ),
            (
                "Allow",
                &running,
                "2026-11-23T10:00:01Z",
                "Scheduling create=hourly-29923800 cancel= missed=0",
            ),
            (
                "Replace",
                &running,
                "2026-11-23T10:00:01Z",
                "Scheduling create=hourly-29923800 cancel=hourly-1 missed=0",
            ),
            // Created before, but the status was not written: creating again is harmless.
            (
                "Forbid",
                &this_one,
                "2026-11-23T10:00:01Z",
                "Scheduling create=hourly-29923800 cancel= missed=0",
            ),
        ] {
            assert_eq!(
                told(&schedule(policy), backups, now),
                expected,
                "{policy} {now}"
            );
        }
    }

    #[test]
    fn a_suspended_schedule_makes_nothing() {
        let mut schedule = schedule("Forbid");
        schedule.spec.suspend = true;
        let told = told(&schedule, &[], "2026-11-23T12:00:01Z");
        assert_eq!(told, "Suspended create= cancel= missed=0");
    }

    #[test]
    fn an_invalid_field_is_named() {
        let now = at("2026-11-23T12:00:00Z");
        let mut wrong = schedule("Forbid");
        wrong.spec.template.spec.selection.resources = vec!["a[".into()];
        let said = validate(&wrong, now).unwrap_err();
        assert!(
            said.starts_with("spec.template.spec.selection.resources[0]"),
            "{said}"
        );
        let mut wrong = schedule("Forbid");
        wrong.metadata.name = Some("x".repeat(53));
        assert!(
            validate(&wrong, now)
                .unwrap_err()
                .starts_with("metadata.name")
        );
    }
}

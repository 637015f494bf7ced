//! What the status of a Schedule says. Pure.

use chrono::{DateTime, Utc};
use lifebuoy_api::{
    ConditionType, Reason, Schedule, ScheduleStatus, condition, time::to_kube, upsert,
};

use super::plan::Plan;

/// The status after a plan was carried out.
pub(crate) fn status(schedule: &Schedule, plan: &Plan<'_>, now: DateTime<Utc>) -> ScheduleStatus {
    let mut status = schedule.status.clone().unwrap_or_default();
    status.active.clone_from(&plan.active);
    if let Some((name, _)) = &plan.create
        && !status.active.contains(name)
    {
        status.active.push(name.clone());
    }
    if let Some(tick) = plan.tick {
        status.last_schedule_time = Some(to_kube(tick));
    }
    if let Some(at) = plan.succeeded {
        let at = to_kube(at);
        // The Backup that completed may be history by now.
        let newer = status
            .last_successful_time
            .as_ref()
            .is_none_or(|last| *last < at);
        if newer {
            status.last_successful_time = Some(at);
        }
    }
    status.next_schedule_time = plan.next.map(to_kube);
    status.missed_ticks = status.missed_ticks.saturating_add(i64::from(plan.missed));
    if let Some((reason, message)) = &plan.reason {
        let suspended = *reason == Reason::Suspended;
        set(
            &mut status,
            schedule,
            !suspended,
            false,
            *reason,
            message,
            now,
        );
    }
    status
}

/// The status of a Schedule that cannot work.
pub(crate) fn stalled(
    schedule: &Schedule,
    reason: Reason,
    message: String,
    now: DateTime<Utc>,
) -> ScheduleStatus {
    let mut status = schedule.status.clone().unwrap_or_default();
    status.next_schedule_time = None;
    set(&mut status, schedule, false, true, reason, &message, now);
    status
}

fn set(
    status: &mut ScheduleStatus,
    schedule: &Schedule,
    ready: bool,
    stalled: bool,
    reason: Reason,
    message: &str,
    now: DateTime<Utc>,
) {
    let generation = schedule.metadata.generation;
    status.observed_generation = generation;
    for (kind, is) in [
        (ConditionType::Ready, ready),
        (ConditionType::Reconciling, false),
        (ConditionType::Stalled, stalled),
    ] {
        upsert(
            &mut status.conditions,
            condition(kind, is, reason, message, generation, now),
        );
    }
}

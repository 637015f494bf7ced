//! What the reconcilers of all requests have in common: how a request stands, how it is
//! refused, and what a step leads to.

use chrono::{DateTime, Utc};
use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{Resource, core::object::HasStatus, runtime::controller::Action};
use lifebuoy_api::{
    BackupStatus, ConditionType, Reason, RestoreStatus, VolumeRestoreStatus, find, time::to_kube,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    context::{Context, Reconciled},
    status::{Standing, publish},
};

/// The status of a request that ends.
pub(crate) trait RequestStatus: Clone + Default + Serialize {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];

    /// What a standing changes.
    fn stands(&mut self) -> Stands<'_>;

    /// The word for the printed column.
    fn phase_of(&self, standing: &Standing) -> &'static str {
        standing.phase()
    }
}

/// The fields of a status that tell how a request stands.
pub(crate) struct Stands<'a> {
    observed_generation: &'a mut Option<i64>,
    phase: &'a mut String,
    conditions: &'a mut Vec<Condition>,
    completion_time: &'a mut Option<Time>,
}

macro_rules! fields {
    () => {
        fn conditions(&self) -> &[Condition] {
            &self.conditions
        }

        fn stands(&mut self) -> Stands<'_> {
            Stands {
                observed_generation: &mut self.observed_generation,
                phase: &mut self.phase,
                conditions: &mut self.conditions,
                completion_time: &mut self.completion_time,
            }
        }
    };
}

impl RequestStatus for BackupStatus {
    fields!();
}

impl RequestStatus for RestoreStatus {
    fields!();
}

impl RequestStatus for VolumeRestoreStatus {
    fields!();

    fn phase_of(&self, standing: &Standing) -> &'static str {
        match standing {
            Standing::Waiting(..) if self.filled_time.is_some() => "Binding",
            other => other.phase(),
        }
    }
}

/// Brings conditions, phase and times to a standing.
pub(crate) fn stand(
    status: &mut impl RequestStatus,
    standing: &Standing,
    generation: Option<i64>,
    now: DateTime<Utc>,
) {
    let phase = status.phase_of(standing);
    let Stands {
        observed_generation,
        phase: shown,
        conditions,
        completion_time,
    } = status.stands();
    *observed_generation = generation;
    phase.clone_into(shown);
    standing.apply(conditions, generation, now);
    if standing.ended() && completion_time.is_none() {
        *completion_time = Some(to_kube(now));
    }
}

/// How a request has ended, by its conditions.
pub(crate) struct Verdict<'a> {
    /// Whether it has done all that was asked.
    pub(crate) complete: bool,
    pub(crate) reason: Reason,
    pub(crate) message: &'a str,
}

/// How a request has ended, if it has.
pub(crate) fn verdict(conditions: &[Condition]) -> Option<Verdict<'_>> {
    let complete = find(conditions, ConditionType::Complete);
    let condition = complete.or_else(|| find(conditions, ConditionType::Failed))?;
    let mut reasons = Reason::ALL.iter();
    let reason = reasons.find(|reason| reason.as_str() == condition.reason);
    Some(Verdict {
        complete: complete.is_some(),
        reason: reason.copied().unwrap_or(Reason::InternalError),
        message: &condition.message,
    })
}

/// Says no, and does nothing else.
pub(crate) async fn refuse<K>(
    context: &Context,
    request: &K,
    reason: Reason,
    message: String,
) -> Reconciled
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + HasStatus
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
    K::Status: RequestStatus,
{
    let before = request.status();
    let mut status = before.cloned().unwrap_or_default();
    let refused = find(status.conditions(), ConditionType::Stalled)
        .is_some_and(|c| c.status == "True" && c.reason == reason.as_str());
    if !refused {
        let standing = Standing::Stalled(reason, message);
        let generation = request.meta().generation;
        stand(&mut status, &standing, generation, context.now());
        publish(&context.client, request, before, &status, None).await?;
    }
    Ok(Action::await_change())
}

/// What a step led to. `T` is work that goes on beside the reconciler.
pub(crate) struct Done<S, T> {
    pub(crate) status: S,
    pub(crate) action: Action,
    pub(crate) then: Then<T>,
}

/// What happens when the status is written, and not before.
pub(crate) enum Then<T> {
    Nothing,
    /// The work begins.
    Start(T, OwnedSemaphorePermit),
    /// The outcome of the work is in the status.
    Forget,
}

impl<S: RequestStatus, T> Done<S, T> {
    /// The status stays as it is.
    pub(crate) fn unchanged(request: &impl HasStatus<Status = S>, action: Action) -> Self {
        Self {
            status: request.status().cloned().unwrap_or_default(),
            action,
            then: Then::Nothing,
        }
    }

    /// The status tells of a standing.
    pub(crate) fn stands(
        request: &impl Resource,
        now: DateTime<Utc>,
        mut status: S,
        standing: &Standing,
        action: Action,
    ) -> Self {
        stand(&mut status, standing, request.meta().generation, now);
        Self {
            status,
            action,
            then: Then::Nothing,
        }
    }

    /// The task is not needed any more.
    pub(crate) fn forget(self) -> Self {
        Self {
            then: Then::Forget,
            ..self
        }
    }
}

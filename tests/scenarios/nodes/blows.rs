//! What strikes a cluster while something is saved or restored, and what may be said
//! of it then.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use lifebuoy_api::{ConditionType, Problem, Reason, Severity, find};
use lifebuoy_scenarios::{Ended, Kind, MOVERS_NAMESPACE, NodeWorld, OPERATOR_NAMESPACE};
use lifebuoy_testkit::S3Server;

/// How soon a mover is struck after it was seen.
const MOVER_WITHIN: Duration = Duration::from_millis(2500);
/// How long a mover is waited for.
const LIMIT: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(100);

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    MoverKilled,
    MoverPodDeleted,
    OperatorKilled,
    KubeletRestarted,
    StoreStopped,
}

impl Blow {
    pub(crate) const ALL: [Self; 5] = [
        Self::MoverKilled,
        Self::MoverPodDeleted,
        Self::OperatorKilled,
        Self::KubeletRestarted,
        Self::StoreStopped,
    ];

    /// How soon it strikes after what it strikes was seen; where it needs not wait for
    /// that, none.
    pub(crate) const fn within(self) -> Option<Duration> {
        match self {
            Self::MoverKilled | Self::MoverPodDeleted => Some(MOVER_WITHIN),
            Self::OperatorKilled | Self::KubeletRestarted | Self::StoreStopped => None,
        }
    }

    /// What a request may say that failed by it. All others are survived.
    const fn excuses(self) -> &'static [Reason] {
        match self {
            Self::MoverKilled | Self::MoverPodDeleted | Self::OperatorKilled => &[],
            // A hook cannot be run without it.
            Self::KubeletRestarted => &[Reason::VolumeDataNotSaved],
            Self::StoreStopped => &[
                Reason::StoreUnreachable,
                Reason::VolumeDataNotSaved,
                Reason::VolumeNotFilled,
                Reason::VolumeHalfWritten,
            ],
        }
    }
}

/// A blow, and when it is dealt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) blow: Blow,
    pub(crate) after: Duration,
    /// How long what was stopped stays away.
    pub(crate) away: Duration,
}

impl Strike {
    /// Strikes while a request goes on. False if it has ended before.
    pub(crate) async fn deal<K: Kind + Ended>(
        &self,
        world: &mut NodeWorld,
        s3: &mut S3Server,
        name: &str,
    ) -> Result<bool> {
        let api: Api<K> = Api::namespaced(world.client(), OPERATOR_NAMESPACE);
        let ended = async || api.get(name).await.is_ok_and(|request| request.ended());
        if self.blow.within().is_some() {
            return self.deal_to_mover(world, ended).await;
        }
        tokio::time::sleep(self.after).await;
        if ended().await {
            return Ok(false);
        }
        match self.blow {
            Blow::StoreStopped => {
                s3.stop();
                tokio::time::sleep(self.away).await;
                s3.restart().await?;
            }
            Blow::KubeletRestarted => {
                world.node.kill_kubelet();
                tokio::time::sleep(self.away).await;
                world.node.start_kubelet()?;
            }
            _ => {
                let killed = world.node.kill_in_pods("lifebuoy", "operator")?;
                ensure!(killed > 0, "no operator runs");
            }
        }
        Ok(true)
    }

    /// Strikes movers a moment after there are some, or those that come later.
    async fn deal_to_mover(
        &self,
        world: &NodeWorld,
        ended: impl AsyncFn() -> bool,
    ) -> Result<bool> {
        let begun = Instant::now();
        let mut seen: Option<Instant> = None;
        while begun.elapsed() < LIMIT {
            if ended().await {
                return Ok(false);
            }
            if self.has_mover(world).await? {
                let since = seen.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.after && self.strike_mover(world).await? {
                    return Ok(true);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("there was no mover")
    }

    async fn has_mover(&self, world: &NodeWorld) -> Result<bool> {
        match self.blow {
            Blow::MoverKilled => world.node.runs_in_a_pod("lifebuoy", "mover"),
            _ => Ok(mover_pod(world).await?.is_some()),
        }
    }

    async fn strike_mover(&self, world: &NodeWorld) -> Result<bool> {
        if self.blow == Blow::MoverKilled {
            return Ok(world.node.kill_in_pods("lifebuoy", "mover")? > 0);
        }
        let Some(name) = mover_pod(world).await? else {
            return Ok(false);
        };
        // It may have gone by itself.
        let deleted = movers(world).delete(&name, &DeleteParams::default()).await;
        Ok(deleted.is_ok())
    }
}

fn movers(world: &NodeWorld) -> Api<Pod> {
    Api::namespaced(world.client(), MOVERS_NAMESPACE)
}

/// The pod of a mover that is not done, nor going.
async fn mover_pod(world: &NodeWorld) -> Result<Option<String>> {
    let pods = movers(world).list(&ListParams::default()).await?;
    let works = |pod: &&Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        !ended && pod.metadata.deletion_timestamp.is_none()
    };
    Ok(pods.items.iter().find(works).map(ResourceExt::name_any))
}

/// Fails unless the blow explains each reason why a request has failed.
pub(crate) fn excused(
    ended: &impl Ended,
    problems: &[Problem],
    strike: Option<&Strike>,
) -> Result<()> {
    let excuses = strike.map(|strike| strike.blow.excuses());
    let excuses = excuses.unwrap_or_default();
    let failed = find(ended.conditions(), ConditionType::Failed);
    let failed = failed.map_or("none", |condition| condition.reason.as_str());
    let mut reasons = vec![failed];
    if failed == Reason::Partial.as_str() {
        let errors = problems.iter().filter(|of| of.severity == Severity::Error);
        reasons = errors.map(|of| of.reason.as_str()).collect();
    }
    let excused = |reason: &&str| excuses.iter().any(|excuse| excuse.as_str() == *reason);
    ensure!(
        !reasons.is_empty() && reasons.iter().all(excused),
        "{reasons:?} do not follow from {strike:?}: {}; {problems:#?}",
        ended.verdict()
    );
    Ok(())
}

//! The volumes of a Restore: makes a VolumeRestore for each claim that asks for its data,
//! follows them, and says what became of them. Fills nothing itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use lifebuoy_api::{
    ClaimReference, ConditionType, FOR_LABEL, KeptSnapshot, MANAGED_BY, MANAGED_BY_LABEL, Reason,
    RestoreReference, RestoreVolumes, VolumeRestore, VolumeRestoreSpec, find, is_true,
};
use lifebuoy_engine::{
    archive::{Manifest, ObjectKey},
    restore::{
        Key, Plan,
        apply::RestoreProgress,
        report::{Report, VolumeEnd},
    },
    volumes::volume_restore_name,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::work::Work;
use crate::Error;

/// Requests at a time.
const PARALLEL: usize = 8;
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// How often the volumes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// So long after everything was written, a pod may take to be scheduled. A volume that
/// still waits for one then does not hold up the Restore.
const POD_WITHIN: Duration = Duration::from_secs(60);

/// How far a Restore is: its objects, and its volumes.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) objects: RestoreProgress,
    volumes: Mutex<Option<RestoreVolumes>>,
}

impl Progress {
    /// What is known of the volumes; none if there are none.
    pub(crate) fn volumes(&self) -> Option<RestoreVolumes> {
        self.volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, volumes: RestoreVolumes) {
        *self.volumes.lock().unwrap_or_else(PoisonError::into_inner) = Some(volumes);
    }
}

/// A claim that asks for its data, or whose volume is overwritten with it.
struct Asking {
    /// The claim in this cluster.
    target: Key,
    /// The VolumeRestore that it names, or that is for it.
    name: String,
    bytes: i64,
    in_place: bool,
}

/// The volumes of one Restore.
pub(super) struct Volumes<'a> {
    work: &'a Work,
    api: Api<VolumeRestore>,
    asking: Vec<Asking>,
}

impl<'a> Volumes<'a> {
    /// Makes a VolumeRestore for each claim of the plan that asks for its data, or whose volume
    /// is overwritten; those that are there already stay.
    ///
    /// # Errors
    /// When the API server fails, or one of the name is there and is another one.
    pub(super) async fn request(
        work: &'a Work,
        plan: &Plan,
        manifest: &Manifest,
    ) -> Result<Self, Error> {
        let uid = work.restore.uid().unwrap_or_default();
        let namespace = work.restore.namespace().unwrap_or_default();
        let api: Api<VolumeRestore> = Api::namespaced(work.context.client.clone(), &namespace);
        let mut asking = Vec::new();
        let mut wanted = Vec::new();
        let asked = plan.asking().map(|asked| (asked, false));
        let overwritten = plan.overwritten().map(|of| (of, true));
        for ((entry, bytes), in_place) in asked.chain(overwritten) {
            let name = volume_restore_name(&uid, &entry.target.to_object_key());
            let kept = kept(manifest, &entry.source.to_object_key());
            let of = (&entry.source, &entry.target);
            wanted.push(volume_restore(work, &name, of, kept, in_place));
            asking.push(Asking {
                in_place,
                target: entry.target.clone(),
                name,
                bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            });
        }
        stream::iter(wanted)
            .map(Ok)
            .try_for_each_concurrent(PARALLEL, |wanted| create(&api, wanted))
            .await?;
        Ok(Self { work, api, asking })
    }

    /// Waits until all volumes have ended that are overwritten: nothing else is written
    /// before, or it could start what is held for them. Gives what became of each.
    ///
    /// Cancelled, they end by themselves, and say whether they are whole; unless the operator
    /// itself ends.
    ///
    /// # Errors
    /// When the API server fails for good.
    pub(super) async fn overwrite(
        &self,
        progress: &Progress,
    ) -> Result<BTreeMap<Key, VolumeEnd>, Error> {
        let in_place = || self.asking.iter().map(|asking| asking.in_place);
        if !in_place().any(|in_place| in_place) {
            return Ok(BTreeMap::new());
        }
        let ending = &self.work.context.ending;
        loop {
            let looks = self.look(None).await?;
            progress.set(self.sum(&looks));
            let mut waited = looks.iter().zip(in_place());
            let is_open = waited.any(|(look, in_place)| in_place && look.state == State::Open);
            if !is_open || ending.is_cancelled() {
                let ended = self.asking.iter().zip(looks);
                return Ok(ended
                    .filter(|(asking, _)| asking.in_place)
                    .map(|(asking, look)| (asking.target.clone(), look.state.end_in_place()))
                    .collect());
            }
            tokio::select! {
                () = ending.cancelled() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Publishes how far the volumes are, until `stop`.
    pub(super) async fn watch(&self, progress: &Progress, stop: &CancellationToken) {
        if self.asking.is_empty() {
            return;
        }
        loop {
            match self.look(None).await {
                Ok(looks) => progress.set(self.sum(&looks)),
                Err(error) => tracing::warn!(%error, "cannot look at the volumes"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Waits until all volumes have ended, but for those that wait for a pod, and takes
    /// what became of them into the report.
    ///
    /// # Errors
    /// When the API server fails for good.
    pub(super) async fn settle(
        mut self,
        report: &mut Report,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        if self.asking.is_empty() {
            return Ok(());
        }
        let created: BTreeSet<Key> = report.created_claims().into_iter().collect();
        self.leave_others(report, &created).await?;
        let written = Instant::now();
        let looks = loop {
            let looks = self.look(Some(written.elapsed())).await?;
            progress.set(self.sum(&looks));
            let open = looks.iter().any(|look| matches!(look.state, State::Open));
            if !open || cancel.is_cancelled() {
                break looks;
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        };
        let ended: BTreeMap<Key, VolumeEnd> = self
            .asking
            .iter()
            .zip(looks)
            .filter(|(asking, _)| !asking.in_place)
            .map(|(asking, look)| (asking.target.clone(), look.state.end()))
            .collect();
        report.add_volumes(&ended);
        Ok(())
    }

    /// Claims that were not created by this Restore ask for nothing: nobody has to be
    /// there for them.
    async fn leave_others(
        &mut self,
        report: &mut Report,
        created: &BTreeSet<Key>,
    ) -> Result<(), Error> {
        let (asking, others): (Vec<Asking>, Vec<Asking>) = std::mem::take(&mut self.asking)
            .into_iter()
            .partition(|asking| asking.in_place || created.contains(&asking.target));
        self.asking = asking;
        let mut stay = BTreeMap::new();
        for other in others {
            match self.api.delete(&other.name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(Error::kube("delete a VolumeRestore", error)),
            }
            stay.insert(other.target, VolumeEnd::Filled);
        }
        report.add_volumes(&stay);
        Ok(())
    }

    /// What is known of each claim that asks, in their order. `written` is how long
    /// everything else is done.
    async fn look(&self, written: Option<Duration>) -> Result<Vec<Look>, Error> {
        let label = format!(
            "{FOR_LABEL}={}",
            self.work.restore.uid().unwrap_or_default()
        );
        let mut params = ListParams::default().labels(&label).limit(PAGE);
        let mut found: BTreeMap<String, VolumeRestore> = BTreeMap::new();
        loop {
            let page = self
                .api
                .list(&params)
                .await
                .map_err(|error| Error::kube("list VolumeRestores", error))?;
            found.extend(page.items.into_iter().map(|of| (of.name_any(), of)));
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params = params.continue_token(&token),
                _ => break,
            }
        }
        Ok(self
            .asking
            .iter()
            .map(|asking| look_at(found.get(&asking.name), written))
            .collect())
    }

    fn sum(&self, looks: &[Look]) -> RestoreVolumes {
        let mut sum = RestoreVolumes::default();
        for (asking, look) in self.asking.iter().zip(looks) {
            sum.total += 1;
            sum.bytes_total += asking.bytes;
            sum.bytes += look.bytes.min(asking.bytes);
            match look.state {
                State::Open => {}
                State::Waits => sum.waiting += 1,
                State::Filled => {
                    sum.done += 1;
                    sum.overwritten += i64::from(asking.in_place);
                }
                State::Failed(..) => sum.failed += 1,
            }
        }
        sum
    }
}

/// What is known of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    bytes: i64,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    Waits,
    Filled,
    Failed(Reason, String),
}

impl State {
    /// The same of a volume that was overwritten.
    fn end_in_place(self) -> VolumeEnd {
        match self {
            Self::Filled => VolumeEnd::Overwritten,
            other => other.end(),
        }
    }

    /// How it ended, when nobody waits for it any more.
    fn end(self) -> VolumeEnd {
        match self {
            Self::Open => VolumeEnd::Cancelled,
            Self::Waits => VolumeEnd::Waits,
            Self::Filled => VolumeEnd::Filled,
            Self::Failed(reason, message) => VolumeEnd::Failed(reason, message),
        }
    }
}

fn look_at(found: Option<&VolumeRestore>, written: Option<Duration>) -> Look {
    let Some(found) = found else {
        let text = "its VolumeRestore was deleted before it was filled";
        return Look {
            bytes: 0,
            state: State::Failed(Reason::VolumeNotFilled, text.to_owned()),
        };
    };
    let status = found.status.clone().unwrap_or_default();
    let of = |kind| find(&status.conditions, kind).filter(|condition| condition.status == "True");
    let over = of(ConditionType::Failed).or(of(ConditionType::Stalled));
    let state = if is_true(&status.conditions, ConditionType::Complete) {
        State::Filled
    } else if let Some(condition) = over {
        State::Failed(reason(&condition.reason), condition.message.clone())
    } else {
        let waits = of(ConditionType::Reconciling)
            .is_some_and(|condition| condition.reason == Reason::WaitingForPod.as_str());
        if waits && written.is_some_and(|written| written >= POD_WITHIN) {
            State::Waits
        } else {
            State::Open
        }
    };
    Look {
        bytes: status.progress.bytes,
        state,
    }
}

fn reason(text: &str) -> Reason {
    let known = Reason::ALL.iter().find(|reason| reason.as_str() == text);
    match known.copied() {
        // The Restore is not, or not yet, cancelled because a volume is; and what is
        // partial of a volume is a fault of the claim.
        None | Some(Reason::Cancelled | Reason::Partial) => Reason::VolumeNotFilled,
        Some(reason) => reason,
    }
}

/// The snapshot in the storage system that a claim's volume is made of, if it is of one.
fn kept(manifest: &Manifest, claim: &ObjectKey) -> Option<KeptSnapshot> {
    let mut saved = manifest.volumes_saved.iter();
    let record = saved.find(|record| record.claim == *claim)?;
    let kept = record.saved.kept()?;
    Some(KeptSnapshot {
        driver: kept.driver.clone(),
        handle: kept.handle.clone(),
        snapshot_class: kept.snapshot_class.clone(),
        restore_bytes: i64::try_from(kept.restore_bytes).unwrap_or(i64::MAX),
    })
}

/// `of` are the claim as it was captured, and the one in this cluster.
fn volume_restore(
    work: &Work,
    name: &str,
    of: (&Key, &Key),
    kept: Option<KeptSnapshot>,
    in_place: bool,
) -> VolumeRestore {
    let reference = |key: &Key| ClaimReference {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    };
    let uid = work.restore.uid().unwrap_or_default();
    let spec = VolumeRestoreSpec {
        repository: work.repository.clone(),
        snapshot: work.snapshot.to_string(),
        volume: reference(of.0),
        claim: reference(of.1),
        restore: RestoreReference {
            name: work.restore.name_any(),
            uid: uid.clone(),
        },
        kept,
        in_place,
    };
    let labels = [(MANAGED_BY_LABEL, MANAGED_BY.to_owned()), (FOR_LABEL, uid)];
    VolumeRestore {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: work.restore.namespace(),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

async fn create(api: &Api<VolumeRestore>, wanted: VolumeRestore) -> Result<(), Error> {
    let name = wanted.name_any();
    let failed = |error| Error::kube(format!("make the VolumeRestore {name}"), error);
    match api.create(&PostParams::default(), &wanted).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(failed(error)),
    }
    let there = api.get_opt(&name).await.map_err(failed)?;
    match there {
        Some(there) if there.spec != wanted.spec => Err(Error::Internal(format!(
            "a VolumeRestore named {name} is there, and is for something else: delete it"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use lifebuoy_api::{VolumeRestoreStatus, condition};
    use serde_json::json;

    use super::*;

    fn of(kind: ConditionType, reason: Reason) -> VolumeRestore {
        let mut request: VolumeRestore = serde_json::from_value(json!({
            "metadata": {"name": "data-1"},
            "spec": {"repository": "main", "snapshot": "0".repeat(32),
                "volume": {"namespace": "a", "name": "data"}, "claim": {"namespace": "b", "name": "data"},
                "restore": {"name": "x", "uid": "u"}},
        }))
        .unwrap();
        let now = DateTime::UNIX_EPOCH;
        request.status = Some(VolumeRestoreStatus {
            conditions: vec![condition(kind, true, reason, "why", None, now)],
            ..VolumeRestoreStatus::default()
        });
        request
    }

    #[test]
    fn a_volume_that_waits_for_a_pod_holds_nothing_up() {
        let waits = of(ConditionType::Reconciling, Reason::WaitingForPod);
        let state =
            |after: Option<u64>| look_at(Some(&waits), after.map(Duration::from_secs)).state;
        assert_eq!(state(None), State::Open);
        assert_eq!(state(Some(59)), State::Open);
        assert_eq!(state(Some(60)), State::Waits);
        let runs = of(ConditionType::Reconciling, Reason::InProgress);
        let long = Some(Duration::from_secs(600));
        assert_eq!(look_at(Some(&runs), long).state, State::Open);
    }

    #[test]
    fn what_became_of_a_volume_is_in_its_conditions() {
        let state = |request: Option<&VolumeRestore>| look_at(request, None).state;
        let complete = of(ConditionType::Complete, Reason::Succeeded);
        assert_eq!(state(Some(&complete)), State::Filled);
        let failed = |reason| State::Failed(reason, "why".to_owned());
        let gone = of(ConditionType::Failed, Reason::ClaimNotFound);
        assert_eq!(state(Some(&gone)), failed(Reason::ClaimNotFound));
        let partial = of(ConditionType::Failed, Reason::Partial);
        assert_eq!(state(Some(&partial)), failed(Reason::VolumeNotFilled));
        assert!(matches!(state(None), State::Failed(..)));
    }
}

//! What is done next about a VolumeRestore. Pure: tested with plain values.

use chrono::{DateTime, TimeDelta, Utc};
use kube::ResourceExt;
use lifebuoy_api::{KeptSnapshot, Reason, VolumeRestore, VolumeRestoreStatus};
use lifebuoy_engine::volumes::Size;

use super::{
    objects::{Between, Claim, Volume},
    observe::{Asker, Class, Seen, Source},
};
use crate::{
    status::{Standing, has_ended},
    tasks::TaskState,
};

/// How often filling is begun again that the operator did not survive.
pub(super) const ATTEMPTS_MAX: i64 = 20;
/// A storage class may come this much later than the claim that names it.
const CLASS_MAX: TimeDelta = TimeDelta::minutes(2);
/// For so long a claim is waited for before a mover is started all the same: some
/// volumes come only when a pod asks for them.
const BOUND_MAX: TimeDelta = TimeDelta::minutes(1);
/// For so long a volume of a snapshot in the storage system is waited for.
const MADE_MAX: TimeDelta = TimeDelta::minutes(10);

/// What is done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It has ended.
    Rest,
    /// It has ended, and is let go of: with the Restore it goes as well.
    Release,
    /// It says how it stands and waits.
    Stand(Standing),
    /// The claim between is made.
    Make,
    /// The claim between goes, and is made anew elsewhere: nothing was written yet.
    MakeAnew {
        /// The storage has no room on the node: another one has to be found.
        other_node: bool,
    },
    /// The volume is filled.
    Fill,
    /// The volume was made of a snapshot in the storage system: it is filled.
    Adopt,
    /// The task runs on.
    Follow,
    /// The task is told to stop.
    Stop,
    /// The task has ended.
    Finish,
    /// The filled volume becomes that of the claim.
    HandOver,
    /// What was made goes, the volume gets its own policy back, and all is done.
    Conclude,
    /// What was made goes, and it has failed.
    GiveUp(Standing),
    /// It is being deleted: what was made goes.
    Vanish,
}

/// Whether a VolumeRestore has ended.
pub(crate) fn ended(request: &VolumeRestore) -> bool {
    request
        .status
        .as_ref()
        .is_some_and(|status| has_ended(&status.conditions))
}

/// Whether one that has ended is yet to be let go of.
pub(super) fn is_let_go(request: &VolumeRestore, asker: Asker) -> bool {
    let held = !request.finalizers().is_empty();
    let alone = request.owner_references().is_empty();
    // One that has failed, and whose Restore is gone, is left for a person.
    let status = request.status.as_ref();
    let complete = status.is_some_and(|status| status.phase == "Complete");
    held || (alone && (complete || asker != Asker::Gone))
}

pub(crate) fn next(seen: &Seen) -> Step {
    let request = &seen.request;
    let status = request.status.clone().unwrap_or_default();
    if ended(request) {
        return if is_let_go(request, seen.asker) {
            Step::Release
        } else {
            Step::Rest
        };
    }
    match seen.task {
        TaskState::Done => return Step::Finish,
        TaskState::Running { stopping, .. } => {
            let stops = deleted(seen) || given_up(seen, &status).is_some() || misplaced(seen);
            return if stops && !stopping {
                Step::Stop
            } else {
                Step::Follow
            };
        }
        TaskState::None => {}
    }
    if deleted(seen) {
        return Step::Vanish;
    }
    if let Some(standing) = given_up(seen, &status) {
        return Step::GiveUp(standing);
    }
    match there(seen) {
        Some(claim) if claim.asks => of_claim(seen, &status, claim),
        _ => waiting(Reason::Waiting, "the claim is not there yet"),
    }
}

fn deleted(seen: &Seen) -> bool {
    seen.request.metadata.deletion_timestamp.is_some()
}

/// The claim, unless it is going.
fn there(seen: &Seen) -> Option<&Claim> {
    seen.claim.as_ref().filter(|claim| !claim.deleted)
}

fn waiting(reason: Reason, message: &str) -> Step {
    Step::Stand(Standing::Waiting(reason, message.to_owned()))
}

fn failed(reason: Reason, message: impl Into<String>) -> Standing {
    Standing::Failed(reason, message.into())
}

/// Why it cannot, or need not, go on.
fn given_up(seen: &Seen, status: &VolumeRestoreStatus) -> Option<Standing> {
    let known = status.claim_uid.as_deref();
    let filled = status.filled_time.is_some();
    if seen.asker == Asker::Cancelled && !filled {
        let text = "the Restore was cancelled; the claim stays empty and unbound: delete it";
        return Some(failed(Reason::Cancelled, text));
    }
    let claim = match there(seen) {
        None if known.is_some() => {
            return Some(failed(
                Reason::ClaimNotFound,
                "the claim was deleted before it was bound to the filled volume",
            ));
        }
        None if seen.asker == Asker::Works => return None,
        None => {
            let text = "the claim is not there, and its Restore does not make it any more";
            return Some(failed(Reason::ClaimNotFound, text));
        }
        Some(claim) => claim,
    };
    if known.is_some_and(|uid| uid != claim.uid) {
        let text = "the claim was deleted before it was bound to the filled volume";
        return Some(failed(Reason::ClaimNotFound, text));
    }
    if !claim.asks {
        return (seen.asker != Asker::Works).then(|| {
            let text = "the claim does not name this VolumeRestore in its `dataSourceRef`: it is left alone";
            failed(Reason::ClaimNotFound, text)
        });
    }
    bound_elsewhere(seen, status, claim)
}

fn bound_elsewhere(seen: &Seen, status: &VolumeRestoreStatus, claim: &Claim) -> Option<Standing> {
    let bound_to = claim.volume.as_deref()?;
    let ours = seen.volume.as_ref().map(|volume| volume.name.as_str());
    let known = status.volume_name.as_deref();
    if status.filled_time.is_some() && (ours == Some(bound_to) || known == Some(bound_to)) {
        return None;
    }
    Some(failed(
        Reason::ClaimBoundElsewhere,
        format!(
            "the claim was bound to the volume `{bound_to}` before its data was there: does its \
             provisioner know `dataSourceRef`? What is on that volume was not touched"
        ),
    ))
}

/// Whether the claim between is for another node than the claim, or has lost its node.
fn misplaced(seen: &Seen) -> bool {
    let (Some(claim), Some(between)) = (&seen.claim, &seen.between) else {
        return false;
    };
    seen.class == Class::FirstPod && between.volume.is_none() && between.node != claim.node
}

/// Whether there is something to lose.
fn has_volume(seen: &Seen) -> bool {
    let between = seen.between.as_ref();
    between.is_some_and(|between| between.volume.is_some())
}

fn of_claim(seen: &Seen, status: &VolumeRestoreStatus, claim: &Claim) -> Step {
    if status.filled_time.is_some() {
        return when_filled(seen, claim);
    }
    // Said before a pod waits for it.
    if let Some(source) = &seen.source
        && seen.class != Class::Missing
        && !has_volume(seen)
        && let Some(standing) = of_no_use(source, claim)
    {
        return Step::GiveUp(standing);
    }
    match seen.class {
        Class::FirstPod if claim.node.is_none() && !has_volume(seen) => {
            if let Some(between) = &seen.between
                && !between.deleted
            {
                return Step::MakeAnew { other_node: false };
            }
            return waiting(
                Reason::WaitingForPod,
                "its storage class waits for the first pod that mounts it",
            );
        }
        Class::Missing if older(claim.made, CLASS_MAX, seen.now) => {
            let class = claim.class.as_deref().unwrap_or_default();
            return Step::GiveUp(failed(
                Reason::DependencyNotReady,
                format!(
                    "there is no storage class `{class}`: delete the claim, and restore it with `mapping.storageClasses`"
                ),
            ));
        }
        Class::Missing => {
            return waiting(Reason::DependencyNotReady, "its storage class is not there");
        }
        _ => {}
    }
    match &seen.between {
        None => Step::Make,
        Some(between) if between.deleted => waiting(
            Reason::Waiting,
            "the claim between is going, and is made anew",
        ),
        Some(_) if misplaced(seen) => Step::MakeAnew {
            other_node: seen
                .between
                .as_ref()
                .is_some_and(|between| between.node.is_none()),
        },
        Some(between) => with_between(seen, status, between),
    }
}

/// Why nothing can be made of a snapshot in the storage system for this claim.
fn of_no_use(source: &Source, claim: &Claim) -> Option<Standing> {
    let Source {
        kept,
        provisioner,
        class,
        ..
    } = source;
    let (driver, handle) = (&kept.driver, &kept.handle);
    let own = claim.class.as_deref().unwrap_or_default();
    if provisioner.as_ref() != Some(driver) {
        return Some(failed(
            Reason::VolumeDoesNotFit,
            format!(
                "its data is the snapshot `{handle}` of the driver `{driver}`, and the storage \
                 class `{own}` is not of this driver: delete the claim, and restore it with \
                 `mapping.storageClasses`, in a cluster that this storage serves"
            ),
        ));
    }
    if let Err(why) = class {
        return Some(failed(
            Reason::DependencyNotReady,
            format!(
                "its data is the snapshot `{handle}` of the driver `{driver}`, and {why}: delete \
                 the claim, make a class, and restore it again"
            ),
        ));
    }
    let asked = claim.bytes().filter(|asked| *asked < kept.restore_bytes)?;
    let size = |bytes: i64| Size(u64::try_from(bytes).unwrap_or(0));
    Some(failed(
        Reason::VolumeDoesNotFit,
        format!(
            "it asks for {}, and a volume of the snapshot `{handle}` of the driver `{driver}` has \
             at least {}: delete the claim, and restore it with more",
            size(asked),
            size(kept.restore_bytes)
        ),
    ))
}

/// A volume that the storage makes of a snapshot.
fn of_snapshot(seen: &Seen, source: &Source, between: &Between) -> Step {
    if between.bound {
        return Step::Adopt;
    }
    if !older(between.made, MADE_MAX, seen.now) {
        return waiting(
            Reason::InProgress,
            "its volume is being made of a snapshot in the storage system",
        );
    }
    let KeptSnapshot { driver, handle, .. } = &source.kept;
    let said = source.trouble.as_deref();
    Step::GiveUp(failed(
        Reason::VolumeNotFilled,
        format!(
            "the driver `{driver}` has made no volume of the snapshot `{handle}` within {} \
             minutes: {}. Is the driver installed here, and is the snapshot still in its storage \
             system? The claim stays unbound: delete it, and restore it again, or from another \
             recovery point",
            MADE_MAX.num_minutes(),
            said.unwrap_or("it does not say why")
        ),
    ))
}

fn with_between(seen: &Seen, status: &VolumeRestoreStatus, between: &Between) -> Step {
    if let Some(source) = &seen.source {
        return of_snapshot(seen, source, between);
    }
    if !between.bound && !older(between.made, BOUND_MAX, seen.now) {
        return waiting(Reason::InProgress, "its volume is being made");
    }
    if status.attempts >= ATTEMPTS_MAX {
        return Step::GiveUp(failed(
            Reason::Interrupted,
            format!("the operator was stopped {ATTEMPTS_MAX} times while it was filled"),
        ));
    }
    Step::Fill
}

fn when_filled(seen: &Seen, claim: &Claim) -> Step {
    let Some(volume) = &seen.volume else {
        return Step::GiveUp(lost("is not there any more"));
    };
    if volume.deleted {
        return Step::GiveUp(lost("was deleted"));
    }
    if volume.owner.as_deref() == Some(&claim.uid) {
        let bound = claim.bound && claim.volume.as_deref() == Some(&volume.name);
        return if bound {
            Step::Conclude
        } else {
            waiting(Reason::InProgress, "the filled volume is being bound")
        };
    }
    match &seen.between {
        Some(between) if is_of(volume, between) => Step::HandOver,
        _ => Step::GiveUp(lost("belongs to another claim")),
    }
}

fn is_of(volume: &Volume, between: &Between) -> bool {
    volume.owner.as_deref() == Some(&between.uid)
}

fn lost(what: &str) -> Standing {
    failed(
        Reason::VolumeNotFilled,
        format!("the volume that was filled {what}: delete the claim, and restore it again"),
    )
}

fn older(made: Option<DateTime<Utc>>, than: TimeDelta, now: DateTime<Utc>) -> bool {
    made.is_some_and(|made| now - made > than)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lifebuoy_api::{ConditionType, condition, time::to_kube};
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn claim() -> Claim {
        Claim {
            uid: "c".into(),
            asks: true,
            deleted: false,
            made: Some(at(0)),
            node: None,
            class: Some("fast".into()),
            volume: None,
            bound: false,
            object: Default::default(),
        }
    }

    fn between() -> Between {
        Between {
            uid: "b".into(),
            deleted: false,
            made: Some(at(0)),
            node: None,
            volume: Some("pv".into()),
            bound: true,
        }
    }

    fn volume(owner: &str) -> Volume {
        Volume {
            name: "pv".into(),
            version: Some("7".into()),
            deleted: false,
            owner: Some(owner.into()),
            policy: Some("Delete".into()),
            own_policy: None,
            made_for: None,
            access_modes: Vec::new(),
        }
    }

    fn seen(change: impl FnOnce(&mut Seen, &mut VolumeRestoreStatus)) -> Seen {
        let request: VolumeRestore = serde_json::from_value(json!({
            "metadata": {"name": "data-1", "namespace": "lifebuoy", "uid": "r"},
            "spec": {"repository": "main", "snapshot": "0".repeat(32),
                "volume": {"namespace": "a", "name": "data"}, "claim": {"namespace": "b", "name": "data"},
                "restore": {"name": "x", "uid": "u"}},
        }))
        .unwrap();
        let mut seen = Seen {
            request,
            task: TaskState::None,
            asker: Asker::Works,
            claim: Some(claim()),
            class: Class::Immediate,
            between: None,
            volume: None,
            source: None,
            now: at(10),
        };
        let mut status = VolumeRestoreStatus::default();
        change(&mut seen, &mut status);
        seen.request.status = Some(status);
        seen
    }

    fn told(step: &Step) -> String {
        match step {
            Step::Stand(Standing::Waiting(reason, _)) => format!("wait {reason}"),
            Step::GiveUp(Standing::Failed(reason, _)) => format!("give up {reason}"),
            other => format!("{other:?}"),
        }
    }

    fn filled(status: &mut VolumeRestoreStatus) {
        status.claim_uid = Some("c".into());
        status.volume_name = Some("pv".into());
        status.filled_time = Some(to_kube(at(5)));
    }

    fn first_pod(seen: &mut Seen, node: Option<&str>) {
        seen.class = Class::FirstPod;
        seen.claim.as_mut().unwrap().node = node.map(str::to_owned);
    }

    type Change = fn(&mut Seen, &mut VolumeRestoreStatus);

    #[track_caller]
    fn check(cases: &[(&str, Change, &str)]) {
        for (name, change, expected) in cases {
            assert_eq!(told(&next(&seen(change))), *expected, "{name}");
        }
    }

    #[test]
    fn a_volume_is_made_filled_handed_over_and_let_go() {
        check(&[
            ("no claim yet", |s, _| s.claim = None, "wait Waiting"),
            ("immediate", |_, _| {}, "Make"),
            (
                "the first pod",
                |s, _| first_pod(s, None),
                "wait WaitingForPod",
            ),
            ("its node is known", |s, _| first_pod(s, Some("n")), "Make"),
            (
                "being made",
                |s, _| {
                    s.between = Some(Between {
                        bound: false,
                        volume: None,
                        ..between()
                    });
                },
                "wait InProgress",
            ),
            (
                "comes only for a pod",
                |s, _| {
                    s.between = Some(Between {
                        bound: false,
                        volume: None,
                        ..between()
                    });
                    s.now = at(100);
                },
                "Fill",
            ),
            ("bound", |s, _| s.between = Some(between()), "Fill"),
            (
                "filled",
                |s, status| {
                    filled(status);
                    s.between = Some(between());
                    s.volume = Some(volume("b"));
                },
                "HandOver",
            ),
            (
                "handed over",
                |s, status| {
                    filled(status);
                    s.between = Some(between());
                    s.volume = Some(volume("c"));
                },
                "wait InProgress",
            ),
            (
                "bound to the claim",
                |s, status| {
                    filled(status);
                    s.volume = Some(volume("c"));
                    let claim = s.claim.as_mut().unwrap();
                    (claim.volume, claim.bound) = (Some("pv".into()), true);
                },
                "Conclude",
            ),
        ]);
    }

    #[test]
    fn what_cannot_end_well_ends() {
        check(&[
            (
                "cancelled",
                |s, _| s.asker = Asker::Cancelled,
                "give up Cancelled",
            ),
            (
                "cancelled when it was filled",
                |s, status| {
                    filled(status);
                    s.asker = Asker::Cancelled;
                    s.between = Some(between());
                    s.volume = Some(volume("b"));
                },
                "HandOver",
            ),
            (
                "the claim was deleted",
                |s, status| {
                    status.claim_uid = Some("c".into());
                    s.claim = None;
                },
                "give up ClaimNotFound",
            ),
            (
                "another claim of its name",
                |s, status| {
                    filled(status);
                    s.claim.as_mut().unwrap().uid = "d".into();
                },
                "give up ClaimNotFound",
            ),
            (
                "never made",
                |s, _| {
                    s.claim = None;
                    s.asker = Asker::Ended;
                },
                "give up ClaimNotFound",
            ),
            (
                "it asks another one, which may change",
                |s, _| s.claim.as_mut().unwrap().asks = false,
                "wait Waiting",
            ),
            (
                "it asks another one",
                |s, _| {
                    s.claim.as_mut().unwrap().asks = false;
                    s.asker = Asker::Gone;
                },
                "give up ClaimNotFound",
            ),
            (
                "bound to an empty volume",
                |s, _| s.claim.as_mut().unwrap().volume = Some("empty".into()),
                "give up ClaimBoundElsewhere",
            ),
            (
                "no class for long",
                |s, _| {
                    s.class = Class::Missing;
                    s.now = at(200);
                },
                "give up DependencyNotReady",
            ),
            (
                "too often",
                |s, status| {
                    s.between = Some(between());
                    status.attempts = ATTEMPTS_MAX;
                },
                "give up Interrupted",
            ),
            (
                "somebody has deleted the volume",
                |_, status| filled(status),
                "give up VolumeNotFilled",
            ),
            (
                "somebody has taken the volume",
                |s, status| {
                    filled(status);
                    s.volume = Some(volume("x"));
                },
                "give up VolumeNotFilled",
            ),
        ]);
    }

    fn source(seen: &mut Seen, change: fn(&mut Source)) {
        let mut source = Source {
            kept: KeptSnapshot {
                driver: "d".into(),
                handle: "h".into(),
                snapshot_class: "snap".into(),
                restore_bytes: 2 << 30,
            },
            provisioner: Some("d".into()),
            class: Ok("snap".into()),
            trouble: None,
        };
        change(&mut source);
        seen.source = Some(source);
    }

    fn unbound_between(seen: &mut Seen) {
        seen.between = Some(Between {
            bound: false,
            volume: None,
            ..between()
        });
    }

    #[test]
    fn a_volume_of_a_snapshot_is_made_by_the_storage_alone() {
        check(&[
            ("immediate", |s, _| source(s, |_| {}), "Make"),
            (
                "the first pod",
                |s, _| {
                    source(s, |_| {});
                    first_pod(s, None);
                },
                "wait WaitingForPod",
            ),
            (
                "being made",
                |s, _| {
                    source(s, |_| {});
                    unbound_between(s);
                    s.now = at(100);
                },
                "wait InProgress",
            ),
            (
                "made",
                |s, _| {
                    source(s, |_| {});
                    s.between = Some(between());
                },
                "Adopt",
            ),
            (
                "adopted",
                |s, status| {
                    source(s, |_| {});
                    filled(status);
                    s.between = Some(between());
                    s.volume = Some(volume("b"));
                },
                "HandOver",
            ),
            (
                "the snapshot never gets ready",
                |s, _| {
                    source(s, |of| of.trouble = Some("can not find snapshot".into()));
                    unbound_between(s);
                    s.now = at(700);
                },
                "give up VolumeNotFilled",
            ),
            (
                "a class of another driver",
                |s, _| source(s, |of| of.provisioner = Some("other".into())),
                "give up VolumeDoesNotFit",
            ),
            (
                "a class of another driver, before any pod",
                |s, _| {
                    source(s, |of| of.provisioner = Some("other".into()));
                    first_pod(s, None);
                },
                "give up VolumeDoesNotFit",
            ),
            (
                "no class",
                |s, _| {
                    source(s, |of| of.provisioner = None);
                    s.class = Class::None;
                },
                "give up VolumeDoesNotFit",
            ),
            (
                "no class of snapshots",
                |s, _| source(s, |of| of.class = Err("there is none".into())),
                "give up DependencyNotReady",
            ),
            (
                "too small",
                |s, _| {
                    source(s, |_| {});
                    s.claim.as_mut().unwrap().object = serde_json::from_value(json!({
                        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
                    }))
                    .unwrap();
                },
                "give up VolumeDoesNotFit",
            ),
        ]);
    }

    #[test]
    fn what_the_storage_cannot_do_is_said_with_driver_and_handle() {
        let never = next(&seen(|s, _| {
            source(s, |of| of.trouble = Some("can not find snapshot".into()));
            unbound_between(s);
            s.now = at(700);
        }));
        let Step::GiveUp(Standing::Failed(_, text)) = never else {
            panic!("{never:?}");
        };
        for part in ["`d`", "`h`", "can not find snapshot", "10 minutes"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn what_is_made_on_another_node_is_made_anew() {
        fn unbound(node: Option<&str>) -> Between {
            Between {
                node: node.map(str::to_owned),
                bound: false,
                volume: None,
                ..between()
            }
        }
        check(&[
            (
                "the scheduler took another node",
                |s, _| {
                    first_pod(s, Some("n2"));
                    s.between = Some(unbound(Some("n1")));
                },
                "MakeAnew { other_node: false }",
            ),
            (
                "no room on the node",
                |s, _| {
                    first_pod(s, Some("n1"));
                    s.between = Some(unbound(None));
                },
                "MakeAnew { other_node: true }",
            ),
            (
                "while the mover waits",
                |s, _| {
                    first_pod(s, Some("n2"));
                    s.between = Some(unbound(Some("n1")));
                    s.task = TaskState::Running {
                        running: Duration::ZERO,
                        stopping: false,
                    };
                },
                "Stop",
            ),
            (
                "the scheduler takes its word back",
                |s, _| {
                    first_pod(s, None);
                    s.between = Some(unbound(Some("n1")));
                },
                "MakeAnew { other_node: false }",
            ),
            (
                "the scheduler takes its word back too late",
                |s, _| {
                    first_pod(s, None);
                    s.between = Some(between());
                },
                "Fill",
            ),
            (
                "a volume that is there stays where it is",
                |s, _| {
                    first_pod(s, Some("n2"));
                    s.between = Some(between());
                },
                "Fill",
            ),
        ]);
    }

    #[test]
    fn what_has_ended_is_let_go_with_its_restore() {
        fn over(s: &mut Seen, status: &mut VolumeRestoreStatus, phase: &str) {
            status.phase = phase.into();
            status.conditions = vec![condition(
                ConditionType::Failed,
                true,
                Reason::Cancelled,
                "",
                None,
                at(0),
            )];
            s.asker = Asker::Gone;
        }
        check(&[
            (
                "complete",
                |s, status| over(s, status, "Complete"),
                "Release",
            ),
            ("failed", |s, status| over(s, status, "Failed"), "Rest"),
            (
                "failed with a finalizer",
                |s, status| {
                    over(s, status, "Failed");
                    s.request.metadata.finalizers = Some(vec!["x".into()]);
                },
                "Release",
            ),
            (
                "deleted on the way",
                |s, _| s.request.metadata.deletion_timestamp = Some(to_kube(at(0))),
                "Vanish",
            ),
        ]);
    }
}

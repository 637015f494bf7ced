//! Whether the volume of a claim that exists is overwritten with what was saved of it.

use lifebuoy_api::{ExistingPolicy, Reason};

use super::refuse;
use crate::archive::TypeRecord;
use crate::restore::survey::{Candidate, Survey};
use crate::restore::{Action, ExistingClaim, Target};
use crate::volumes::{Size, VolumeRecord};

/// What happens to the claim, where its volume is asked to be overwritten; nothing of the
/// kind where it does not exist, is this restore's own, or must not exist.
pub(super) fn action(
    survey: &Survey,
    target: &Target,
    t: &TypeRecord,
    candidate: &Candidate,
) -> Option<Action> {
    let record = record(survey, t, candidate)?;
    let id = t.id();
    if let Some(why) = target.unreadable.get(&id) {
        return Some(refuse(
            Reason::TypeUnavailable,
            format!(
                "it is not known whether it exists, since {id} cannot be listed in the target: {why}"
            ),
        ));
    }
    let existing = target.existing.get(&id, &candidate.target)?;
    if existing.ours || candidate.policy == ExistingPolicy::Fail {
        return None;
    }
    Some(match unfit(target.claims.get(&candidate.target), record) {
        Some((reason, why)) => refuse(
            reason,
            format!("its volume cannot be overwritten, and was not touched: {why}"),
        ),
        None => Action::Overwrite,
    })
}

/// What was saved of a claim.
pub(super) fn record<'a>(
    survey: &'a Survey,
    t: &TypeRecord,
    candidate: &Candidate,
) -> Option<&'a VolumeRecord> {
    survey.context.data_of(t, &candidate.source.to_object_key())
}

/// What a person has to know before.
pub(super) fn note(target: &Target, candidate: &Candidate, record: &VolumeRecord) -> Box<str> {
    let claim = target.claims.get(&candidate.target);
    let volume = claim.and_then(|claim| claim.volume.as_deref());
    let problems = record.saved.data().map_or(0, |data| data.problems);
    let missing = match problems {
        0 => String::new(),
        problems => format!("; {problems} things on it could not be saved, and will be missing"),
    };
    format!(
        "EVERYTHING ON THE VOLUME `{}` IS REPLACED by the saved data ({}); what mounts it is stopped meanwhile{missing}",
        volume.unwrap_or_default(),
        Size(record.saved.bytes())
    )
    .into()
}

/// Why the volume of a claim cannot take the data.
fn unfit(claim: Option<&ExistingClaim>, record: &VolumeRecord) -> Option<(Reason, String)> {
    let Some(claim) = claim else {
        let why = "it came or went while the plan was made; make another plan";
        return Some((Reason::DependencyNotReady, why.to_owned()));
    };
    if let Some(kept) = record.saved.kept() {
        let why = format!(
            "its data is {kept}, which makes new volumes and overwrites none; delete the claim \
             first, or map its namespace to another one"
        );
        return Some((Reason::VolumeDoesNotFit, why));
    }
    let not_ready = |why: &str| Some((Reason::DependencyNotReady, why.to_owned()));
    if claim.terminating {
        return not_ready("the claim is being deleted; wait until it is gone, and restore then");
    }
    if claim.of_pod {
        return not_ready("the claim belongs to a pod, and would go with it when that is stopped");
    }
    if claim.volume.is_none() {
        return not_ready(
            "the claim is not bound to a volume; delete it, and it is made anew and filled",
        );
    }
    if claim.mode != record.volume_mode {
        let (saved, has) = (record.volume_mode.as_str(), claim.mode.as_str());
        return Some((
            Reason::VolumeDoesNotFit,
            format!("`volumeMode: {saved}` was saved, and it has `volumeMode: {has}`"),
        ));
    }
    let (has, needs) = (claim.capacity_bytes?, record.needs_bytes());
    (has < needs).then(|| {
        let why = format!(
            "it has {}, and {} were saved; expand it first",
            Size(has),
            Size(needs)
        );
        (Reason::VolumeDoesNotFit, why)
    })
}

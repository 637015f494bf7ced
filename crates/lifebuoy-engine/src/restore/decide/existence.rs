//! What the target holds already: namespaces, objects, storage classes.

use std::collections::BTreeSet;

use lifebuoy_api::{ExistingPolicy, Problem, Reason};

use super::refuse;
use crate::archive::TypeRecord;
use crate::restore::survey::{Candidate, Survey};
use crate::restore::{Action, NamespacePhase, Target};

pub(super) fn open_namespaces(target: &Target) -> BTreeSet<String> {
    target
        .namespaces
        .iter()
        .filter(|(_, phase)| **phase == NamespacePhase::Active)
        .map(|(name, _)| name.clone())
        .collect()
}

pub(super) fn is_terminating(target: &Target, namespace: &str) -> bool {
    target.namespaces.get(namespace) == Some(&NamespacePhase::Terminating)
}

/// What happens because the object exists, or may exist.
pub(super) fn action(target: &Target, t: &TypeRecord, candidate: &Candidate) -> Option<Action> {
    let id = t.id();
    if let Some(why) = target.unreadable.get(&id) {
        // With Skip, an object that turns out to exist is left alone.
        return (candidate.policy != ExistingPolicy::Skip).then(|| {
            refuse(
                Reason::TypeUnavailable,
                format!("it is not known whether it exists, since {id} cannot be listed in the target: {why}"),
            )
        });
    }
    let existing = target.existing.get(&id, &candidate.target)?;
    if existing.ours {
        return Some(Action::Resume);
    }
    Some(match candidate.policy {
        ExistingPolicy::Skip => Action::SkipExisting,
        ExistingPolicy::Merge => Action::Merge,
        ExistingPolicy::Replace => Action::Replace,
        ExistingPolicy::Fail => refuse(
            Reason::ExistingObject,
            "it exists in the target, and `existing` says Fail",
        ),
    })
}

/// What a person should know about the target.
pub(super) fn problems(survey: &Survey, target: &Target) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (id, why) in &target.unreadable {
        problems.push(Problem::warning(
            Reason::TypeUnavailable,
            id.to_string(),
            &format!("they cannot be listed in the target, so it is not known which exist: {why}"),
        ));
    }
    let restored: BTreeSet<&str> = survey
        .candidates
        .iter()
        .filter(|candidate| survey.types[candidate.kind as usize].kind == "StorageClass")
        .map(|candidate| &*candidate.target.name)
        .collect();
    let Some(classes) = &target.storage_classes else {
        return problems;
    };
    for (class, claim) in &survey.storage_classes {
        if !classes.contains(class) && !restored.contains(class.as_str()) {
            problems.push(Problem::warning(
                Reason::DependencyNotReady,
                claim.clone(),
                &format!("the target has no storage class `{class}`: map it with `mapping.storageClasses`, or create it"),
            ));
        }
    }
    problems
}

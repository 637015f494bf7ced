//! Owners before what they own.

use std::collections::HashMap;

use super::base_wave;
use crate::restore::Action;
use crate::restore::survey::{Candidate, Survey, Uid};

/// Where a candidate stands among all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Its wave: its own, or that of its owner if that is later.
    pub(super) wave: u8,
    /// How many owners of the same wave must come before it, one after another.
    pub(super) depth: u32,
}

/// The edges between candidates, by their indexes.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// The owners of those that have some.
    pub(super) needs: HashMap<u32, Vec<u32>>,
    /// What there is to say about references that are dropped.
    pub(super) notes: HashMap<u32, Vec<Box<str>>>,
    /// One place a candidate.
    pub(super) places: Vec<Place>,
}

/// Finds the owners of all candidates.
pub(super) fn link(survey: &Survey, actions: &[Action]) -> Links {
    let mut links = Links::default();
    let owned: Vec<u32> = indexes(survey)
        .filter(|(_, candidate)| !candidate.owners.is_empty())
        .map(|(at, _)| at)
        .collect();
    if !owned.is_empty() {
        let by_uid: HashMap<Uid, u32> = indexes(survey)
            .filter(|(_, candidate)| candidate.uid.is_known())
            .map(|(at, candidate)| (candidate.uid, at))
            .collect();
        for at in owned {
            find_owners(survey, actions, &by_uid, at, &mut links);
        }
    }
    place(survey, &mut links);
    links
}

fn indexes(survey: &Survey) -> impl Iterator<Item = (u32, &Candidate)> {
    (0u32..).zip(&survey.candidates)
}

fn find_owners(
    survey: &Survey,
    actions: &[Action],
    by_uid: &HashMap<Uid, u32>,
    at: u32,
    links: &mut Links,
) {
    let candidate = &survey.candidates[at as usize];
    for owner in &candidate.owners {
        let found = by_uid.get(&owner.uid).copied().filter(|found| *found != at);
        let dropped = match found {
            None => Some("is not restored"),
            Some(found) => unusable(survey, actions, candidate, found),
        };
        match (found, dropped) {
            (Some(found), None) => links.needs.entry(at).or_default().push(found),
            (_, why) => links.notes.entry(at).or_default().push(
                format!(
                    "its owner {} {}: the reference is dropped",
                    owner.label,
                    why.unwrap_or_default()
                )
                .into(),
            ),
        }
    }
}

/// Why an owner that is in the plan cannot be one in the target.
fn unusable(
    survey: &Survey,
    actions: &[Action],
    candidate: &Candidate,
    owner: u32,
) -> Option<&'static str> {
    let owner_of = &survey.candidates[owner as usize];
    match &actions[owner as usize] {
        Action::Refuse { .. } => return Some("is refused"),
        Action::Withhold { .. } => return Some("is withheld"),
        _ => {}
    }
    let namespaced = survey.types[owner_of.kind as usize].namespaced;
    (namespaced && owner_of.target.namespace != candidate.target.namespace)
        .then_some("is in another namespace")
}

/// Gives every candidate its place. References in a circle are dropped.
fn place(survey: &Survey, links: &mut Links) {
    links.places = survey
        .candidates
        .iter()
        .map(|candidate| Place {
            wave: base_wave(&survey.types[candidate.kind as usize], candidate),
            depth: 0,
        })
        .collect();
    let mut owned_by: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut open: HashMap<u32, usize> = HashMap::new();
    for (at, owners) in &links.needs {
        open.insert(*at, owners.len());
        for owner in owners {
            owned_by.entry(*owner).or_default().push(*at);
        }
    }
    let mut ready: Vec<u32> = owned_by
        .keys()
        .copied()
        .filter(|owner| !open.contains_key(owner))
        .collect();
    while let Some(owner) = ready.pop() {
        let above = links.places[owner as usize];
        for at in owned_by.get(&owner).into_iter().flatten() {
            let place = &mut links.places[*at as usize];
            *place = below(*place, above);
            if let Some(left) = open.get_mut(at) {
                *left -= 1;
                if *left == 0 {
                    open.remove(at);
                    ready.push(*at);
                }
            }
        }
    }
    for at in open.into_keys() {
        links.needs.remove(&at);
        links
            .notes
            .entry(at)
            .or_default()
            .push("its owners own each other in a circle: the references are dropped".into());
    }
}

/// The place of what stands below this owner.
fn below(place: Place, owner: Place) -> Place {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match place.wave.cmp(&owner.wave) {
        Less => Place {
            wave: owner.wave,
            depth: owner.depth + 1,
        },
        Equal => Place {
            wave: place.wave,
            depth: place.depth.max(owner.depth + 1),
        },
        Greater => place,
    }
}

//! Objects that would get the same name in the target.

use std::collections::HashMap;

use lifebuoy_api::{Problem, Reason};

use crate::restore::prepare::is_namespace;
use crate::restore::survey::Survey;
use crate::restore::{Action, Key};

/// The groups of candidates that would become one object.
pub(super) struct Collisions {
    groups: Vec<Vec<u32>>,
    group_of: HashMap<u32, usize>,
}

impl Collisions {
    pub(super) fn find(survey: &Survey) -> Self {
        let mut by_target: HashMap<(u32, &Key), u32> = HashMap::new();
        let mut collisions = Self {
            groups: Vec::new(),
            group_of: HashMap::new(),
        };
        for (at, candidate) in survey.candidates.iter().enumerate() {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            if candidate.broken.is_some() {
                continue;
            }
            let first = *by_target
                .entry((candidate.kind, &candidate.target))
                .or_insert(at);
            if first != at {
                collisions.add(first, at);
            }
        }
        collisions
    }

    fn add(&mut self, first: u32, at: u32) {
        let group = *self.group_of.entry(first).or_insert_with(|| {
            self.groups.push(vec![first]);
            self.groups.len() - 1
        });
        self.groups[group].push(at);
        self.group_of.insert(at, group);
    }

    /// What happens to a candidate because it collides with others.
    pub(super) fn action(&self, survey: &Survey, at: usize) -> Option<Action> {
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        let group = &self.groups[*self.group_of.get(&at)?];
        let candidate = &survey.candidates[at as usize];
        if may_merge(survey, group) {
            // Several namespaces become one: the first makes it.
            return (group[0] != at).then_some(Action::SkipExisting);
        }
        let other = group
            .iter()
            .find(|other| **other != at)
            .copied()
            .unwrap_or(at);
        let more = match group.len() {
            0..=2 => String::new(),
            members => format!(" and {} more", members - 2),
        };
        Some(Action::Refuse {
            reason: Reason::MappingCollision,
            message: format!(
                "`{}`{more} would become `{}` as well: change the mapping or a transform so that they differ",
                survey.candidates[other as usize].source, candidate.target
            )
            .into(),
        })
    }

    /// One problem a collision, in the order of the objects.
    pub(super) fn problems<'a>(&'a self, survey: &'a Survey) -> impl Iterator<Item = Problem> + 'a {
        self.groups.iter().map(|group| {
            let first = &survey.candidates[group[0] as usize];
            let id = survey.types[first.kind as usize].id();
            let sources: Vec<String> = group
                .iter()
                .take(3)
                .map(|at| survey.candidates[*at as usize].source.to_string())
                .collect();
            let sources = sources.join(", ");
            let subject = format!("{id} {}", first.target);
            if may_merge(survey, group) {
                Problem::warning(
                    Reason::MappingCollision,
                    subject,
                    &format!("{sources} become one; labels and annotations are those of {}", first.source),
                )
            } else {
                Problem::error(
                    Reason::MappingCollision,
                    subject,
                    &format!("{sources} would become the same object, and none of them is restored: change the mapping or a transform"),
                )
            }
        })
    }
}

/// Whether the first of the group can stand for all: Namespaces, whose contents
/// collide one by one, and the account `default`, which each of them has.
fn may_merge(survey: &Survey, group: &[u32]) -> bool {
    let first = &survey.candidates[group[0] as usize];
    let t = &survey.types[first.kind as usize];
    let equal = || {
        group
            .iter()
            .all(|at| survey.candidates[*at as usize].hash == first.hash)
    };
    let default_account =
        t.group.is_empty() && t.kind == "ServiceAccount" && *first.target.name == *"default";
    is_namespace(t) || (default_account && equal())
}

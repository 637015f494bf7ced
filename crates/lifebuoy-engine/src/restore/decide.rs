//! From what was surveyed and what the target holds to a plan. Pure: plain
//! values in, a [`Plan`] out.

mod collisions;
mod existence;
mod ordering;
mod overwrite;
mod owners;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lifebuoy_api::{Problem, Reason, RestoreVolumePolicy};

use super::mounts::Claims;
use super::order::{SERVING_WAVE, wave};
use super::plan::PLAN_VERSION;
use super::prepare::{is_claim, is_namespace};
use super::survey::{Candidate, Survey};
use super::versions::{Choice, choose};
use super::{Action, Entry, Key, Plan, PlanDigest, PlannedType, Rules, Target};
use crate::archive::{TypeId, TypeRecord};
use crate::volumes::Size;
use collisions::Collisions;

/// At most this many collisions are problems of their own; each colliding object
/// is refused anyway.
const MAX_COLLISION_PROBLEMS: usize = 20;

impl Survey {
    /// Decides what happens to every object.
    pub fn decide(mut self, rules: &Rules, target: &Target) -> Plan {
        let mut deciding = Deciding::new(&self, rules, target);
        let actions = deciding.actions();
        let mut problems = self.problems.clone();
        problems.append(&mut deciding.problems());
        let choices = deciding.choices;
        let links = owners::link(&self, &actions);
        self.note_overwritten(&actions, target);
        self.assemble(&choices, actions, links, problems)
    }

    /// Of a claim whose volume is overwritten, nothing matters that was found out about
    /// making it anew.
    fn note_overwritten(&mut self, actions: &[Action], target: &Target) {
        for (at, _) in actions
            .iter()
            .enumerate()
            .filter(|(_, action)| **action == Action::Overwrite)
        {
            let candidate = &self.candidates[at];
            let t = &self.types[candidate.kind as usize];
            let Some(record) = overwrite::record(self, t, candidate) else {
                continue;
            };
            let fills = record.saved.bytes();
            let notes = vec![overwrite::note(target, candidate, record)];
            let candidate = &mut self.candidates[at];
            (candidate.fills, candidate.notes) = (Some(fills), notes);
        }
    }

    fn assemble(
        self,
        choices: &[Choice],
        actions: Vec<Action>,
        links: owners::Links,
        problems: Vec<Problem>,
    ) -> Plan {
        let order = ordering::order(&self, &links);
        let (types, index_of) = self.planned_types(choices);
        let mut position = vec![0u32; order.len()];
        for (new, old) in (0u32..).zip(order) {
            position[old as usize] = new;
        }
        let owners::Links {
            needs,
            mut notes,
            places,
        } = links;
        let mut entries: Vec<Entry> = Vec::with_capacity(position.len());
        for (at, (candidate, action)) in (0u32..).zip(self.candidates.into_iter().zip(actions)) {
            let mut all_notes = candidate.notes;
            all_notes.extend(notes.remove(&at).unwrap_or_default());
            all_notes.extend(data_stays_away(candidate.fills, &action));
            let owners = needs.get(&at).into_iter().flatten();
            entries.push(Entry {
                kind: index_of[candidate.kind as usize],
                wave: places[at as usize].wave,
                source: candidate.source,
                target: candidate.target,
                action,
                policy: candidate.policy,
                serves: candidate.serves,
                needs: owners.map(|owner| position[*owner as usize]).collect(),
                body: candidate.hash,
                fills: candidate.fills,
                notes: all_notes.into(),
            });
        }
        reorder(&mut entries, position);
        let mut plan = Plan {
            version: PLAN_VERSION,
            snapshot: self.snapshot,
            types,
            entries,
            problems,
            left_out: self.left_out.into_values().collect(),
            digest: PlanDigest::default(),
        };
        plan.digest = super::digest::digest(&plan);
        plan
    }

    /// The types that have entries, and where each type of the survey is in them.
    fn planned_types(&self, choices: &[Choice]) -> (Vec<PlannedType>, Vec<u32>) {
        let used: BTreeSet<u32> = self
            .candidates
            .iter()
            .map(|candidate| candidate.kind)
            .collect();
        let mut used: Vec<(TypeId, u32)> = used
            .into_iter()
            .map(|kind| (self.types[kind as usize].id(), kind))
            .collect();
        used.sort();
        let mut index_of = vec![0; self.types.len()];
        let mut types = Vec::with_capacity(used.len());
        for (at, (id, kind)) in used.into_iter().enumerate() {
            let t = &self.types[kind as usize];
            index_of[kind as usize] = u32::try_from(at).unwrap_or(u32::MAX);
            types.push(PlannedType {
                kind: t.kind.clone(),
                namespaced: t.namespaced,
                source_version: t.version.clone(),
                target_version: match &choices[kind as usize] {
                    Choice::Other(version) => version.clone(),
                    _ => t.version.clone(),
                },
                wave: wave(&t.group, &t.kind).0,
                status_is_data: self.context.keeps_status(&id),
                id,
            });
        }
        (types, index_of)
    }
}

/// Moves every item to the place that `position` has for it, without a copy of
/// all: there may be many.
fn reorder<T>(items: &mut [T], mut position: Vec<u32>) {
    for at in 0..items.len() {
        while position[at] as usize != at {
            let to = position[at] as usize;
            items.swap(at, to);
            position.swap(at, to);
        }
    }
}

/// What is to be known of a claim that was to be filled, and exists.
fn data_stays_away(fills: Option<u64>, action: &Action) -> Option<Box<str>> {
    let bytes = fills.filter(|_| matches!(action, Action::SkipExisting | Action::Merge))?;
    let text = format!(
        "it exists, and what is on its volume stays: the saved data ({}) is not restored; say `existingVolumes: Overwrite`, delete the claim first, or map its namespace to another one",
        Size(bytes)
    );
    Some(text.into())
}

/// The wave of a candidate that nothing owns.
pub(crate) fn base_wave(t: &TypeRecord, candidate: &Candidate) -> u8 {
    let wave = wave(&t.group, &t.kind).0;
    if candidate.serves {
        wave.min(SERVING_WAVE)
    } else {
        wave
    }
}

/// What the decisions about single objects are made of.
struct Deciding<'a> {
    survey: &'a Survey,
    rules: &'a Rules,
    target: &'a Target,
    choices: Vec<Choice>,
    collisions: Collisions,
    /// Namespaces that nothing can be created in, and why.
    closed: HashMap<String, (Reason, Box<str>)>,
    /// Namespaces that are there, or are going to be.
    open: BTreeSet<String>,
    /// Claims that are withheld, by their target keys.
    withheld: Claims,
    /// Claims that do not get their data.
    unfit: Claims,
    refused_types: BTreeMap<usize, u64>,
}

impl<'a> Deciding<'a> {
    fn new(survey: &'a Survey, rules: &'a Rules, target: &'a Target) -> Self {
        Self {
            survey,
            rules,
            target,
            choices: choose_versions(survey, target),
            collisions: Collisions::find(survey),
            closed: HashMap::new(),
            open: existence::open_namespaces(target),
            withheld: Claims::default(),
            unfit: Claims::default(),
            refused_types: BTreeMap::new(),
        }
    }

    /// The action of each candidate. What others depend on comes first:
    /// namespaces, then claims.
    fn actions(&mut self) -> Vec<Action> {
        let survey = self.survey;
        let of = |candidate: &Candidate| &survey.types[candidate.kind as usize];
        let mut actions: Vec<Option<Action>> = vec![None; survey.candidates.len()];
        for (at, candidate) in survey.candidates.iter().enumerate() {
            if is_namespace(of(candidate)) {
                let action = self.action(at, candidate);
                self.note_namespace(candidate, &action);
                actions[at] = Some(action);
            }
        }
        for (at, candidate) in survey.candidates.iter().enumerate() {
            if is_claim(of(candidate)) {
                let action = self.action(at, candidate);
                match &action {
                    Action::Withhold { .. } => self.withheld.insert(&candidate.target),
                    Action::Refuse { reason, .. }
                        if *reason == Reason::VolumeDoesNotFit || self.rules.overwrites =>
                    {
                        self.unfit.insert(&candidate.target);
                    }
                    _ => {}
                }
                actions[at] = Some(action);
            }
        }
        survey
            .candidates
            .iter()
            .enumerate()
            .map(|(at, candidate)| {
                actions[at]
                    .take()
                    .unwrap_or_else(|| self.action(at, candidate))
            })
            .collect()
    }

    fn note_namespace(&mut self, candidate: &Candidate, action: &Action) {
        let name = candidate.target.name.to_string();
        match action {
            Action::Refuse { reason, message } => {
                let why = format!("its namespace `{name}` cannot be restored: {message}");
                self.closed.entry(name).or_insert((*reason, why.into()));
            }
            _ => {
                self.open.insert(name);
            }
        }
    }

    fn action(&mut self, at: usize, candidate: &Candidate) -> Action {
        let t = &self.survey.types[candidate.kind as usize];
        if let Some((reason, message)) = &candidate.broken {
            return refuse(*reason, message.clone());
        }
        if let Choice::None(why) = &self.choices[candidate.kind as usize] {
            *self
                .refused_types
                .entry(candidate.kind as usize)
                .or_default() += 1;
            return refuse(Reason::TypeNotServed, why.as_str());
        }
        if let Some(action) = self.collisions.action(self.survey, at) {
            return action;
        }
        if let Some(action) = self.in_namespace(t, &candidate.target) {
            return action;
        }
        if self.rules.overwrites
            && let Some(action) = overwrite::action(self.survey, self.target, t, candidate)
        {
            return action;
        }
        if let Some(action) = existence::action(self.target, t, candidate) {
            return action;
        }
        self.withhold(t, candidate).unwrap_or(Action::Create)
    }

    /// Refuses what its namespace does not let in.
    fn in_namespace(&self, t: &TypeRecord, target: &Key) -> Option<Action> {
        let namespace = if is_namespace(t) {
            &target.name
        } else {
            &target.namespace
        };
        if namespace.is_empty() {
            return None;
        }
        if let Some((reason, message)) = self.closed.get(&**namespace) {
            return Some(refuse(*reason, message.clone()));
        }
        if existence::is_terminating(self.target, namespace) {
            return Some(refuse(
                Reason::NamespaceTerminating,
                format!(
                    "namespace `{namespace}` is being deleted in the target: wait until it is gone, or map to another one"
                ),
            ));
        }
        if is_namespace(t) || self.open.contains(&**namespace) {
            return None;
        }
        Some(refuse(
            Reason::DependencyNotReady,
            format!(
                "namespace `{namespace}` is neither in the target nor restored: create it, or select it as well"
            ),
        ))
    }

    /// Withholds claims without data, and what mounts them. What mounts a claim that
    /// cannot hold its data is withheld in any case: a StatefulSet would make it anew,
    /// and empty.
    fn withhold(&self, t: &TypeRecord, candidate: &Candidate) -> Option<Action> {
        if is_claim(t) && self.rules.volumes == RestoreVolumePolicy::Withhold {
            let why = self
                .survey
                .without_data
                .get(&candidate.source.to_object_key())?;
            return Some(Action::Withhold {
                reason: Reason::VolumeDataNotSaved,
                message: (*why).into(),
            });
        }
        let mounts = candidate.mounts.as_deref()?;
        let namespace = &candidate.target.namespace;
        let message = if let Some(claim) = self.withheld.mounted(namespace, mounts) {
            format!(
                "it mounts the claim `{claim}`, whose data was not saved: restore the data by other means first, or say `volumes: Empty`"
            )
        } else {
            let claim = self.unfit.mounted(namespace, mounts)?;
            format!("it mounts the claim `{claim}`, which does not get its data and is refused")
        };
        Some(Action::Withhold {
            reason: Reason::Withheld,
            message: message.into(),
        })
    }

    /// What concerns more than one object.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (kind, t) in self.survey.types.iter().enumerate() {
            match (&self.choices[kind], self.refused_types.get(&kind)) {
                (Choice::None(why), Some(objects)) => problems.push(Problem::error(
                    Reason::TypeNotServed,
                    t.id().to_string(),
                    &format!("{objects} objects are refused: {why}"),
                )),
                (Choice::Other(version), _) => problems.push(Problem::warning(
                    Reason::TypeNotServed,
                    t.id().to_string(),
                    &format!(
                        "captured in {} and written in {version}, since the target does not serve {}: fields that only one of them knows may be lost",
                        t.version, t.version
                    ),
                )),
                _ => {}
            }
        }
        problems.extend(
            self.collisions
                .problems(self.survey)
                .take(MAX_COLLISION_PROBLEMS),
        );
        problems.extend(existence::problems(self.survey, self.target));
        problems.sort_by(|a, b| {
            (&a.subject, &a.reason, &a.message).cmp(&(&b.subject, &b.reason, &b.message))
        });
        problems
    }
}

fn refuse(reason: Reason, message: impl Into<Box<str>>) -> Action {
    Action::Refuse {
        reason,
        message: message.into(),
    }
}

fn choose_versions(survey: &Survey, target: &Target) -> Vec<Choice> {
    let served: HashMap<(&str, &str), _> = target
        .served
        .iter()
        .map(|served| ((served.group.as_str(), served.resource.as_str()), served))
        .collect();
    let restored: BTreeSet<&str> = survey
        .candidates
        .iter()
        .filter(|candidate| {
            let t = &survey.types[candidate.kind as usize];
            candidate.broken.is_none() && t.kind == "CustomResourceDefinition"
        })
        .map(|candidate| &*candidate.target.name)
        .collect();
    survey
        .types
        .iter()
        .map(|t| {
            let definition = t.id().to_string();
            let versions = survey
                .definitions
                .get(&definition)
                .filter(|_| restored.contains(definition.as_str()));
            choose(
                t,
                served
                    .get(&(t.group.as_str(), t.resource.as_str()))
                    .copied(),
                versions.map(Vec::as_slice),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;

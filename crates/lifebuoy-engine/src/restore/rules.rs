//! The rules of a restore, parsed once. What a schema cannot say no to is
//! refused here, with the exact path of the field and the way out.

use lifebuoy_api::{ExistingPolicy, ExistingRules, Mapping, RestoreSpec, RestoreVolumePolicy};
use serde_json::Value;

use super::map::Mapper;
use super::matching::Matcher;
use super::transform::CompiledTransform;
use crate::Error;
use crate::archive::{ArchivedObject, TypeRecord};
use crate::selection::Selector;

/// What a restore takes, and how it changes what it takes.
#[derive(Clone, Debug)]
pub struct Rules {
    pub(crate) selector: Selector,
    pub(crate) mapper: Mapper,
    pub(crate) transforms: Vec<CompiledTransform>,
    pub(crate) volumes: RestoreVolumePolicy,
    existing: ExistingPolicy,
    overrides: Vec<(Matcher, ExistingPolicy)>,
}

impl Rules {
    /// Parses what a Restore says about its objects.
    ///
    /// # Errors
    /// [`Error::InvalidField`] with the path of the field, such as
    /// `spec.transforms[2].jsonPatch[0].path`.
    pub fn parse(spec: &RestoreSpec) -> Result<Self, Error> {
        Ok(Self {
            selector: Selector::parse(&spec.selection, "spec.selection")?,
            mapper: parse_mapping(&spec.mapping)?,
            transforms: spec
                .transforms
                .iter()
                .enumerate()
                .map(|(index, transform)| {
                    CompiledTransform::parse(transform, &format!("spec.transforms[{index}]"))
                })
                .collect::<Result<_, _>>()?,
            volumes: spec.volumes,
            existing: spec.existing.policy,
            overrides: parse_overrides(&spec.existing)?,
        })
    }

    /// What happens to this object if it exists; `captured` is its body.
    pub(crate) fn policy(
        &self,
        t: &TypeRecord,
        object: &ArchivedObject,
        captured: &Value,
    ) -> ExistingPolicy {
        self.overrides
            .iter()
            .find(|(matcher, _)| matcher.matches(t, object, captured))
            .map_or(self.existing, |(_, policy)| *policy)
    }
}

fn parse_mapping(mapping: &Mapping) -> Result<Mapper, Error> {
    Mapper::parse(mapping, "spec.mapping")
}

fn parse_overrides(existing: &ExistingRules) -> Result<Vec<(Matcher, ExistingPolicy)>, Error> {
    existing
        .overrides
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            let path = format!("spec.existing.overrides[{index}].match");
            Ok((Matcher::parse(&entry.matches, &path)?, entry.policy))
        })
        .collect()
}

//! The rules of a restore, parsed once. What a schema cannot say no to is
//! refused here, with the exact path of the field and the way out.

use lifebuoy_api::{
    ExistingPolicy, ExistingRules, ExistingVolumes, Mapping, RestoreSpec, RestoreVolumePolicy,
};
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
    /// Whether claims whose data was saved are filled with it.
    pub(crate) fills: bool,
    /// Whether the volumes of claims that exist are overwritten with it.
    pub(crate) overwrites: bool,
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
            fills: spec.volumes != RestoreVolumePolicy::Skip,
            overwrites: spec.volumes != RestoreVolumePolicy::Skip
                && spec.existing_volumes == ExistingVolumes::Overwrite,
            existing: spec.existing.policy,
            overrides: parse_overrides(&spec.existing)?,
        })
    }

    /// The same where nobody is there to fill volumes: a claim is one without data.
    #[must_use]
    pub fn without_filling(self) -> Self {
        Self {
            fills: false,
            overwrites: false,
            ..self
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(mut spec: Value) -> String {
        spec["from"] = json!({"recoveryPoint": "p"});
        Rules::parse(&serde_json::from_value(spec).unwrap())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_a_schema_lets_through_is_refused_with_the_path_of_the_field() {
        let named = |list: &str, from: &str, to: &str| {
            let ok = json!({"from": "ok", "to": "fine"});
            refused(json!({"mapping": {list: [ok, {"from": from, "to": to}]}}))
        };
        insta::assert_snapshot!([
            refused(json!({"selection": {"namespaces": ["a", "[b"]}})),
            refused(json!({"selection": {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}})),
            named("namespaces", "ok", "x"),
            named("storageClasses", "fast?", "x"),
            named("ingressClasses", "nginx", "Nginx"),
            named("images", "https://a.example/", "b.example/"),
            named("images", "a.example/", "b.example"),
            named("hosts", "*.a.*.example", "b.example"),
            refused(json!({"transforms": [{"mergePatch": {}}, {"jsonPatch": [{"op": "add", "path": "a", "value": 1}]}]})),
            refused(json!({"transforms": [{"match": {"names": ["{a"]}, "mergePatch": {}}]})),
            refused(json!({"existing": {"overrides": [{"match": {"kinds": [""]}, "policy": "Skip"}]}})),
        ].join("\n"), @r#"
        spec.selection.namespaces[1]: `[b` is not a glob: unclosed character class; missing ']'
        spec.selection.labelSelector.matchExpressions[0].operator: `Is` is not an operator: use In, NotIn, Exists or DoesNotExist
        spec.mapping.namespaces[1].from: `ok` stands in spec.mapping.namespaces[0] already, and the first one wins: remove one of them
        spec.mapping.storageClasses[1].from: `fast?` uses `?`: a mapping knows names and `*` only
        spec.mapping.ingressClasses[1].to: `Nginx` cannot be a name: it has lower-case letters, digits, `-` and `.`, each part beginning and ending with a letter or digit
        spec.mapping.images[1].from: `https://a.example/` is not the beginning of an image name: write it as in `registry.example/team/`, without a scheme
        spec.mapping.images[1].to: `a.example/` and `b.example` must both end with `/`, or neither: otherwise names run together
        spec.mapping.hosts[1].from: `*.a.*.example` is not a host name: write `shop.example`, or `*.example` for everything below a domain
        spec.transforms[1].jsonPatch[0].path: `a` is not a JSON pointer: it begins with `/`, and inside a name `/` is written `~1` and `~` is written `~0`
        spec.transforms[0].match.names[0]: `{a` is not a glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
        spec.existing.overrides[0].match.kinds[0]: a glob must not be empty: use `*` for everything
        "#);
    }
}

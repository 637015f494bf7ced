//! How a restore changes what it reads: mappings of well-known names, patches,
//! and what happens to objects that exist.
//!
//! The order is fixed: mapping, then the transforms in their order.
//! `docs/concepts.md` has the whole of it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Names that differ between the source and the target cluster. Within each
/// list the first entry that matches wins.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mapping {
    /// Namespaces. `from` is a name or a glob with `*`; each `*` in `to` stands
    /// for what the `*` of the same position matched. Applies wherever an
    /// object names a namespace, not only to where the object lives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub namespaces: Vec<NameMapping>,

    /// Storage classes, by exact name or glob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub storage_classes: Vec<NameMapping>,

    /// Ingress classes and gateway classes, by exact name or glob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ingress_classes: Vec<NameMapping>,

    /// Prefixes of container images, such as `registry.a.example/` to
    /// `registry.b.example/mirror/`. A prefix matches at a `/`, `:` or `@` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub images: Vec<PrefixMapping>,

    /// Host names of Ingresses, Gateways and their routes: exact, or with a
    /// leading `*.` that stands for everything below a domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub hosts: Vec<NameMapping>,
}

/// One name, or all names that a glob matches, becomes another.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.to.split('*').size() <= self.from.split('*').size()")
    .message("`to` has more `*` than `from`: each `*` in `to` stands for what one in `from` matched"))]
pub struct NameMapping {
    /// The name in the source cluster, or a glob with `*`.
    #[schemars(length(min = 1, max = 253))]
    pub from: String,
    /// The name in this cluster.
    #[schemars(length(min = 1, max = 253))]
    pub to: String,
}

/// One prefix becomes another.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixMapping {
    /// The prefix in the source cluster.
    #[schemars(length(min = 1, max = 512))]
    pub from: String,
    /// The prefix in this cluster.
    #[schemars(length(min = 1, max = 512))]
    pub to: String,
}

/// Which objects something applies to: all conditions must hold. Everything is
/// compared with the object as it was captured, before any mapping.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMatch {
    /// Kinds with their group as in `Deployment.apps`, `ConfigMap`, or globs.
    /// Empty means every kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 316)))]
    pub kinds: Vec<String>,

    /// Source namespaces, names or globs. Empty means every namespace, and
    /// cluster-scoped objects; with any entry, cluster-scoped objects never match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub namespaces: Vec<String>,

    /// Names or globs. Empty means every name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,

    /// Labels that the object must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A change to every object that matches: one of `jsonPatch` and `mergePatch`.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.jsonPatch) != has(self.mergePatch)")
    .message("a transform has exactly one of `jsonPatch` and `mergePatch`"))]
pub struct Transform {
    /// Which objects are changed.
    #[serde(default, rename = "match")]
    pub matches: ObjectMatch,

    /// Operations of RFC 6902: `add`, `remove`, `replace`, `move`, `copy`,
    /// `test`. An object on which one of them fails is reported and not
    /// restored; the others are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "json_patch_schema")]
    pub json_patch: Option<Vec<Value>>,

    /// A merge patch of RFC 7396.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object_schema")]
    pub merge_patch: Option<Value>,
}

fn json_patch_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "items": {
            "type": "object",
            "required": ["op", "path"],
            "properties": {
                "op": {
                    "description": "The operation.",
                    "type": "string",
                    "enum": ["add", "remove", "replace", "move", "copy", "test"],
                },
                "path": {
                    "description": "A JSON pointer (RFC 6901) to what is changed.",
                    "type": "string",
                    "maxLength": 1024,
                },
                "from": {
                    "description": "A JSON pointer to the source of `move` and `copy`.",
                    "type": "string",
                    "maxLength": 1024,
                },
                "value": {
                    "description": "The value of `add`, `replace` and `test`.",
                    "x-kubernetes-preserve-unknown-fields": true,
                },
            },
        },
    })
}

fn any_object_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// What happens to objects that exist in the target cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExistingRules {
    /// What happens where no override matches.
    #[serde(default)]
    pub policy: ExistingPolicy,

    /// Exceptions; the first that matches wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub overrides: Vec<ExistingOverride>,
}

/// A policy for the existing objects that match.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExistingOverride {
    /// Which objects, as captured.
    #[serde(rename = "match")]
    pub matches: ObjectMatch,
    /// What happens to them.
    pub policy: ExistingPolicy,
}

/// What happens to an object that exists in the target cluster.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Serialize, schemars::JsonSchema, PartialEq, Eq,
)]
pub enum ExistingPolicy {
    /// It is left alone.
    #[default]
    Skip,
    /// The captured fields are merged into it (RFC 7396); what it has besides stays.
    Merge,
    /// It becomes what was captured; where a field is immutable it is deleted
    /// and created again.
    Replace,
    /// The restore is refused before anything is changed.
    Fail,
}

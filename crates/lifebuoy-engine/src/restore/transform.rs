//! Patches that a restore makes to objects, after all mapping. Pure.

use json_patch::PatchOperation;
use lifebuoy_api::Transform;
use serde_json::Value;

use super::matching::Matcher;
use crate::Error;
use crate::archive::{ArchivedObject, TypeRecord};

const OPERATIONS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];

/// A parsed [`Transform`].
#[derive(Clone, Debug)]
pub(crate) struct CompiledTransform {
    matcher: Matcher,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    Json(Vec<PatchOperation>),
    Merge(Value),
}

impl CompiledTransform {
    /// Parses a transform; `path` is where it stands, as `spec.transforms[2]`.
    pub(crate) fn parse(transform: &Transform, path: &str) -> Result<Self, Error> {
        let Transform {
            matches,
            json_patch,
            merge_patch,
        } = transform;
        let change = match (json_patch, merge_patch) {
            (Some(operations), None) => Change::Json(parse_operations(operations, path)?),
            (None, Some(patch)) if patch.is_object() => Change::Merge(patch.clone()),
            (None, Some(_)) => {
                return Err(Error::invalid(
                    format!("{path}.mergePatch"),
                    "a merge patch is an object, as in `{\"spec\": {\"replicas\": 1}}`",
                ));
            }
            _ => {
                return Err(Error::invalid(
                    path,
                    "a transform has exactly one of `jsonPatch` and `mergePatch`",
                ));
            }
        };
        Ok(Self {
            matcher: Matcher::parse(matches, &format!("{path}.match"))?,
            change,
        })
    }

    /// Whether the transform is about this object, as it was captured.
    pub(crate) fn matches(
        &self,
        t: &TypeRecord,
        object: &ArchivedObject,
        captured: &Value,
    ) -> bool {
        self.matcher.matches(t, object, captured)
    }

    /// Changes the body. After an error the body is of no use.
    pub(crate) fn apply(&self, body: &mut Value) -> Result<(), String> {
        match &self.change {
            // Nothing is to be undone: a body on which a patch fails is dropped.
            Change::Json(operations) => {
                json_patch::patch_unsafe(body, operations).map_err(|error| {
                    let at = &operations[error.operation.min(operations.len() - 1)];
                    format!(
                        "jsonPatch[{}] ({} {}): {}",
                        error.operation,
                        verb(at),
                        at.path(),
                        error.kind
                    )
                })
            }
            Change::Merge(patch) => {
                json_patch::merge(body, patch);
                Ok(())
            }
        }
    }
}

const fn verb(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

fn parse_operations(operations: &[Value], path: &str) -> Result<Vec<PatchOperation>, Error> {
    if operations.is_empty() {
        return Err(Error::invalid(
            format!("{path}.jsonPatch"),
            "a JSON Patch has at least one operation",
        ));
    }
    operations
        .iter()
        .enumerate()
        .map(|(index, operation)| parse_operation(operation, &format!("{path}.jsonPatch[{index}]")))
        .collect()
}

fn parse_operation(operation: &Value, path: &str) -> Result<PatchOperation, Error> {
    let op = operation["op"].as_str().unwrap_or_default();
    if !OPERATIONS.contains(&op) {
        return Err(Error::invalid(
            format!("{path}.op"),
            format!("`{op}` is none of {}", OPERATIONS.join(", ")),
        ));
    }
    check_pointer(operation, "path", path)?;
    if matches!(op, "move" | "copy") {
        check_pointer(operation, "from", path)?;
    }
    if matches!(op, "add" | "replace" | "test") && operation.get("value").is_none() {
        return Err(Error::invalid(
            format!("{path}.value"),
            format!("`{op}` needs a value; to take something away, use `remove`"),
        ));
    }
    serde_json::from_value(operation.clone())
        .map_err(|error| Error::invalid(path, format!("this is not an operation: {error}")))
}

fn check_pointer(operation: &Value, field: &str, path: &str) -> Result<(), Error> {
    let Some(text) = operation[field].as_str() else {
        return Err(Error::invalid(
            format!("{path}.{field}"),
            "a JSON pointer is missing, as in `/spec/replicas`",
        ));
    };
    json_patch::jsonptr::Pointer::parse(text).map(drop).map_err(|_| {
        Error::invalid(
            format!("{path}.{field}"),
            format!("`{text}` is not a JSON pointer: it begins with `/`, and inside a name `/` is written `~1` and `~` is written `~0`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(transform: serde_json::Value) -> Result<CompiledTransform, Error> {
        let transform: Transform = serde_json::from_value(transform).unwrap();
        CompiledTransform::parse(&transform, "spec.transforms[2]")
    }

    fn refused(operation: serde_json::Value) -> String {
        parse(json!({"jsonPatch": [{"op": "test", "path": "", "value": 1}, operation]}))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_is_wrong_with_a_patch_is_named() {
        insta::assert_snapshot!([
            refused(json!({"op": "added", "path": "/a", "value": 1})),
            refused(json!({"op": "add", "path": "a/b", "value": 1})),
            refused(json!({"op": "add", "path": "/a~2b", "value": 1})),
            refused(json!({"op": "add", "path": "/a"})),
            refused(json!({"op": "add", "value": 1})),
            refused(json!({"op": "move", "path": "/a"})),
            refused(json!({"op": "copy", "path": "/a", "from": "b"})),
            parse(json!({"mergePatch": [1]})).unwrap_err().to_string(),
            parse(json!({})).unwrap_err().to_string(),
            parse(json!({"jsonPatch": []})).unwrap_err().to_string(),
            parse(json!({"match": {"kinds": ["ok", "[x"]}, "mergePatch": {}})).unwrap_err().to_string(),
        ].join("\n"), @r#"
        spec.transforms[2].jsonPatch[1].op: `added` is none of add, remove, replace, move, copy, test
        spec.transforms[2].jsonPatch[1].path: `a/b` is not a JSON pointer: it begins with `/`, and inside a name `/` is written `~1` and `~` is written `~0`
        spec.transforms[2].jsonPatch[1].path: `/a~2b` is not a JSON pointer: it begins with `/`, and inside a name `/` is written `~1` and `~` is written `~0`
        spec.transforms[2].jsonPatch[1].value: `add` needs a value; to take something away, use `remove`
        spec.transforms[2].jsonPatch[1].path: a JSON pointer is missing, as in `/spec/replicas`
        spec.transforms[2].jsonPatch[1].from: a JSON pointer is missing, as in `/spec/replicas`
        spec.transforms[2].jsonPatch[1].from: `b` is not a JSON pointer: it begins with `/`, and inside a name `/` is written `~1` and `~` is written `~0`
        spec.transforms[2].mergePatch: a merge patch is an object, as in `{"spec": {"replicas": 1}}`
        spec.transforms[2]: a transform has exactly one of `jsonPatch` and `mergePatch`
        spec.transforms[2].jsonPatch: a JSON Patch has at least one operation
        spec.transforms[2].match.kinds[1]: `[x` is not a glob: unclosed character class; missing ']'
        "#);
    }

    #[test]
    fn patches_change_the_body_and_say_where_they_fail() {
        let patch = parse(json!({"jsonPatch": [
            {"op": "test", "path": "/spec/replicas", "value": 3},
            {"op": "replace", "path": "/spec/replicas", "value": 1},
            {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"},
        ]}))
        .unwrap();
        let mut body = json!({"metadata": {"labels": {}}, "spec": {"replicas": 3}});
        patch.apply(&mut body).unwrap();
        assert_eq!(
            body,
            json!({"metadata": {"labels": {"a/b": "c"}}, "spec": {"replicas": 1}})
        );
        let mut body = json!({"spec": {"replicas": 3}});
        assert_eq!(
            patch.apply(&mut body).unwrap_err(),
            "jsonPatch[2] (add /metadata/labels/a~1b): path is invalid"
        );
        let merge =
            parse(json!({"mergePatch": {"spec": {"replicas": null, "paused": true}}})).unwrap();
        let mut body = json!({"spec": {"replicas": 3}});
        merge.apply(&mut body).unwrap();
        assert_eq!(body, json!({"spec": {"paused": true}}));
    }
}

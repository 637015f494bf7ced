//! What differs between two pictures, at which path. Never a value of a Secret.

use std::fmt;

use serde_json::Value;

use super::{ObjectKey, Picture};

/// How much of a value is shown, in characters.
const SHOWN_CHARACTERS: usize = 200;

/// One thing that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The object should be there and is not.
    Missing(ObjectKey),
    /// The object is there and should not be.
    Extra(ObjectKey),
    /// A field differs.
    Field {
        /// The object.
        object: ObjectKey,
        /// The field, as a JSON pointer.
        path: String,
        /// What should be there; `nothing` if no such field should.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Missing(object) => write!(f, "{object} is missing"),
            Difference::Extra(object) => write!(f, "{object} should not be there"),
            Difference::Field {
                object,
                path,
                expected,
                found,
            } => {
                write!(f, "{object}: {path} is {found}, expected {expected}")
            }
        }
    }
}

/// Everything in which `found` is not as `expected`.
pub fn differences(expected: &Picture, found: &Picture) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (key, object) in &expected.objects {
        match found.objects.get(key) {
            None => differences.push(Difference::Missing(key.clone())),
            Some(there) => {
                let mut fields = Fields {
                    object: key,
                    found: &mut differences,
                };
                fields.compare("", Some(&without_null(object)), Some(&without_null(there)));
            }
        }
    }
    let extra = found
        .objects
        .keys()
        .filter(|key| !expected.objects.contains_key(key));
    differences.extend(extra.cloned().map(Difference::Extra));
    differences
}

struct Fields<'a> {
    object: &'a ObjectKey,
    found: &'a mut Vec<Difference>,
}

impl Fields<'_> {
    fn compare(&mut self, path: &str, expected: Option<&Value>, found: Option<&Value>) {
        match (expected, found) {
            (Some(Value::Object(expected)), Some(Value::Object(found))) => {
                let new = found.keys().filter(|name| !expected.contains_key(*name));
                for name in expected.keys().chain(new) {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    let path = format!("{path}/{escaped}");
                    self.compare(&path, expected.get(name), found.get(name));
                }
            }
            (Some(Value::Array(expected)), Some(Value::Array(found))) => {
                for index in 0..expected.len().max(found.len()) {
                    let path = format!("{path}/{index}");
                    self.compare(&path, expected.get(index), found.get(index));
                }
            }
            (expected, found) if expected == found => {}
            (expected, found) => self.found.push(Difference::Field {
                object: self.object.clone(),
                path: path.to_owned(),
                expected: self.show(expected),
                found: self.show(found),
            }),
        }
    }

    fn show(&self, value: Option<&Value>) -> String {
        let Some(value) = value else {
            return "nothing".to_owned();
        };
        if self.object.kind == "Secret" {
            return "a value that is not shown".to_owned();
        }
        let text = value.to_string();
        if text.chars().count() <= SHOWN_CHARACTERS {
            return text;
        }
        let start: String = text.chars().take(SHOWN_CHARACTERS).collect();
        format!("{start}…")
    }
}

/// A field that is null says the same as none.
fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, field)| !field.is_null());
            Value::Object(
                kept.map(|(name, field)| (name.clone(), without_null(field)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(without_null).collect()),
        other => other.clone(),
    }
}

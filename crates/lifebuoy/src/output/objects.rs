//! Objects in the form that `-o` asks for. Pure.

use std::borrow::Cow;

use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Table, inert};
use crate::{args::Format, error::Error};

/// Any value as JSON or YAML; as a table or names, what the caller makes.
///
/// # Errors
/// None in practice: every value has a JSON form.
pub(crate) fn document(
    format: Format,
    value: &impl Serialize,
    table: impl FnOnce() -> String,
    names: impl FnOnce() -> String,
) -> Result<String, Error> {
    match format {
        Format::Table => Ok(table()),
        Format::Name => Ok(names()),
        Format::Json => json_of(value),
        Format::Yaml => {
            let text = serde_saphyr::to_string(value);
            let text = text.map_err(|error| Error::document("output", error))?;
            // Whatever is not escaped in it can be in JSON, which is YAML too.
            match inert::lines(&text) {
                Cow::Borrowed(_) => Ok(text),
                Cow::Owned(_) => json_of(value),
            }
        }
    }
}

fn json_of(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string_pretty(value)
        .map(|text| inert::json(&text).into_owned())
        .map_err(|error| Error::document("output", error))
}

/// Objects of the cluster: a list, or the one object that was asked for.
///
/// # Errors
/// As [`document`].
pub(crate) fn listed<K>(
    format: Format,
    objects: &[K],
    one: bool,
    table: impl FnOnce() -> Table,
) -> Result<String, Error>
where
    K: Resource<DynamicType = ()> + Serialize + Clone,
{
    let mut values = Vec::with_capacity(objects.len());
    for object in objects {
        let mut object = object.clone();
        object.meta_mut().managed_fields = None;
        values
            .push(serde_json::to_value(&object).map_err(|error| Error::document("output", error))?);
    }
    let whole = match (one, values.len()) {
        (true, 1) => values.remove(0),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": Value::Array(values)}),
    };
    let table = || {
        let table = table();
        if table.is_empty() {
            "nothing found\n".to_owned()
        } else {
            table.to_string()
        }
    };
    document(format, &whole, table, || {
        objects.iter().map(|o| format!("{}\n", name(o))).collect()
    })
}

/// `backup.lifebuoy.dev/last`, as kubectl names objects.
pub(crate) fn name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let kind = K::kind(&()).to_lowercase();
    format!("{kind}.{}/{}", K::group(&()), object.name_any())
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::{Backup, BackupSpec};

    use super::*;

    fn some() -> Vec<Backup> {
        let spec: BackupSpec = serde_json::from_value(json!({"repository": "main"})).unwrap();
        ["a", "b"]
            .into_iter()
            .map(|name| Backup::new(name, spec.clone()))
            .collect()
    }

    fn shown(format: Format, one: bool) -> String {
        let objects = some();
        let objects = if one { &objects[..1] } else { &objects };
        listed(format, objects, one, || Table::new(&["NAME"])).unwrap()
    }

    #[test]
    fn no_document_tells_a_terminal_anything() {
        for odd in ["\u{1b}[2J", "\u{9b}2J\u{7f}", "\u{202e}gpj", "a\r\nb"] {
            let value = json!({"name": odd, "more": [1, {"of": "it"}]});
            for format in [Format::Json, Format::Yaml] {
                let text = document(format, &value, String::new, String::new).unwrap();
                assert!(matches!(inert::lines(&text), Cow::Borrowed(_)), "{text:?}");
                let read: Value = serde_saphyr::from_str(&text).unwrap();
                assert_eq!(read, value, "{text}");
            }
        }
    }

    #[test]
    fn each_form_is_what_scripts_expect() {
        assert_eq!(
            shown(Format::Name, false),
            "backup.lifebuoy.dev/a\nbackup.lifebuoy.dev/b\n"
        );
        assert_eq!(shown(Format::Table, false), "nothing found\n");
        let list: Value = serde_json::from_str(&shown(Format::Json, false)).unwrap();
        assert_eq!(list["items"][1]["metadata"]["name"], "b");
        insta::assert_snapshot!(shown(Format::Yaml, true));
    }
}

//! One item of a list, taken apart no deeper than needed: what decides about it,
//! and its two columns as verbatim slices of what the server sent.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// A JSON object's fields in their order, values unread.
pub(crate) struct Fields<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

/// A JSON string, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Text(key), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    fields.push((key, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A map of strings in its order.
type Texts<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// A reference to an owner.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    #[serde(default)]
    pub(crate) api_version: String,
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) controller: bool,
}

/// An item, taken apart.
pub(crate) struct Shallow<'a> {
    pub(crate) namespace: Cow<'a, str>,
    pub(crate) name: Cow<'a, str>,
    pub(crate) being_deleted: bool,
    pub(crate) owners: Vec<Owner>,
    labels: Texts<'a>,
    annotations: Option<&'a RawValue>,
    /// `metadata` without what churns.
    metadata: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// Everything else without what churns.
    rest: Vec<(Cow<'a, str>, &'a RawValue)>,
    resource_version: Option<&'a RawValue>,
    managed_fields: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
}

/// Why an item is no object: one sentence without anything of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl<'a> Shallow<'a> {
    pub(crate) fn parse(item: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(item).map_err(|_| malformed("it is not UTF-8"))?;
        let Fields(top) = parse(text, "the object")?;
        let mut shallow = Self {
            namespace: Cow::Borrowed(""),
            name: Cow::Borrowed(""),
            being_deleted: false,
            owners: Vec::new(),
            labels: Vec::new(),
            annotations: None,
            metadata: Vec::new(),
            rest: Vec::with_capacity(top.len()),
            resource_version: None,
            managed_fields: None,
            status: None,
        };
        for (key, value) in top {
            match &*key {
                "metadata" => shallow.take_metadata(value)?,
                "status" => shallow.status = Some(value),
                "apiVersion" | "kind" => {}
                _ => shallow.rest.push((key, value)),
            }
        }
        if shallow.name.is_empty() {
            return Err(malformed("it has no metadata.name"));
        }
        Ok(shallow)
    }

    fn take_metadata(&mut self, metadata: &'a RawValue) -> Result<(), Malformed> {
        let Fields(fields) = parse(metadata.get(), "metadata")?;
        for (key, value) in fields {
            match &*key {
                "name" => self.name = text(value, "metadata.name")?,
                "namespace" => self.namespace = text(value, "metadata.namespace")?,
                "deletionTimestamp" => self.being_deleted = value.get() != "null",
                "ownerReferences" => {
                    self.owners = parse::<Option<Vec<Owner>>>(value.get(), "ownerReferences")?
                        .unwrap_or_default();
                }
                "labels" => self.labels = texts(value, "metadata.labels")?,
                "annotations" => self.annotations = Some(value),
                "resourceVersion" => {
                    self.resource_version = Some(value);
                    continue;
                }
                "managedFields" => {
                    self.managed_fields = Some(value);
                    continue;
                }
                _ => {}
            }
            self.metadata.push((key, value));
        }
        Ok(())
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| &**value)
    }

    /// An annotation's value. Looks into the annotations only now: they are
    /// large and seldom asked for.
    pub(crate) fn annotation(&self, key: &str) -> Option<String> {
        let annotations = texts(self.annotations?, "metadata.annotations").ok()?;
        let found = annotations.into_iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.into_owned())
    }

    /// A top-level field such as `spec`, as JSON.
    pub(crate) fn field(&self, key: &str) -> Option<&'a str> {
        let found = self.rest.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.get())
    }

    /// Appends the column that stays as it is while nobody changes the object.
    pub(crate) fn write_stable(&self, api_version: &str, kind: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"apiVersion\":");
        put_text(out, api_version);
        out.extend_from_slice(b",\"kind\":");
        put_text(out, kind);
        out.extend_from_slice(b",\"metadata\":{");
        put_fields(out, &self.metadata);
        out.push(b'}');
        if !self.rest.is_empty() {
            out.push(b',');
            put_fields(out, &self.rest);
        }
        out.push(b'}');
    }

    /// Appends the column that churns.
    pub(crate) fn write_volatile(&self, out: &mut Vec<u8>) {
        let fields = [
            ("resourceVersion", self.resource_version),
            ("managedFields", self.managed_fields),
            ("status", self.status),
        ];
        let present = fields
            .into_iter()
            .filter_map(|(key, value)| value.map(|v| (Cow::Borrowed(key), v)))
            .collect::<Vec<_>>();
        out.push(b'{');
        put_fields(out, &present);
        out.push(b'}');
    }
}

fn put_fields(out: &mut Vec<u8>, fields: &[(Cow<'_, str>, &RawValue)]) {
    for (index, (key, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_text(out, key);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A string always has a JSON form, and a Vec takes every write.
    let written = serde_json::to_writer(&mut *out, text);
    debug_assert!(written.is_ok());
}

fn malformed(message: impl Into<String>) -> Malformed {
    Malformed(message.into())
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str, what: &str) -> Result<T, Malformed> {
    // The parser's own words may quote the value: say where it is instead.
    serde_json::from_str(json).map_err(|error| {
        malformed(format!(
            "{what} is malformed at line {} column {}",
            error.line(),
            error.column()
        ))
    })
}

fn text<'a>(value: &'a RawValue, what: &str) -> Result<Cow<'a, str>, Malformed> {
    parse::<Text<'a>>(value.get(), what).map(|Text(text)| text)
}

/// A map of strings; `null` is an empty one.
fn texts<'a>(value: &'a RawValue, what: &str) -> Result<Texts<'a>, Malformed> {
    let Some(Fields(fields)) = parse::<Option<Fields<'a>>>(value.get(), what)? else {
        return Ok(Vec::new());
    };
    fields
        .into_iter()
        .map(|(key, value)| Ok((key, text(value, what)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn columns(item: &Value) -> (Value, Value) {
        let bytes = serde_json::to_vec(item).unwrap();
        let shallow = Shallow::parse(&bytes).unwrap();
        let (mut stable, mut volatile) = (Vec::new(), Vec::new());
        shallow.write_stable("apps/v1", "Deployment", &mut stable);
        shallow.write_volatile(&mut volatile);
        (
            serde_json::from_slice(&stable).unwrap(),
            serde_json::from_slice(&volatile).unwrap(),
        )
    }

    #[test]
    fn what_churns_is_split_off_and_nothing_is_lost() {
        let (stable, volatile) = columns(&json!({
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7",
                "uid": "u", "managedFields": [{"manager": "m"}], "labels": {"a\"b": "c"}},
            "spec": {"replicas": 1},
            "status": {"readyReplicas": 1},
        }));
        assert_eq!(
            stable,
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"a\"b": "c"}},
                "spec": {"replicas": 1}})
        );
        assert_eq!(
            volatile,
            json!({"resourceVersion": "7", "managedFields": [{"manager": "m"}],
                "status": {"readyReplicas": 1}})
        );
    }

    #[test]
    fn an_object_that_has_its_kind_already_gets_no_second_one() {
        let bytes = br#"{"apiVersion":"x/v1","kind":"X","metadata":{"name":"a"}}"#;
        let mut stable = Vec::new();
        Shallow::parse(bytes)
            .unwrap()
            .write_stable("x/v1", "X", &mut stable);
        assert_eq!(
            String::from_utf8(stable).unwrap(),
            r#"{"apiVersion":"x/v1","kind":"X","metadata":{"name":"a"}}"#
        );
    }

    #[test]
    fn labels_annotations_and_owners_are_read() {
        let item = json!({"metadata": {"name": "p", "labels": {"app": "web"},
            "annotations": {"k\n": "v"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "name": "r", "uid": "u", "controller": true}]}});
        let bytes = serde_json::to_vec(&item).unwrap();
        let shallow = Shallow::parse(&bytes).unwrap();
        assert_eq!(shallow.label("app"), Some("web"));
        assert_eq!(shallow.annotation("k\n").as_deref(), Some("v"));
        assert!(shallow.being_deleted && shallow.owners[0].controller);
    }

    #[test]
    fn malformed_objects_are_told_without_their_content() {
        for (item, expected) in [
            (&br#"{"metadata":{}}"#[..], "it has no metadata.name"),
            (br#"{"data":{"p":"hunter2"}}"#, "it has no metadata.name"),
            (
                br#"{"metadata":{"name":7}}"#,
                "metadata.name is malformed at line 1 column 1",
            ),
            (
                br#"{"metadata":"hunter2"}"#,
                "metadata is malformed at line 1 column 9",
            ),
            (b"\xff", "it is not UTF-8"),
        ] {
            let Err(Malformed(message)) = Shallow::parse(item) else {
                panic!("{item:?} was taken");
            };
            assert_eq!(message, expected);
        }
    }
}

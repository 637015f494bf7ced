//! Keys of objects as a plan holds them: many, so they share their text.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::archive::ObjectKey;

/// Namespace and name of an object. Cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace; empty for a cluster-scoped object.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Key {
    /// A key with text of its own.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key as the archive spells it.
    #[must_use]
    pub fn to_object_key(&self) -> ObjectKey {
        ObjectKey {
            namespace: self.namespace.as_ref().into(),
            name: self.name.as_ref().into(),
        }
    }

    /// Compares as an archive orders keys: by the bytes of `namespace/name`.
    #[must_use]
    pub fn cmp_as_archived(&self, other: &Self) -> std::cmp::Ordering {
        if self.namespace == other.namespace {
            return self.name.cmp(&other.name);
        }
        self.archived_bytes().cmp(other.archived_bytes())
    }

    fn archived_bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.namespace
            .bytes()
            .chain([b'/'])
            .chain(self.name.bytes())
    }

    /// Whether this is the key of that captured object.
    #[must_use]
    pub fn is(&self, key: &ObjectKey) -> bool {
        *self.name == *key.name && *self.namespace == *key.namespace
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Makes one text of equal ones: a cluster has few namespaces and many objects.
#[derive(Debug, Default)]
pub struct Interner(HashSet<Arc<str>>);

impl Interner {
    /// The shared text equal to `text`.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = text.into();
        self.0.insert(Arc::clone(&shared));
        shared
    }

    /// A key whose namespace is shared; the name is not looked for.
    pub fn key(&mut self, namespace: &str, name: &str) -> Key {
        Key {
            namespace: self.text(namespace),
            name: name.into(),
        }
    }
}

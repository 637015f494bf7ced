//! How types and objects are named.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

/// A type, as `kubectl api-resources` names it with its group. Versions of one
/// type are one type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TypeId {
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource in the plural: `deployments`.
    pub resource: String,
}

impl TypeId {
    /// A type by its group and resource.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
        }
    }
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if self.group.is_empty() {
            Ok(())
        } else {
            write!(f, ".{}", self.group)
        }
    }
}

/// An object within its type.
///
/// Ordered as the API server lists: by the bytes of `namespace/name`, so that
/// `a-b/x` comes before `a/x`. Cluster-scoped objects are ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The namespace; empty for a cluster-scoped object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object; `namespace` is empty for a cluster-scoped one.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Compares with a key that is still in parts.
    #[must_use]
    pub fn cmp_parts(&self, namespace: &str, name: &str) -> Ordering {
        cmp_parts((&self.namespace, &self.name), (namespace, name))
    }
}

/// Compares the bytes of `namespace/name`.
fn cmp_parts(a: (&str, &str), b: (&str, &str)) -> Ordering {
    if a.0 == b.0 {
        return a.1.cmp(b.1);
    }
    let bytes = |(namespace, name): (&str, &str)| {
        namespace
            .to_owned()
            .into_bytes()
            .into_iter()
            .chain([b'/'])
            .chain(name.to_owned().into_bytes())
    };
    bytes(a).cmp(bytes(b))
}

impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_parts(&other.namespace, &other.name)
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A keyed hash of an object's stable column: equal hashes mean equal objects
/// within one repository, whatever cluster they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectHash(pub [u8; ObjectHash::BYTES]);

impl ObjectHash {
    /// The length of the hash.
    pub const BYTES: usize = 16;
}

impl fmt::Display for ObjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_sort_as_the_api_server_lists() {
        let mut keys = [
            ("a", "x"),
            ("a-b", "x"),
            ("a.b", "x"),
            ("a0", "x"),
            ("a", "x-y"),
        ]
        .map(|(namespace, name)| ObjectKey::new(namespace, name));
        keys.sort();
        assert_eq!(
            keys.map(|k| k.to_string()),
            ["a-b/x", "a.b/x", "a/x", "a/x-y", "a0/x"]
        );
    }

    #[test]
    fn types_and_cluster_scoped_objects_print_as_kubectl_has_them() {
        assert_eq!(TypeId::new("", "configmaps").to_string(), "configmaps");
        assert_eq!(
            TypeId::new("apps", "deployments").to_string(),
            "deployments.apps"
        );
        assert_eq!(ObjectKey::new("", "shop").to_string(), "shop");
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_printed_key(
            a in ("[a-z.-]{1,4}", "[a-z.-]{1,4}"),
            b in ("[a-z.-]{1,4}", "[a-z.-]{1,4}"),
        ) {
            let (a, b) = (ObjectKey::new(a.0, a.1), ObjectKey::new(b.0, b.1));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}

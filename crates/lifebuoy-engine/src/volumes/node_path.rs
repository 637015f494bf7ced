//! Directories of nodes, which an installation lets movers read. Compared by their
//! components and never looked at. Pure.

use serde::Deserialize;

/// A directory of a node that is not all of it: absolute, and without `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct NodePath(String);

impl NodePath {
    /// Parses it. Slashes that say nothing go, and so does `.`.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let below = text
            .strip_prefix('/')
            .ok_or_else(|| format!("`{text}` is not absolute"))?;
        let mut path = String::new();
        for component in below.split('/') {
            match component {
                "" | "." => {}
                ".." => return Err(format!("`{text}` has `..` in it")),
                name => {
                    path.push('/');
                    path.push_str(name);
                }
            }
        }
        if path.is_empty() {
            return Err(format!("`{text}` is all of a node"));
        }
        Ok(Self(path))
    }

    /// As Kubernetes writes it: no slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where `path` is below this directory, without a slash at its begin; empty for the
    /// directory itself, none for what is elsewhere.
    fn below<'a>(&self, path: &'a Self) -> Option<&'a str> {
        let rest = path.0.strip_prefix(&self.0)?;
        if rest.is_empty() {
            return Some(rest);
        }
        rest.strip_prefix('/')
    }
}

impl TryFrom<String> for NodePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// A directory of a node that a mover may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDirectory {
    /// The directory that the installation names.
    pub allowed: NodePath,
    /// Where in it; empty for all of it.
    pub below: String,
}

impl NodeDirectory {
    /// The directory `path`, if it is one of `allowed` or below one. Of several the
    /// longest counts.
    #[must_use]
    pub fn find(path: &NodePath, allowed: &[NodePath]) -> Option<Self> {
        let holding = allowed
            .iter()
            .filter_map(|of| Some((of, of.below(path)?)))
            .max_by_key(|(of, _)| of.0.len());
        holding.map(|(of, below)| Self {
            allowed: of.clone(),
            below: below.to_owned(),
        })
    }

    /// Its path on the node.
    #[must_use]
    pub fn path(&self) -> String {
        match &*self.below {
            "" => self.allowed.0.clone(),
            below => format!("{}/{below}", self.allowed.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        NodePath::parse(text).unwrap()
    }

    #[test]
    fn a_path_says_what_is_wrong_with_it() {
        for (text, expected) in [
            ("/srv", Ok("/srv")),
            ("//srv/./data//", Ok("/srv/data")),
            ("/srv/..data", Ok("/srv/..data")),
            ("srv", Err("`srv` is not absolute")),
            ("", Err("`` is not absolute")),
            ("/srv/../etc", Err("`/srv/../etc` has `..` in it")),
            ("/", Err("`/` is all of a node")),
            ("/./", Err("`/./` is all of a node")),
        ] {
            let parsed = NodePath::parse(text);
            let parsed = parsed.as_ref().map(NodePath::as_str);
            assert_eq!(parsed.map_err(String::as_str), expected, "{text}");
        }
        let list: Result<Vec<NodePath>, _> = serde_json::from_str(r#"["/srv", "etc"]"#);
        assert!(list.unwrap_err().to_string().contains("not absolute"));
    }

    #[test]
    fn a_directory_is_found_by_whole_components() {
        let allowed = [path("/srv"), path("/srv/data"), path("/mnt/disk")];
        let found = |text: &str| {
            NodeDirectory::find(&path(text), &allowed)
                .map(|of| (of.allowed.0.clone(), of.below.clone(), of.path()))
        };
        let expected = |of: &str, below: &str, path: &str| {
            Some((of.to_owned(), below.to_owned(), path.to_owned()))
        };
        assert_eq!(found("/srv/shop"), expected("/srv", "shop", "/srv/shop"));
        assert_eq!(
            found("/srv/data/a/b/"),
            expected("/srv/data", "a/b", "/srv/data/a/b")
        );
        assert_eq!(found("/mnt/disk"), expected("/mnt/disk", "", "/mnt/disk"));
        assert_eq!(
            found("/srv/database"),
            expected("/srv", "database", "/srv/database")
        );
        assert_eq!(found("/mnt"), None);
        assert_eq!(found("/mnt/disk2"), None);
        assert_eq!(found("/etc"), None);
    }
}

//! What a save leaves out, by the patterns of a person.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::path::TreePath;

/// Patterns of paths to leave out.
#[derive(Debug, Default)]
pub struct Excludes {
    any: GlobSet,
    directories: GlobSet,
}

impl Excludes {
    /// Reads patterns: `*.o` matches a name at any depth, `/build` or `a/b` a path
    /// from the top, `cache/` directories only, `**` any number of names.
    ///
    /// # Errors
    /// What is wrong with a pattern.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, globset::Error> {
        let (mut any, mut directories) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let (body, set) = match pattern.strip_suffix('/') {
                Some(body) => (body, &mut directories),
                None => (pattern, &mut any),
            };
            let glob = match body.strip_prefix('/') {
                Some(from_top) => from_top.to_owned(),
                None if body.contains('/') => body.to_owned(),
                None => format!("**/{body}"),
            };
            set.add(GlobBuilder::new(&glob).literal_separator(true).build()?);
        }
        Ok(Self {
            any: any.build()?,
            directories: directories.build()?,
        })
    }

    /// Whether this is left out, with everything in it.
    #[must_use]
    pub fn excludes(&self, path: &TreePath, is_directory: bool) -> bool {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        if path.as_bytes().is_empty() || (self.any.is_empty() && self.directories.is_empty()) {
            return false;
        }
        let path = OsStr::from_bytes(path.as_bytes());
        self.any.is_match(path) || (is_directory && self.directories.is_match(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_paths_and_directories() {
        let excludes = Excludes::new(["*.o", "/build", "cache/", "a/**/z"]).unwrap();
        let excluded = |path: &str, is_directory| {
            excludes.excludes(&TreePath::new(path.into()).unwrap(), is_directory)
        };
        assert!(excluded("x.o", false) && excluded("a/b/x.o", false));
        assert!(excluded("build", true) && !excluded("a/build", true));
        assert!(excluded("a/cache", true) && !excluded("a/cache", false));
        assert!(excluded("a/b/c/z", false) && !excluded("b/z", false));
        assert!(!excluded("", true));
    }
}

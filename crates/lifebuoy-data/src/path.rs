//! Paths as a snapshot holds them: checked names, relative to what was saved. Never
//! holds a name that leads anywhere else.

use std::{cmp::Ordering, fmt};

use crate::{error::Malformed, shown::escaped};

/// Longest path, in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 65_535;
/// Most names in a path.
pub(crate) const DEPTH_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;

/// A path below what was saved; the empty one is what was saved itself.
///
/// Ordered so that a directory comes before what is in it, and that before what is
/// beside it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// Checks the bytes of a path.
    ///
    /// # Errors
    /// [`Malformed`] for an empty name, `.`, `..`, a zero byte, or one too long.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Self(bytes));
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(Malformed("a path is too long"));
        }
        let mut depth = 0;
        for name in bytes.split(|byte| *byte == b'/') {
            depth += 1;
            let odd = name.is_empty() || name == b"." || name == b".." || name.contains(&0);
            if odd || name.len() > NAME_BYTES_MAX {
                return Err(Malformed("a path holds a name that none may have"));
            }
        }
        if depth > DEPTH_MAX {
            return Err(Malformed("a path is too deep"));
        }
        Ok(Self(bytes))
    }

    /// The path of `name` in this directory.
    ///
    /// # Errors
    /// As [`TreePath::new`].
    pub fn join(&self, name: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its names, from the outermost.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// The path of the directory that it is in, and its name there; none for the
    /// empty path.
    #[must_use]
    pub fn split(&self) -> Option<(&[u8], &[u8])> {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => Some((&self.0[..at], &self.0[at + 1..])),
            None if self.0.is_empty() => None,
            None => Some((&[], &self.0)),
        }
    }

    /// What is left of this path below `above`, which it is within.
    #[must_use]
    pub(crate) fn below(&self, above: &Self) -> Self {
        let rest = self.0.get(above.0.len()..).unwrap_or_default();
        Self(rest.strip_prefix(b"/").unwrap_or(rest).to_vec())
    }

    /// Whether this is `above`, or below it.
    #[must_use]
    pub fn is_within(&self, above: &Self) -> bool {
        match self.0.strip_prefix(&*above.0) {
            Some(rest) => above.0.is_empty() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&*self.0, &*other.0);
        let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        match (a.get(same), b.get(same)) {
            (Some(b'/'), Some(_)) => Ordering::Less,
            (Some(_), Some(b'/')) => Ordering::Greater,
            (a, b) => a.cmp(&b),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As it is shown to people: [`escaped`], and the empty path as a dot.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(".");
        }
        f.pad(&escaped(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", escaped(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.into()).unwrap()
    }

    #[test]
    fn a_directory_comes_before_what_is_in_it_and_that_before_what_is_beside_it() {
        let mut paths = ["a.b", "a/c", "a", "", "b", "a/b/z", "a/b", "a-"].map(path);
        paths.sort();
        assert_eq!(
            paths,
            ["", "a", "a/b", "a/b/z", "a/c", "a-", "a.b", "b"].map(path)
        );
    }

    #[test]
    fn no_path_leads_out() {
        for odd in ["/", "/a", "a/", "a//b", "..", "a/../b", ".", "a/.", "a\0b"] {
            assert!(TreePath::new(odd.into()).is_err(), "{odd:?}");
        }
        assert!(TreePath::new(vec![b'a'; 256]).is_err());
        assert!(path("a").join(b"..").is_err());
        assert!(path("a").join(b"b/c").is_ok());
    }

    #[test]
    fn what_is_within_is_told_by_whole_names() {
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("")));
        assert!(!path("ab").is_within(&path("a")));
        assert_eq!(path("a/b").split(), Some((&b"a"[..], &b"b"[..])));
        assert_eq!(path("").split(), None);
    }
}

//! Globs over names: `*`, `?`, `[a-z]`, `{a,b}`. Names have no path separators,
//! so `*` matches any run of characters.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

/// A parsed glob. A pattern without special characters is compared as it is.
#[derive(Clone)]
pub struct Glob {
    text: String,
    matcher: Option<GlobMatcher>,
}

impl Glob {
    /// Parses a glob.
    ///
    /// # Errors
    /// One sentence that names the glob and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a glob must not be empty: use `*` for everything".to_owned());
        }
        if !text.contains(['*', '?', '[', ']', '{', '}', '\\', '!']) {
            return Ok(Self {
                text: text.to_owned(),
                matcher: None,
            });
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(false)
            .backslash_escape(false)
            .build()
            .map_err(|error| format!("`{text}` is not a glob: {}", error.kind()))?;
        Ok(Self {
            text: text.to_owned(),
            matcher: Some(glob.compile_matcher()),
        })
    }

    /// Whether `name` matches, as a whole.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Some(matcher) => matcher.is_match(name),
            None => self.text == name,
        }
    }

    /// The pattern, when it matches only itself.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        self.matcher.is_none().then_some(self.text.as_str())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", self.text)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

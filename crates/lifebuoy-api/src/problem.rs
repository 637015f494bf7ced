//! What a status says about things that went wrong: bounded, and free of
//! anything secret.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many problems a status lists. The report has all of them.
pub const MAX_PROBLEMS: usize = 20;

/// How long one problem's message is, in bytes.
pub const MAX_PROBLEM_BYTES: usize = 256;

/// One thing that went wrong, or that a person should look at.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// A machine-readable reason in CamelCase.
    pub reason: String,
    /// What it is about: a type such as `deployments.apps`, or an object such as
    /// `deployments.apps shop/web`. Empty when it is about the whole request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// One sentence for a person, at most 256 bytes. Never the content of a Secret.
    pub message: String,
}

/// How bad a problem is.
#[derive(
    Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum Severity {
    /// Worth a look; nothing is missing.
    Warning,
    /// Something that was asked for is missing or was not done.
    Error,
}

impl Problem {
    /// A problem of which something that was asked for is missing or undone.
    pub fn error(reason: impl Into<String>, subject: impl Into<String>, message: &str) -> Self {
        Self {
            severity: Severity::Error,
            reason: reason.into(),
            subject: subject.into(),
            message: bounded(message, MAX_PROBLEM_BYTES),
        }
    }

    /// A problem that leaves nothing missing.
    pub fn warning(reason: impl Into<String>, subject: impl Into<String>, message: &str) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(reason, subject, message)
        }
    }
}

/// `text`, cut at a character boundary to at most `limit` bytes, with an
/// ellipsis where something was cut.
#[must_use]
pub fn bounded(text: &str, limit: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub(ELLIPSIS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_at_character_boundaries() {
        assert_eq!(bounded("short", 256), "short");
        let long = "ä".repeat(300);
        let cut = bounded(&long, 256);
        assert!(cut.len() <= 256 && cut.ends_with('…'), "{}", cut.len());
    }
}

//! What is printed, made harmless: whoever wrote a name or a message, a terminal shows it
//! and does nothing else. Pure.

use std::borrow::Cow;

use lifebuoy_data::{escape, is_active};

/// A text of one line, with what a terminal would obey as `\033`.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    inert(text, is_active, escape)
}

/// As [`line`], of a text whose line breaks are meant.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    inert(text, is_active_in_lines, escape)
}

/// A text in which `escape` writes what is active.
fn inert(
    text: &str,
    is_active: impl Fn(char) -> bool,
    escape: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if !text.chars().any(&is_active) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_active(c) {
            escape(c, &mut shown);
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A JSON document that says the same. JSON itself escapes only some of these characters,
/// and they can only be in its strings.
pub(crate) fn json(document: &str) -> Cow<'_, str> {
    inert(document, is_active_in_lines, |c, shown| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            shown.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

fn is_active_in_lines(c: char) -> bool {
    c != '\n' && is_active(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(line("a\nb\u{1b}[2J"), r"a\nb\033[2J");
        assert_eq!(lines("a\nb\u{1b}[2J"), "a\nb\\033[2J");
        assert_eq!(line("C:\\größer"), "C:\\größer");
    }

    #[test]
    fn a_document_says_the_same_and_does_nothing() {
        let value = serde_json::json!({"name": "\u{9b}2J\u{7f}\u{202e}\u{1b}\n"});
        let plain = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&plain);
        assert!(
            !shown.chars().any(|c| c != '\n' && is_active(c)),
            "{shown:?}"
        );
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, value);
    }
}

//! Names as people are shown them. A name may hold any byte, and a terminal obeys some of
//! them; nothing that is escaped here tells it to do anything.

use std::fmt::Write as _;

/// A name as `ls -b` shows it: control characters, what reverses the direction of text,
/// and bytes that are not UTF-8 as `\n` or `\033`, a backslash as two. Two names never
/// look the same.
#[must_use]
pub fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\t' => text.push_str("\\t"),
                c if is_active(c) => escape(c, &mut text),
                c => text.push(c),
            }
        }
        octal(chunk.invalid(), &mut text);
    }
    text
}

/// Whether a terminal does something at this character, besides showing it. Tabs are
/// harmless.
#[must_use]
pub fn is_active(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && c != '\t')
}

/// Appends a character as `\n` or `\033`.
pub fn escape(c: char, text: &mut String) {
    match c {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        c => octal(c.encode_utf8(&mut [0; 4]).as_bytes(), text),
    }
}

fn octal(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "\\{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_ls_shows_them() {
        for (name, shown) in [
            (&b"plain name"[..], "plain name"),
            ("größer 大".as_bytes(), "größer 大"),
            (b"a\nb\tc\rd", r"a\nb\tc\rd"),
            (b"\x1b[31mred\x07\x7f", r"\033[31mred\007\177"),
            (b"not \xff UTF-8 \xc3", r"not \377 UTF-8 \303"),
            (
                "\u{9b}2J\u{202e}gpj".as_bytes(),
                r"\302\2332J\342\200\256gpj",
            ),
            (br"a\nb", r"a\\nb"),
        ] {
            assert_eq!(escaped(name), shown);
        }
    }

    #[test]
    fn no_byte_of_a_name_reaches_a_terminal_as_more_than_text() {
        for byte in 0..=255_u8 {
            let shown = escaped(&[b'a', byte, b'b']);
            assert!(!shown.chars().any(is_active), "{byte}: {shown:?}");
        }
    }
}

//! How entries of a snapshot are printed, each on its own: there may be more of them than
//! memory has room for. Names are escaped, except that JSON has those that are UTF-8 as
//! they are.

use std::io::{self, Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use lifebuoy_data::{Change, Entry, Kind, escaped};
use serde_json::{Value, json};

use crate::{args::Format, output::inert};

/// JSON and YAML are a document a line: there is no end of a list to wait for.
pub(super) fn write_entry(out: &mut impl Write, entry: &Entry, format: Format) -> io::Result<()> {
    match format {
        Format::Name => writeln!(out, "{}", entry.path),
        Format::Json | Format::Yaml => write_value(out, &entry_value(entry)),
        Format::Table => {
            let (letter, size, target) = kind(entry);
            let arrow = if target.is_empty() { "" } else { " -> " };
            writeln!(
                out,
                "{letter} {:04o} {:>6} {:>6} {size:>14} {} {}{arrow}{}",
                entry.meta.mode,
                entry.meta.uid,
                entry.meta.gid,
                time(entry),
                entry.path,
                escaped(&target),
            )
        }
    }
}

pub(super) fn write_change(
    out: &mut impl Write,
    change: Change,
    entry: &Entry,
    format: Format,
) -> io::Result<()> {
    let (letter, word) = match change {
        Change::Added => ('+', "added"),
        Change::Removed => ('-', "removed"),
        Change::Contents => ('M', "contents"),
        Change::Meta => ('m', "metadata"),
    };
    match format {
        Format::Table => writeln!(out, "{letter} {}", entry.path),
        Format::Name => writeln!(out, "{}", entry.path),
        Format::Json | Format::Yaml => {
            let mut value = entry_value(entry);
            value["change"] = json!(word);
            write_value(out, &value)
        }
    }
}

fn write_value(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{}", inert::json(&value.to_string()))
}

fn time(entry: &Entry) -> String {
    let modified = entry.meta.modified;
    chrono::DateTime::from_timestamp(modified.seconds, modified.nanoseconds)
        .map_or_else(|| modified.seconds.to_string(), |time| time.to_rfc3339())
}

/// A letter as of `ls`, the size in bytes, and what it points to.
fn kind(entry: &Entry) -> (char, u64, Vec<u8>) {
    let device = |major, minor| format!("{major}:{minor}").into_bytes();
    match &entry.kind {
        Kind::Directory => ('d', 0, Vec::new()),
        Kind::File { size, .. } => ('-', *size, Vec::new()),
        Kind::Symlink(target) => ('l', 0, target.clone()),
        Kind::Fifo => ('p', 0, Vec::new()),
        Kind::Socket => ('s', 0, Vec::new()),
        Kind::CharDevice { major, minor } => ('c', 0, device(major, minor)),
        Kind::BlockDevice { major, minor } => ('b', 0, device(major, minor)),
        Kind::HardLink(first) => ('h', 0, first.as_bytes().to_vec()),
    }
}

fn entry_value(entry: &Entry) -> Value {
    let (letter, size, target) = kind(entry);
    let mut value = json!({
        "kind": letter,
        "size": size,
        "mode": format!("{:04o}", entry.meta.mode),
        "uid": entry.meta.uid,
        "gid": entry.meta.gid,
        "modified": time(entry),
    });
    let path = match entry.path.as_bytes() {
        b"" => b".",
        path => path,
    };
    put_name(&mut value, "path", path);
    put_name(&mut value, "target", &target);
    value
}

/// A name that is not UTF-8 is escaped, and is as it is in a second field.
fn put_name(value: &mut Value, field: &str, name: &[u8]) {
    match std::str::from_utf8(name) {
        Ok(text) => value[field] = json!(text),
        Err(_) => {
            value[field] = json!(escaped(name));
            value[format!("{field}Base64")] = json!(BASE64_STANDARD.encode(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_data::{Meta, TreePath};

    use super::*;

    fn shown(path: &[u8], format: Format) -> String {
        let entry = Entry {
            path: TreePath::new(path.to_vec()).unwrap(),
            meta: Meta::default(),
            kind: Kind::Symlink(b"\x1b]0;title\x07".to_vec()),
        };
        let mut out = Vec::new();
        write_entry(&mut out, &entry, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_name_is_one_line_and_tells_the_terminal_nothing() {
        let name = b"a\n\x1b[2J\xff";
        assert_eq!(shown(name, Format::Name), "a\\n\\033[2J\\377\n");
        let line = shown(name, Format::Table);
        assert!(
            line.ends_with("a\\n\\033[2J\\377 -> \\033]0;title\\007\n"),
            "{line}"
        );
    }

    #[test]
    fn json_has_every_name_as_it_is() {
        let value: Value = serde_json::from_str(&shown(b"a\xff", Format::Json)).unwrap();
        assert_eq!(value["path"], "a\\377");
        assert_eq!(value["pathBase64"], "Yf8=");
        assert_eq!(value["target"], "\u{1b}]0;title\u{7}");
        let utf8 = shown("a\\n\u{9b}".as_bytes(), Format::Json);
        assert!(utf8.contains(r#""path":"a\\n\u009b""#), "{utf8}");
        assert!(!utf8.contains("pathBase64"), "{utf8}");
    }
}

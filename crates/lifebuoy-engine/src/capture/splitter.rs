//! Cuts the body of a list into its items as the bytes arrive. Holds one item
//! at a time and looks at nothing inside it.
//!
//! `metadata` may stand before or after `items`; servers do both.

use memchr::memchr2;
use serde::Deserialize;

/// The largest item that is taken, in bytes. etcd's own limit is far below;
/// only an aggregated API could have more.
pub(crate) const ITEM_BYTES_MAX: usize = 8 << 20;

/// What a list says of itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    #[serde(default)]
    pub(crate) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(crate) continue_token: String,
    #[serde(default)]
    pub(crate) remaining_item_count: Option<u64>,
}

/// Why a body is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    #[error("the list is malformed at byte {at}")]
    Malformed { at: u64 },
    #[error("the list ends in the middle")]
    Truncated,
    #[error("an item is larger than {} MiB", ITEM_BYTES_MAX >> 20)]
    ItemTooLarge,
    #[error("the list's metadata is malformed: {0}")]
    Metadata(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the list's opening brace.
    Begin,
    /// Before a key; the list may end here if nothing came yet.
    Key {
        may_end: bool,
    },
    Colon(Field),
    /// Before a value.
    Value(Field),
    /// In a value that began at the start of the buffer.
    InValue(Field),
    /// After a value: a comma or the end of the list.
    AfterValue,
    /// In `items`, before an item; the array may end here if nothing came yet.
    Item {
        may_end: bool,
    },
    InItem,
    AfterItem,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Metadata,
    Items,
    Other,
}

/// See the module.
pub(crate) struct ListSplitter {
    buffer: Vec<u8>,
    /// Everything before it was used.
    start: usize,
    /// Everything before it was looked at; only beyond `start` inside a value.
    scanned: usize,
    state: State,
    scan: ValueScan,
    items_seen: bool,
    meta: ListMeta,
    /// Bytes that left the buffer, for error messages.
    dropped: u64,
}

impl ListSplitter {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            state: State::Begin,
            scan: ValueScan::default(),
            items_seen: false,
            meta: ListMeta::default(),
            dropped: 0,
        }
    }

    /// Adds bytes of the body. All items of earlier bytes should have been taken.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.dropped += self.start as u64;
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item that is complete; none when more bytes are needed, or when
    /// the list has ended.
    pub(crate) fn next_item(&mut self) -> Result<Option<&[u8]>, SplitError> {
        while let Some(step) = self.step()? {
            if let Step::Item(from, to) = step {
                return Ok(Some(&self.buffer[from..to]));
            }
        }
        Ok(None)
    }

    /// What the list says of itself, once its body has ended.
    pub(crate) fn finish(self) -> Result<ListMeta, SplitError> {
        if self.state == State::End {
            Ok(self.meta)
        } else {
            Err(SplitError::Truncated)
        }
    }

    /// One transition; none when more bytes are needed.
    fn step(&mut self) -> Result<Option<Step>, SplitError> {
        match self.state {
            State::InItem => return self.in_item(),
            State::InValue(field) => return self.in_value(field),
            _ => {}
        }
        let Some(byte) = self.peek() else {
            return Ok(None);
        };
        match (self.state, byte) {
            (State::Begin, b'{') => self.advance(State::Key { may_end: true }),
            (State::Key { .. }, b'"') => return self.key(),
            (State::Key { may_end: true }, b'}') | (State::AfterValue, b'}') => {
                self.advance(State::End);
            }
            (State::Colon(field), b':') => self.advance(State::Value(field)),
            (State::Value(Field::Items), b'[') if !self.items_seen => {
                self.items_seen = true;
                self.advance(State::Item { may_end: true });
            }
            (State::Value(field), _) => {
                self.scan = ValueScan::default();
                self.scanned = self.start;
                self.state = State::InValue(field);
            }
            (State::AfterValue, b',') => self.advance(State::Key { may_end: false }),
            (State::Item { may_end: true }, b']') | (State::AfterItem, b']') => {
                self.advance(State::AfterValue);
            }
            (State::Item { .. }, b'{') => {
                self.scan = ValueScan::default();
                self.scanned = self.start;
                self.state = State::InItem;
            }
            (State::AfterItem, b',') => self.advance(State::Item { may_end: false }),
            _ => return Err(self.malformed()),
        }
        Ok(Some(Step::Moved))
    }

    /// The next byte that is no white space. Moves up to it.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.buffer[self.start..];
        let skip = rest
            .iter()
            .position(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t'));
        self.start += skip.unwrap_or(rest.len());
        self.scanned = self.scanned.max(self.start);
        self.buffer.get(self.start).copied()
    }

    fn advance(&mut self, state: State) {
        self.start += 1;
        self.scanned = self.scanned.max(self.start);
        self.state = state;
    }

    fn key(&mut self) -> Result<Option<Step>, SplitError> {
        // Keys of a list are short, so looking at one again costs nothing.
        let mut scan = ValueScan::default();
        let Some(length) = scan.end(&self.buffer[self.start..]) else {
            return self.within_limit();
        };
        let field = match &self.buffer[self.start..self.start + length] {
            b"\"metadata\"" => Field::Metadata,
            b"\"items\"" => Field::Items,
            _ => Field::Other,
        };
        self.start += length;
        self.scanned = self.start;
        self.state = State::Colon(field);
        Ok(Some(Step::Moved))
    }

    fn in_item(&mut self) -> Result<Option<Step>, SplitError> {
        let Some((from, to)) = self.whole_value()? else {
            return Ok(None);
        };
        self.state = State::AfterItem;
        Ok(Some(Step::Item(from, to)))
    }

    fn in_value(&mut self, field: Field) -> Result<Option<Step>, SplitError> {
        let Some((from, to)) = self.whole_value()? else {
            return Ok(None);
        };
        let value = &self.buffer[from..to];
        match field {
            // An array would be read as a struct, too.
            Field::Metadata if value[0] != b'{' => return Err(self.malformed()),
            Field::Metadata => {
                self.meta = serde_json::from_slice(value)
                    .map_err(|error| SplitError::Metadata(error.to_string()))?;
            }
            // An empty list may be `null`.
            Field::Items if value != b"null" => return Err(self.malformed()),
            Field::Items | Field::Other => {
                serde_json::from_slice::<serde::de::IgnoredAny>(value)
                    .map_err(|_| self.malformed())?;
            }
        }
        self.state = State::AfterValue;
        Ok(Some(Step::Moved))
    }

    /// The bounds of the value that begins at `start`, once it is complete.
    fn whole_value(&mut self) -> Result<Option<(usize, usize)>, SplitError> {
        match self.scan.end(&self.buffer[self.scanned..]) {
            Some(length) => {
                let (from, to) = (self.start, self.scanned + length);
                if to == from {
                    return Err(self.malformed());
                }
                if to - from > ITEM_BYTES_MAX {
                    return Err(SplitError::ItemTooLarge);
                }
                self.start = to;
                self.scanned = to;
                Ok(Some((from, to)))
            }
            None => {
                self.scanned = self.buffer.len();
                self.within_limit()
            }
        }
    }

    fn within_limit<T>(&self) -> Result<Option<T>, SplitError> {
        if self.buffer.len() - self.start > ITEM_BYTES_MAX {
            Err(SplitError::ItemTooLarge)
        } else {
            Ok(None)
        }
    }

    fn malformed(&self) -> SplitError {
        SplitError::Malformed {
            at: self.dropped + self.start as u64,
        }
    }
}

enum Step {
    Moved,
    Item(usize, usize),
}

/// Finds the end of one JSON value, over as many pieces as it comes in. Only
/// brackets and strings are understood: what is between them is checked by
/// whoever parses the value.
#[derive(Default)]
struct ValueScan {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl ValueScan {
    /// Where the value ends in `bytes`, which follow those of earlier calls.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string {
                at += self.string_end(&bytes[at..])?;
                if self.depth == 0 && !self.in_string {
                    return Some(at);
                }
                continue;
            }
            match bytes[at] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' | b']' if self.depth == 1 => {
                    self.depth = 0;
                    return Some(at + 1);
                }
                // A number or word ends before what follows it.
                b'}' | b']' => return Some(at),
                b',' | b' ' | b'\n' | b'\r' | b'\t' if self.depth == 0 => return Some(at),
                _ => {}
            }
            at += 1;
        }
        None
    }

    /// How far the string goes in `bytes`: behind its closing quote or behind
    /// one escape. None when it goes on beyond them.
    fn string_end(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.escaped {
            self.escaped = false;
            return Some(1);
        }
        let at = memchr2(b'"', b'\\', bytes)?;
        if bytes[at] == b'"' {
            self.in_string = false;
        } else {
            self.escaped = true;
        }
        Some(at + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn split(body: &[u8], pieces: &[usize]) -> Result<(Vec<Value>, ListMeta), String> {
        let mut splitter = ListSplitter::new();
        let mut items = Vec::new();
        let mut rest = body;
        let mut sizes = pieces.iter().copied().cycle();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
            splitter.feed(&rest[..size]);
            rest = &rest[size..];
            while let Some(item) = splitter.next_item().map_err(|e| e.to_string())? {
                items.push(serde_json::from_slice(item).map_err(|e| e.to_string())?);
            }
        }
        Ok((items, splitter.finish().map_err(|e| e.to_string())?))
    }

    #[test]
    fn metadata_may_stand_on_either_side_of_the_items() {
        for body in [
            r#"{"kind":"L","metadata":{"resourceVersion":"7","continue":"c","remainingItemCount":3},"items":[{"a":1},{"b":"}"}]}"#,
            r#" { "items" : [ {"a":1} , {"b":"}"} ] , "kind" : "L" , "metadata" : {"resourceVersion":"7","continue":"c","remainingItemCount":3} } "#,
        ] {
            let (items, meta) = split(body.as_bytes(), &[1]).unwrap();
            assert_eq!(items, [json!({"a":1}), json!({"b":"}"})]);
            assert_eq!(meta.resource_version, "7");
            assert_eq!(meta.continue_token, "c");
            assert_eq!(meta.remaining_item_count, Some(3));
        }
    }

    #[test]
    fn an_empty_list_has_no_items_in_either_form() {
        for items in ["[]", "null", "[ ]"] {
            let body = format!(r#"{{"items":{items},"metadata":{{"resourceVersion":"1"}}}}"#);
            let (items, meta) = split(body.as_bytes(), &[3]).unwrap();
            assert!(items.is_empty());
            assert_eq!(meta.resource_version, "1");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for body in [
            "",
            "[]",
            "{",
            r#"{"items":[{"a":1}]"#,
            r#"{"items":[1]}"#,
            r#"{"items":[{}{}]}"#,
            r#"{"items":{}}"#,
            r#"{"items":[],"items":[{}]}"#,
            r#"{"items":[{},]}"#,
            r#"{"items":[{}]}x"#,
            r#"{"metadata":[]}"#,
        ] {
            assert!(split(body.as_bytes(), &[2]).is_err(), "{body}");
        }
    }

    #[test]
    fn an_item_above_the_limit_is_refused_before_it_is_held_whole() {
        let mut splitter = ListSplitter::new();
        splitter.feed(br#"{"items":[{"a":""#);
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..=(ITEM_BYTES_MAX >> 20)).any(|_| {
            splitter.feed(&piece);
            splitter.next_item() == Err(SplitError::ItemTooLarge)
        });
        assert!(refused);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~äπ\\n\\\\\"{}\\[\\],:]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[a-z\"\\\\{]{0,5}", inner), 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn any_list() -> impl Strategy<Value = (Value, Vec<Value>)> {
        let item = prop::collection::vec(("[a-z\"\\\\]{0,4}", any_json()), 0..4)
            .prop_map(|m| Value::Object(m.into_iter().collect()));
        (prop::collection::vec(item, 0..6), any_json()).prop_map(|(items, other)| {
            let list = json!({"apiVersion": other, "items": items, "kind": "L",
                "metadata": {"resourceVersion": "42"}});
            (list, items)
        })
    }

    proptest! {
        #[test]
        fn the_items_are_those_that_a_whole_parse_finds(
            (list, expected) in any_list(),
            pretty: bool,
            pieces in prop::collection::vec(1_usize..40, 1..8),
        ) {
            let body = if pretty {
                serde_json::to_vec_pretty(&list).unwrap()
            } else {
                serde_json::to_vec(&list).unwrap()
            };
            let (items, meta) = split(&body, &pieces).unwrap();
            prop_assert_eq!(items, expected);
            prop_assert_eq!(meta.resource_version, "42");
        }

        #[test]
        fn mutations_never_panic_and_never_read_more_than_a_whole_parse(
            (list, _) in any_list(),
            at: prop::sample::Index,
            byte: u8,
            cut: prop::sample::Index,
            pieces in prop::collection::vec(1_usize..40, 1..4),
        ) {
            let mut body = serde_json::to_vec(&list).unwrap();
            let index = at.index(body.len());
            body[index] = byte;
            body.truncate(cut.index(body.len() * 4).max(1));
            if let Ok((items, _)) = split(&body, &pieces)
                && let Ok(whole) = serde_json::from_slice::<Value>(&body)
            {
                let expected = whole["items"].as_array().cloned().unwrap_or_default();
                prop_assert_eq!(items, expected);
            }
        }
    }
}

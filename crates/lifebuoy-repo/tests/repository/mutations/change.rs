//! Draws one change of what is stored: bytes, places, names. Never looks into
//! the library: a key is text and an object is bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::{Rng, RngExt, rngs::StdRng, seq::IndexedRandom};

/// Positions are drawn from the ends of an object as often as from all of it:
/// headers, trailers and footers are short.
const EDGE_BYTES: usize = 128;

/// How an object is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    FlipBits,
    SetBytes,
    Truncate,
    Extend,
    DuplicateRange,
    ZeroRange,
    CutRange,
    Swap,
    CopyToOtherName,
    Delete,
}

impl How {
    pub(crate) const ALL: [Self; 10] = [
        Self::FlipBits,
        Self::SetBytes,
        Self::Truncate,
        Self::Extend,
        Self::DuplicateRange,
        Self::ZeroRange,
        Self::CutRange,
        Self::Swap,
        Self::CopyToOtherName,
        Self::Delete,
    ];
}

/// One change: what lies where afterwards, `None` where nothing does any more.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) how: How,
    /// The kind of the object that was drawn, as its key begins.
    pub(crate) kind: String,
    pub(crate) objects: BTreeMap<String, Option<Bytes>>,
}

/// The kind of an object. Data and metadata packs are two, and so are the runs of
/// the index and their parts.
pub(crate) fn kind(key: &str) -> &str {
    match key.split_once('/') {
        Some(("packs", _)) => key.rsplit('.').next().unwrap_or(key),
        Some(("index", rest)) => rest.split_once('/').map_or("index", |(kind, _)| kind),
        Some((kind, _)) => kind,
        None => key,
    }
}

/// What is stored, in an order that does not depend on the keys of the
/// repository: so a seed means the same change in every run.
pub(crate) struct Stored {
    pub(crate) bytes: BTreeMap<String, Bytes>,
    order: Vec<String>,
}

impl Stored {
    pub(crate) fn new(objects: Vec<(String, Bytes)>) -> Self {
        let mut order: Vec<String> = objects.iter().map(|(key, _)| key.clone()).collect();
        // What stands between, the cluster, is a hash that differs between runs.
        let place = |key: &String| {
            (
                kind(key).to_owned(),
                key.rsplit('/').next().map(str::to_owned),
            )
        };
        order.sort_by_key(|key| (place(key), key.clone()));
        Self {
            bytes: objects.into_iter().collect(),
            order,
        }
    }

    fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = self.order.iter().map(|key| kind(key)).collect();
        kinds.dedup();
        kinds
    }
}

impl Change {
    /// Draws a change of the objects of a repository.
    pub(crate) fn draw(stored: &Stored, rng: &mut StdRng) -> Self {
        let of = *stored.kinds().choose(rng).unwrap();
        let same: Vec<&String> = stored.order.iter().filter(|key| kind(key) == of).collect();
        let key = *same.choose(rng).unwrap();
        let bytes = &stored.bytes[key];
        let how = *How::ALL.choose(rng).unwrap();
        let objects = match how {
            How::Swap => {
                // One that is the only one of its kind trades with itself.
                let others: Vec<_> = same.iter().filter(|other| **other != key).collect();
                let other = others.choose(rng).map_or(key, |other| **other);
                BTreeMap::from([
                    (key.clone(), Some(stored.bytes[other].clone())),
                    (other.clone(), Some(bytes.clone())),
                ])
            }
            How::CopyToOtherName => {
                let name = other_name(key, &stored.order, rng);
                BTreeMap::from([(name, Some(bytes.clone()))])
            }
            How::Delete => BTreeMap::from([(key.clone(), None)]),
            _ => BTreeMap::from([(key.clone(), Some(change_bytes(how, bytes, rng).into()))]),
        };
        Self {
            how,
            kind: of.to_owned(),
            objects,
        }
    }

    /// True if an object of this kind is gone.
    pub(crate) fn deletes(&self, of: &str) -> bool {
        self.objects
            .iter()
            .any(|(key, bytes)| bytes.is_none() && kind(key) == of)
    }

    pub(crate) fn touches(&self, key: &str) -> bool {
        self.objects.contains_key(key)
    }

    pub(crate) fn touches_kind(&self, of: &str) -> bool {
        self.objects.keys().any(|key| kind(key) == of)
    }

    /// True if everything is as it was: a byte was set to what it was.
    pub(crate) fn is_none(&self, stored: &Stored) -> bool {
        self.objects
            .iter()
            .all(|(key, bytes)| stored.bytes.get(key) == bytes.as_ref())
    }
}

fn position(len: usize, rng: &mut StdRng) -> usize {
    let edge = EDGE_BYTES.min(len);
    match rng.random_range(0..4) {
        0 => rng.random_range(0..edge),
        1 => len - 1 - rng.random_range(0..edge),
        _ => rng.random_range(0..len),
    }
}

/// A range that is not empty.
fn range(len: usize, rng: &mut StdRng) -> std::ops::Range<usize> {
    let start = position(len, rng);
    let longest = if rng.random() { 64 } else { len };
    start..start + rng.random_range(1..=longest.min(len - start))
}

fn change_bytes(how: How, bytes: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    match how {
        How::FlipBits => {
            for _ in 0..rng.random_range(1..=4) {
                out[position(bytes.len(), rng)] ^= 1 << rng.random_range(0..8);
            }
        }
        How::SetBytes => {
            for _ in 0..rng.random_range(1..=8) {
                let byte = *[0, 1, 0x7f, 0x80, 0xff, rng.random()].choose(rng).unwrap();
                out[position(bytes.len(), rng)] = byte;
            }
        }
        How::Truncate => out.truncate(position(bytes.len(), rng)),
        How::Extend => {
            let more = rng.random_range(1..=5000);
            out.resize(bytes.len() + more, 0);
            if rng.random() {
                rng.fill_bytes(&mut out[bytes.len()..]);
            }
        }
        How::DuplicateRange => {
            let range = range(bytes.len(), rng);
            out.splice(range.end..range.end, bytes[range].iter().copied());
        }
        How::ZeroRange => out[range(bytes.len(), rng)].fill(0),
        How::CutRange => drop(out.drain(range(bytes.len(), rng))),
        How::Swap | How::CopyToOtherName | How::Delete => {}
    }
    out
}

/// A valid name that is not this one: of another object, or of none.
fn other_name(key: &str, all: &[String], rng: &mut StdRng) -> String {
    let keys: Vec<&String> = all.iter().filter(|other| *other != key).collect();
    let model = match rng.random() {
        true => key,
        false => keys.choose(rng).unwrap().as_str(),
    };
    if model != key && rng.random() {
        return model.to_owned();
    }
    let id = match rng.random() {
        true => hex(&rng.random()),
        false => session_in(keys.choose(rng).unwrap()).unwrap_or_else(|| hex(&rng.random())),
    };
    let number: u32 = rng.random_range(0..5);
    let (first, rest) = model.split_once('/').unwrap();
    let cluster = rest.split('/').next().unwrap();
    match kind(model) {
        // As if it stood in for something that is there.
        "index" | "parts" | "data" | "meta" if rng.random_ratio(1, 4) => format!("mend/{model}"),
        "runs" => format!("index/runs/{number}"),
        "parts" => format!("index/parts/{number}-{id}"),
        "gc" => format!(
            "gc/{number}.{}",
            if rng.random() { "plan" } else { "final" }
        ),
        "pin" => format!("pin/{id}/{number}"),
        "keeper" => format!("keeper/{number}"),
        "format" => format!("format/{number}"),
        "open" => format!("open/{cluster}/{number}-{id}"),
        "end" => format!("end/{cluster}/{id}"),
        "beat" => format!("beat/{id}/{number}"),
        "data" | "meta" => {
            let spread = u8::from_str_radix(&id[..2], 16).unwrap();
            let folder = spread.wrapping_add(number as u8);
            let suffix = if rng.random() { "data" } else { "meta" };
            format!("packs/{folder:02x}/{id}-{number}.{suffix}")
        }
        _ => format!("{first}/{id}"),
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last 32 hexadecimal digits in a row.
fn session_in(key: &str) -> Option<String> {
    let mut ids = key.split(|c: char| !c.is_ascii_hexdigit());
    ids.rfind(|id| id.len() == 32).map(str::to_owned)
}

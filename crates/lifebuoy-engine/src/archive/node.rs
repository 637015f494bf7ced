//! The nodes of a type's search tree: their bytes, written and read.
//!
//! Reading never trusts: every count is checked against what is left of the
//! input before anything is allocated.

use bytes::Bytes;
use lifebuoy_repo::{CHUNK_BYTES_MAX, ChunkId};

use super::{ObjectHash, ObjectKey};

/// The version of the encoding, in every node's first byte.
const NODE_VERSION: u8 = 1;
const LEAF: u8 = 0;
/// The deepest tree that is written or read; 2⁵ children a node make this
/// enough for more objects than any cluster has.
pub(crate) const DEPTH_MAX: u8 = 12;
/// The longest namespace or name that is read, in bytes.
const NAME_BYTES_MAX: usize = 4096;
/// The longest column of an object, in bytes: it is never cut in two.
pub(crate) const OBJECT_BYTES_MAX: u64 = CHUNK_BYTES_MAX as u64;

/// One object in a segment. Its offsets follow from the lengths before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: ObjectKey,
    pub(crate) stable_bytes: u64,
    pub(crate) volatile_bytes: u64,
    pub(crate) hash: ObjectHash,
}

/// A run of objects, stored as two chunks. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) stable: ChunkId,
    pub(crate) volatile: ChunkId,
    pub(crate) entries: Vec<Entry>,
}

/// A node below another. Everything in it is at or after `first`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) first: ObjectKey,
    pub(crate) objects: u64,
    pub(crate) node: ChunkId,
}

/// A node of the tree. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Leaf(Vec<Segment>),
    /// The level is 1 directly above leaves.
    Inner(u8, Vec<Child>),
}

impl Node {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![NODE_VERSION];
        match self {
            Self::Leaf(segments) => {
                out.push(LEAF);
                put_number(&mut out, segments.len() as u64);
                for segment in segments {
                    put_segment(&mut out, segment);
                }
            }
            Self::Inner(level, children) => {
                out.push(*level);
                put_number(&mut out, children.len() as u64);
                for child in children {
                    put_key(&mut out, &child.first);
                    put_number(&mut out, child.objects);
                    out.extend_from_slice(child.node.as_bytes());
                }
            }
        }
        out.into()
    }

    /// Reads a node; the message says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut input = Input(bytes);
        let version = input.byte()?;
        if version != NODE_VERSION {
            return Err(format!("node version {version} is not known"));
        }
        let level = input.byte()?;
        if level > DEPTH_MAX {
            return Err(format!("level {level} is deeper than any tree"));
        }
        let node = if level == LEAF {
            Self::Leaf(input.many(SEGMENT_BYTES_MIN, Input::segment)?)
        } else {
            Self::Inner(level, input.many(CHILD_BYTES_MIN, Input::child)?)
        };
        if !input.0.is_empty() {
            return Err(format!("{} bytes follow the node", input.0.len()));
        }
        node.check_order()?;
        Ok(node)
    }

    fn check_order(&self) -> Result<(), String> {
        let sorted = match self {
            Self::Leaf(segments) => segments
                .iter()
                .flat_map(|s| &s.entries)
                .is_sorted_by(|a, b| a.key < b.key),
            Self::Inner(_, children) => children.is_sorted_by(|a, b| a.first < b.first),
        };
        if sorted {
            Ok(())
        } else {
            Err("its keys are not in order".to_owned())
        }
    }
}

const ENTRY_BYTES_MIN: usize = 4 + ObjectHash::BYTES;
const SEGMENT_BYTES_MIN: usize = 64 + 1 + ENTRY_BYTES_MIN;
const CHILD_BYTES_MIN: usize = 3 + 32;

fn put_segment(out: &mut Vec<u8>, segment: &Segment) {
    out.extend_from_slice(segment.stable.as_bytes());
    out.extend_from_slice(segment.volatile.as_bytes());
    put_number(out, segment.entries.len() as u64);
    for entry in &segment.entries {
        put_key(out, &entry.key);
        put_number(out, entry.stable_bytes);
        put_number(out, entry.volatile_bytes);
        out.extend_from_slice(&entry.hash.0);
    }
}

fn put_key(out: &mut Vec<u8>, key: &ObjectKey) {
    for part in [&key.namespace, &key.name] {
        put_number(out, part.len() as u64);
        out.extend_from_slice(part.as_bytes());
    }
}

/// LEB128: seven bits a byte, the low ones first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| "it ends too early".to_owned())?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err("a number is not in its shortest form".to_owned());
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number is too long".to_owned())
    }

    /// A count, then that many items of at least `min` bytes each; one at least.
    fn many<T>(
        &mut self,
        min: usize,
        item: fn(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let count = self.number()?;
        if count == 0 || count > (self.0.len() / min) as u64 {
            return Err(format!("{count} items do not fit it"));
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length > NAME_BYTES_MAX {
            return Err(format!("a name of {length} bytes is too long"));
        }
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn key(&mut self) -> Result<ObjectKey, String> {
        Ok(ObjectKey {
            namespace: self.text()?,
            name: self.text()?,
        })
    }

    fn chunk(&mut self) -> Result<ChunkId, String> {
        let mut id = [0; 32];
        id.copy_from_slice(self.take(32)?);
        Ok(ChunkId::from_bytes(id))
    }

    fn segment(&mut self) -> Result<Segment, String> {
        Ok(Segment {
            stable: self.chunk()?,
            volatile: self.chunk()?,
            entries: self.many(ENTRY_BYTES_MIN, Self::entry)?,
        })
    }

    fn entry(&mut self) -> Result<Entry, String> {
        let key = self.key()?;
        let length = |input: &mut Self| {
            let bytes = input.number()?;
            if bytes > OBJECT_BYTES_MAX {
                return Err(format!("an object of {bytes} bytes is too large"));
            }
            Ok(bytes)
        };
        let stable_bytes = length(self)?;
        let volatile_bytes = length(self)?;
        let mut hash = [0; ObjectHash::BYTES];
        hash.copy_from_slice(self.take(ObjectHash::BYTES)?);
        Ok(Entry {
            key,
            stable_bytes,
            volatile_bytes,
            hash: ObjectHash(hash),
        })
    }

    fn child(&mut self) -> Result<Child, String> {
        Ok(Child {
            first: self.key()?,
            objects: self.number()?,
            node: self.chunk()?,
        })
    }
}

//! Nodes of the tree and of maps, to bytes and back. Never does I/O; whatever the
//! bytes are, decoding takes memory in proportion to their length.

use std::collections::HashMap;

use lifebuoy_repo::ChunkId;

use crate::{
    entry::{Attributes, Content, Entry, Extent, Kind, Meta, Pairs, Time},
    error::Malformed,
    path::{PATH_BYTES_MAX, TreePath},
    wire::{Fields, put_count, put_number, put_signed, put_text},
};

const VERSION: u8 = 1;
/// Levels of a tree or map.
pub(crate) const LEVEL_MAX: u8 = 12;
const CHUNK_ID_BYTES: usize = 32;
/// Bytes of the shortest entry, child and item.
const ENTRY_BYTES_MIN: usize = 17;
const CHILD_BYTES_MIN: usize = 34;
const ITEM_BYTES_MIN: usize = 34;
const EXTENT_BYTES_MIN: usize = 3;
/// Longest symbolic link, and longest attribute name or value: Linux allows less.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Sizes and positions stay below this.
const SIZE_MAX: u64 = 1 << 63;

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Leaf(Leaf),
    Inner(u8, Vec<Child>),
}

/// The entries of a leaf, and all chunks that they lead to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Leaf {
    pub(crate) maps: Vec<ChunkId>,
    pub(crate) chunks: Vec<ChunkId>,
    pub(crate) entries: Vec<Entry>,
}

/// A node below an inner one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) first: TreePath,
    pub(crate) entries: u64,
    pub(crate) node: ChunkId,
}

/// A node of a map: its level, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapNode {
    pub(crate) level: u8,
    pub(crate) items: Vec<Extent>,
}

/// Chunks, each once, in the order in which they were first named.
#[derive(Default)]
struct Table {
    numbers: HashMap<ChunkId, u64>,
    ids: Vec<ChunkId>,
}

impl Table {
    fn number(&mut self, id: ChunkId) -> u64 {
        let next = self.ids.len() as u64;
        *self.numbers.entry(id).or_insert_with(|| {
            self.ids.push(id);
            next
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_count(out, self.ids.len());
        for id in &self.ids {
            out.extend_from_slice(id.as_bytes());
        }
    }
}

/// A leaf of these entries.
pub(crate) fn encode_leaf(entries: &[Entry]) -> Vec<u8> {
    let (mut maps, mut chunks) = (Table::default(), Table::default());
    let mut body = Vec::new();
    put_count(&mut body, entries.len());
    let mut before: &[u8] = &[];
    for entry in entries {
        let path = entry.path.as_bytes();
        let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
        put_count(&mut body, shared);
        put_text(&mut body, &path[shared..]);
        put_entry(&mut body, entry, &mut maps, &mut chunks);
        before = path;
    }
    let mut out = vec![VERSION, 0];
    maps.put(&mut out);
    chunks.put(&mut out);
    out.append(&mut body);
    out
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry, maps: &mut Table, chunks: &mut Table) {
    let Entry {
        path: _,
        meta:
            Meta {
                mode,
                uid,
                gid,
                modified,
                stamp,
                attributes,
            },
        kind,
    } = entry;
    out.push(kind.number());
    put_number(out, u64::from(*mode));
    put_number(out, u64::from(*uid));
    put_number(out, u64::from(*gid));
    put_signed(out, modified.seconds);
    put_number(out, u64::from(modified.nanoseconds));
    out.extend_from_slice(stamp);
    match attributes {
        Attributes::None => out.push(0),
        Attributes::Inline(pairs) => {
            out.push(1);
            put_attributes(out, pairs);
        }
        Attributes::Chunk(id) => {
            out.push(2);
            put_number(out, chunks.number(*id));
        }
    }
    match kind {
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
        Kind::File { size, content } => {
            put_number(out, *size);
            put_content(out, content, maps, chunks);
        }
        Kind::Symlink(target) => put_text(out, target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            put_number(out, u64::from(*major));
            put_number(out, u64::from(*minor));
        }
        Kind::HardLink(target) => put_text(out, target.as_bytes()),
    }
}

fn put_content(out: &mut Vec<u8>, content: &Content, maps: &mut Table, chunks: &mut Table) {
    match content {
        Content::Nothing => out.push(0),
        Content::Shared {
            chunk,
            offset,
            hash,
        } => {
            out.push(1);
            put_number(out, chunks.number(*chunk));
            put_number(out, u64::from(*offset));
            out.extend_from_slice(hash);
        }
        Content::Extents(extents) => {
            out.push(2);
            put_count(out, extents.len());
            for extent in extents {
                put_number(out, extent.gap);
                put_number(out, extent.length);
                put_number(out, chunks.number(extent.chunk));
            }
        }
        Content::Map(id) => {
            out.push(3);
            put_number(out, maps.number(*id));
        }
    }
}

/// What the chunk of attributes holds, and an entry that has them inline.
pub(crate) fn put_attributes(out: &mut Vec<u8>, pairs: &[(Vec<u8>, Vec<u8>)]) {
    put_count(out, pairs.len());
    for (name, value) in pairs {
        put_text(out, name);
        put_text(out, value);
    }
}

/// Reads a chunk of attributes.
pub(crate) fn decode_attributes(plain: &[u8]) -> Result<Pairs, Malformed> {
    let mut fields = Fields::new(plain);
    let pairs = attributes(&mut fields)?;
    fields.end()?;
    Ok(pairs)
}

fn attributes(fields: &mut Fields<'_>) -> Result<Pairs, Malformed> {
    let count = fields.count(2)?;
    let mut pairs = Pairs::new();
    for _ in 0..count {
        let name = fields.text(TEXT_BYTES_MAX)?.to_vec();
        let value = fields.text(TEXT_BYTES_MAX)?.to_vec();
        if name.is_empty() || name.contains(&0) {
            return Err(Malformed("an attribute has a name that none may have"));
        }
        if pairs.last().is_some_and(|last| last.0 >= name) {
            return Err(Malformed("attributes are out of order"));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

pub(crate) fn encode_inner(level: u8, children: &[Child]) -> Vec<u8> {
    let mut out = vec![VERSION, level];
    put_count(&mut out, children.len());
    for child in children {
        put_text(&mut out, child.first.as_bytes());
        put_number(&mut out, child.entries);
        out.extend_from_slice(child.node.as_bytes());
    }
    out
}

impl Node {
    pub(crate) fn decode(plain: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(plain);
        let node = match header(&mut fields)? {
            0 => Self::Leaf(leaf(&mut fields)?),
            level => Self::Inner(level, children(&mut fields)?),
        };
        fields.end()?;
        Ok(node)
    }

    /// Its first path; a node has at least one.
    pub(crate) fn first(&self) -> Option<&TreePath> {
        match self {
            Self::Leaf(leaf) => leaf.entries.first().map(|entry| &entry.path),
            Self::Inner(_, children) => children.first().map(|child| &child.first),
        }
    }

    pub(crate) fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner(level, _) => *level,
        }
    }

    pub(crate) fn entries(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.entries.len() as u64,
            Self::Inner(_, children) => children
                .iter()
                .fold(0, |sum: u64, child| sum.saturating_add(child.entries)),
        }
    }
}

fn header(fields: &mut Fields<'_>) -> Result<u8, Malformed> {
    let [version, level] = fields.array()?;
    if version != VERSION {
        return Err(Malformed("a node is of another version"));
    }
    if level > LEVEL_MAX {
        return Err(Malformed("a node has too many levels below it"));
    }
    Ok(level)
}

fn children(fields: &mut Fields<'_>) -> Result<Vec<Child>, Malformed> {
    let count = fields.count(CHILD_BYTES_MIN)?;
    let mut children: Vec<Child> = Vec::with_capacity(count);
    for _ in 0..count {
        let first = TreePath::new(fields.text(PATH_BYTES_MAX)?.to_vec())?;
        check_order(children.last().map(|last| &last.first), &first)?;
        children.push(Child {
            first,
            entries: fields.number()?,
            node: ChunkId::from_bytes(fields.array()?),
        });
    }
    if children.is_empty() {
        return Err(EMPTY);
    }
    Ok(children)
}

const EMPTY: Malformed = Malformed("a node is empty");

pub(crate) fn check_order(before: Option<&TreePath>, path: &TreePath) -> Result<(), Malformed> {
    if before.is_some_and(|before| before >= path) {
        return Err(Malformed("paths are out of order"));
    }
    Ok(())
}

fn leaf(fields: &mut Fields<'_>) -> Result<Leaf, Malformed> {
    let maps = ids(fields)?;
    let chunks = ids(fields)?;
    let count = fields.count(ENTRY_BYTES_MIN)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count.min(1024));
    // Prefixes that are shared must not make more of the bytes than a leaf is.
    let mut budget = PATH_BYTES_TOTAL;
    for _ in 0..count {
        let before = entries.last().map(|entry| &entry.path);
        let path = shared_path(fields, before)?;
        check_order(before, &path)?;
        budget = budget
            .checked_sub(path.as_bytes().len())
            .ok_or(Malformed("the paths of a leaf are too long"))?;
        entries.push(entry(fields, path, &maps, &chunks)?);
    }
    if entries.is_empty() {
        return Err(EMPTY);
    }
    Ok(Leaf {
        maps,
        chunks,
        entries,
    })
}

/// All paths of a leaf together: as long as 1,024 paths of Linux.
pub(crate) const PATH_BYTES_TOTAL: usize = 4 << 20;

fn ids(fields: &mut Fields<'_>) -> Result<Vec<ChunkId>, Malformed> {
    let count = fields.count(CHUNK_ID_BYTES)?;
    (0..count)
        .map(|_| Ok(ChunkId::from_bytes(fields.array()?)))
        .collect()
}

fn shared_path(fields: &mut Fields<'_>, before: Option<&TreePath>) -> Result<TreePath, Malformed> {
    let shared = fields.number()?;
    let before = before.map_or(&[][..], TreePath::as_bytes);
    let mut path = usize::try_from(shared)
        .ok()
        .and_then(|shared| before.get(..shared))
        .ok_or(Malformed("a path shares more than there is"))?
        .to_vec();
    path.extend_from_slice(fields.text(PATH_BYTES_MAX)?);
    TreePath::new(path)
}

fn entry(
    fields: &mut Fields<'_>,
    path: TreePath,
    maps: &[ChunkId],
    chunks: &[ChunkId],
) -> Result<Entry, Malformed> {
    let kind = fields.byte()?;
    let mode = match u16::try_from(fields.number()?) {
        Ok(mode) if mode <= 0o7777 => mode,
        _ => return Err(Malformed("a mode is more than permission bits")),
    };
    let uid = fields.u32("an owner")?;
    let gid = fields.u32("a group")?;
    let seconds = fields.signed()?;
    let nanoseconds = match fields.u32("a time")? {
        nanoseconds @ 0..1_000_000_000 => nanoseconds,
        _ => return Err(Malformed("a time has too many nanoseconds")),
    };
    let stamp = fields.array()?;
    let attributes = match fields.byte()? {
        0 => Attributes::None,
        1 => Attributes::Inline(attributes(fields)?),
        2 => Attributes::Chunk(reference(fields, chunks)?),
        _ => return Err(Malformed("attributes are in an unknown form")),
    };
    Ok(Entry {
        path,
        meta: Meta {
            mode,
            uid,
            gid,
            modified: Time {
                seconds,
                nanoseconds,
            },
            stamp,
            attributes,
        },
        kind: self::kind(kind, fields, maps, chunks)?,
    })
}

fn kind(
    number: u8,
    fields: &mut Fields<'_>,
    maps: &[ChunkId],
    chunks: &[ChunkId],
) -> Result<Kind, Malformed> {
    Ok(match number {
        1 => Kind::Directory,
        2 => {
            let size = fields.number()?;
            if size >= SIZE_MAX {
                return Err(Malformed("a file is too long"));
            }
            let content = content(fields, size, maps, chunks)?;
            Kind::File { size, content }
        }
        3 => {
            let target = fields.text(TEXT_BYTES_MAX)?.to_vec();
            if target.is_empty() || target.contains(&0) {
                return Err(Malformed("a symbolic link says what none may"));
            }
            Kind::Symlink(target)
        }
        4 => Kind::Fifo,
        5 => Kind::Socket,
        6 | 7 => {
            let major = fields.u32("a device")?;
            let minor = fields.u32("a device")?;
            if number == 6 {
                Kind::CharDevice { major, minor }
            } else {
                Kind::BlockDevice { major, minor }
            }
        }
        8 => Kind::HardLink(TreePath::new(fields.text(PATH_BYTES_MAX)?.to_vec())?),
        _ => return Err(Malformed("an entry is of an unknown kind")),
    })
}

fn content(
    fields: &mut Fields<'_>,
    size: u64,
    maps: &[ChunkId],
    chunks: &[ChunkId],
) -> Result<Content, Malformed> {
    Ok(match fields.byte()? {
        0 => Content::Nothing,
        1 => Content::Shared {
            chunk: reference(fields, chunks)?,
            offset: fields.u32("an offset")?,
            hash: fields.array()?,
        },
        2 => {
            let count = fields.count(EXTENT_BYTES_MIN)?;
            let mut end = 0;
            let extents = (0..count).map(|_| {
                let gap = fields.number()?;
                let length = fields.number()?;
                let chunk = reference(fields, chunks)?;
                end = end_of(end, gap, length)?;
                Ok(Extent { gap, length, chunk })
            });
            let extents = extents.collect::<Result<_, Malformed>>()?;
            if end > size {
                return Err(Malformed("a file has more than its size"));
            }
            Content::Extents(extents)
        }
        3 => Content::Map(reference(fields, maps)?),
        _ => return Err(Malformed("a file's content is in an unknown form")),
    })
}

fn reference(fields: &mut Fields<'_>, ids: &[ChunkId]) -> Result<ChunkId, Malformed> {
    usize::try_from(fields.number()?)
        .ok()
        .and_then(|number| ids.get(number).copied())
        .ok_or(Malformed("an entry names a chunk that is not in its leaf"))
}

fn end_of(before: u64, gap: u64, length: u64) -> Result<u64, Malformed> {
    let end = before
        .checked_add(gap)
        .and_then(|start| start.checked_add(length));
    match end {
        Some(end) if end < SIZE_MAX && length > 0 => Ok(end),
        _ => Err(Malformed("an extent is empty or ends too far out")),
    }
}

impl Kind {
    fn number(&self) -> u8 {
        match self {
            Self::Directory => 1,
            Self::File { .. } => 2,
            Self::Symlink(_) => 3,
            Self::Fifo => 4,
            Self::Socket => 5,
            Self::CharDevice { .. } => 6,
            Self::BlockDevice { .. } => 7,
            Self::HardLink(_) => 8,
        }
    }
}

impl MapNode {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.level];
        put_count(&mut out, self.items.len());
        for item in &self.items {
            put_number(&mut out, item.gap);
            put_number(&mut out, item.length);
            out.extend_from_slice(item.chunk.as_bytes());
        }
        out
    }

    pub(crate) fn decode(plain: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(plain);
        let level = header(&mut fields)?;
        let count = fields.count(ITEM_BYTES_MIN)?;
        let mut end = 0;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            let gap = fields.number()?;
            let length = fields.number()?;
            let chunk = ChunkId::from_bytes(fields.array()?);
            end = end_of(end, gap, length)?;
            items.push(Extent { gap, length, chunk });
        }
        fields.end()?;
        if items.is_empty() {
            return Err(EMPTY);
        }
        Ok(Self { level, items })
    }

    /// The bytes from its beginning to the end of its last item.
    pub(crate) fn span(&self) -> u64 {
        span(&self.items)
    }
}

/// Gaps and lengths together.
pub(crate) fn span(items: &[Extent]) -> u64 {
    items.iter().map(|item| item.gap + item.length).sum()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn chunk() -> impl Strategy<Value = ChunkId> {
        (0..8_u8).prop_map(|n| ChunkId::from_bytes([n; 32]))
    }

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        let extent = (0..1_u64 << 40, 1..1_u64 << 22, chunk());
        vec(
            extent.prop_map(|(gap, length, chunk)| Extent { gap, length, chunk }),
            0..5,
        )
    }

    fn content() -> impl Strategy<Value = (u64, Content)> {
        prop_oneof![
            (0..SIZE_MAX).prop_map(|size| (size, Content::Nothing)),
            (0..SIZE_MAX, chunk(), any::<u32>(), any::<[u8; 16]>()).prop_map(
                |(size, chunk, offset, hash)| {
                    let content = Content::Shared {
                        chunk,
                        offset,
                        hash,
                    };
                    (size, content)
                }
            ),
            (0..1_u64 << 40, extents())
                .prop_map(|(more, extents)| { (span(&extents) + more, Content::Extents(extents)) }),
            (0..SIZE_MAX, chunk()).prop_map(|(size, chunk)| (size, Content::Map(chunk))),
        ]
    }

    fn path() -> impl Strategy<Value = TreePath> {
        vec("[a-d]{1,3}", 0..4).prop_map(|names| TreePath::new(names.join("/").into()).unwrap())
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Directory),
            content().prop_map(|(size, content)| Kind::File { size, content }),
            vec(1..=255_u8, 1..9).prop_map(Kind::Symlink),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
            any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
            path().prop_map(Kind::HardLink),
        ]
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        prop_oneof![
            Just(Attributes::None),
            chunk().prop_map(Attributes::Chunk),
            proptest::collection::btree_map(vec(1..=255_u8, 1..9), vec(any::<u8>(), 0..9), 1..4)
                .prop_map(|pairs| Attributes::Inline(pairs.into_iter().collect())),
        ]
    }

    fn meta() -> impl Strategy<Value = Meta> {
        let time = (any::<i64>(), 0..1_000_000_000_u32);
        let owner = (0..=0o7777_u16, any::<u32>(), any::<u32>());
        (owner, time, any::<[u8; 8]>(), attributes()).prop_map(
            |((mode, uid, gid), (seconds, nanoseconds), stamp, attributes)| Meta {
                mode,
                uid,
                gid,
                modified: Time {
                    seconds,
                    nanoseconds,
                },
                stamp,
                attributes,
            },
        )
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (path(), meta(), kind());
        vec(entry, 1..20).prop_map(|mut entries| {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.dedup_by(|a, b| a.0 == b.0);
            let entries = entries.into_iter();
            entries
                .map(|(path, meta, kind)| Entry { path, meta, kind })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_leaf_round_trips(entries in entries()) {
            match Node::decode(&encode_leaf(&entries)) {
                Ok(Node::Leaf(leaf)) => prop_assert_eq!(leaf.entries, entries),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn a_map_round_trips(level in 0..=LEVEL_MAX, items in extents()) {
            let node = MapNode { level, items };
            let decoded = MapNode::decode(&node.encode());
            if node.items.is_empty() {
                prop_assert!(decoded.is_err());
            } else {
                prop_assert_eq!(decoded, Ok(node));
            }
        }

        #[test]
        fn a_changed_leaf_is_another_leaf_or_none(entries in entries(), at: usize, bit in 0..8_u32) {
            let mut bytes = encode_leaf(&entries);
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            for (_, target) in crate::fuzzing::TARGETS {
                target(&bytes);
            }
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let entry = Entry {
            path: TreePath::new(b"abc".to_vec()).unwrap(),
            meta: Meta::default(),
            kind: Kind::Fifo,
        };
        let leaf = encode_leaf(&[entry]);
        let at = leaf.windows(3).position(|bytes| bytes == b"abc").unwrap();
        for odd in [b"../", b"/ab", b"a//", b"a\0b"] {
            let mut leaf = leaf.clone();
            leaf[at..at + 3].copy_from_slice(odd);
            assert!(Node::decode(&leaf).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_map_that_ends_beyond_all_sizes_is_refused() {
        let extent = |gap, length| Extent {
            gap,
            length,
            chunk: ChunkId::from_bytes([1; 32]),
        };
        for items in [
            vec![extent(u64::MAX, 1)],
            vec![extent(SIZE_MAX - 1, 1)],
            vec![extent(0, 1), extent(SIZE_MAX - 2, 1)],
            vec![extent(0, 0)],
        ] {
            let node = MapNode { level: 0, items };
            assert!(MapNode::decode(&node.encode()).is_err(), "{node:?}");
        }
    }
}

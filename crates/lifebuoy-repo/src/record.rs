//! Records: small authenticated objects outside packs, `docs/format.md` section 6.

use bytes::Bytes;
use rand::Rng;

use crate::{
    crypto::Keys,
    error::{Error, Result},
    header::{HEADER_BYTES, LAYOUT, LAYOUT_2, header_of_version, read_header},
    ids::{ChunkId, ClusterKey, RepositoryId, SessionId},
    names::{ChunkKind, ObjectType, PackName},
    pack::{ChunkEntry, PACK_BYTES_MAX, PACK_CHUNKS_MAX},
    protocol::{Ended, How},
    wire::{Damage, Fields},
};

/// Longest label of a session, in bytes.
pub const LABEL_BYTES_MAX: usize = 4 * 1024;
/// Longest summary of a snapshot, in bytes.
pub const SUMMARY_BYTES_MAX: usize = 64 * 1024;
/// Longest reason of a forget, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

pub(crate) const PLAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
const CLEAR_BYTES: usize = 92;
/// Longest record, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = PLAIN_BYTES_MAX + 108;
pub(crate) const PADDING_STEP: usize = 256;
/// Clear and fixed bytes of a pack's entry in an index.
const INDEX_PACK_BYTES: usize = 45;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// One backup: commits one snapshot.
    Backup,
    /// A part of what another session is writing, such as one volume of a backup.
    Part(SessionId),
    /// Copies of chunks, out of packs that hold little else that lives.
    Repack,
    /// Reading: holds a snapshot while it is open, and commits nothing.
    Restore,
}

const NO_PARENT: SessionId = SessionId::from_bytes([0; 16]);

impl Purpose {
    const fn byte(self) -> u8 {
        match self {
            Self::Backup => 1,
            Self::Part(_) => 2,
            Self::Repack => 3,
            Self::Restore => 4,
        }
    }

    const fn parent(self) -> SessionId {
        match self {
            Self::Part(parent) => parent,
            Self::Backup | Self::Repack | Self::Restore => NO_PARENT,
        }
    }

    fn decode(byte: u8, parent: SessionId) -> Result<Self, Damage> {
        match (byte, parent) {
            (1, NO_PARENT) => Ok(Self::Backup),
            (3, NO_PARENT) => Ok(Self::Repack),
            (4, NO_PARENT) => Ok(Self::Restore),
            (2, parent) if parent != NO_PARENT => Ok(Self::Part(parent)),
            (1..=4, _) => Err(Damage::Field("parent")),
            _ => Err(Damage::Field("purpose")),
        }
    }
}

/// The body of `open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenBody {
    pub(crate) purpose: Purpose,
    pub(crate) generation: u64,
    pub(crate) random: [u8; 32],
    pub(crate) label: Bytes,
}

/// The body of `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndBody {
    Committed {
        generation: u64,
        sequence: u64,
        root: ChunkId,
        packs: u32,
        summary: Bytes,
    },
    Fenced {
        generation: u64,
    },
    /// A part of what another session is writing.
    Part {
        generation: u64,
        parent: SessionId,
        root: ChunkId,
        packs: u32,
    },
    /// Copies of chunks, and nothing of its own.
    Copies {
        generation: u64,
        packs: u32,
    },
}

/// The body of `index`: what the packs of one session hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexBody {
    pub(crate) random: [u8; 32],
    pub(crate) packs: Vec<PackEntry>,
    /// Packs of other sessions that this one's chunks are in, rising. `None` in
    /// the layout of format 1, which does not say.
    pub(crate) relies: Option<Vec<PackName>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackEntry {
    pub(crate) number: u32,
    pub(crate) kind: ChunkKind,
    pub(crate) length: u32,
    pub(crate) commitment: [u8; 32],
    pub(crate) chunks: Vec<ChunkEntry>,
}

impl PackEntry {
    /// The name of this pack of a session's index.
    pub(crate) fn name(&self, session: SessionId) -> PackName {
        PackName {
            session,
            number: self.number,
            kind: self.kind,
        }
    }
}

/// Seals and opens the records of one repository.
pub(crate) struct Records<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) repository: RepositoryId,
}

impl Records<'_> {
    fn aad(&self, head: &[u8], key: &str) -> Vec<u8> {
        [head, self.repository.as_bytes(), key.as_bytes()].concat()
    }

    /// The bytes of a record with this body. Twice the same body gives other bytes.
    pub(crate) fn seal(
        &self,
        key: &str,
        kind: ObjectType,
        layout: u16,
        body: &[u8],
        rng: &mut impl Rng,
    ) -> Result<Bytes> {
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        let triple = self.keys.record(kind, &salt);
        let padded = body.len().next_multiple_of(PADDING_STEP);
        if padded > PLAIN_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a record",
                actual: body.len(),
                limit: PLAIN_BYTES_MAX,
            });
        }
        let mut out = Vec::with_capacity(CLEAR_BYTES + padded + crate::crypto::TAG_BYTES);
        let head = header_of_version(kind, layout);
        out.extend_from_slice(&head);
        out.extend_from_slice(&salt);
        out.extend_from_slice(&triple.commitment);
        let mut plain = vec![0; padded];
        plain[..body.len()].copy_from_slice(body);
        let nonce = triple.nonce(&[&plain]);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&plain);
        triple
            .cipher()
            .seal(&nonce, &self.aad(&head, key), &mut out, CLEAR_BYTES)
            .map_err(|damage| Error::corrupt(key, damage))?;
        Ok(out.into())
    }

    /// The padded body of a record in the first layout of its kind.
    pub(crate) fn open(&self, key: &str, kind: ObjectType, bytes: &[u8]) -> Result<Vec<u8>> {
        let (layout, body) = self.open_any(key, kind, bytes)?;
        if layout != first_layout(kind) {
            return Err(Error::corrupt(key, Damage::Field("version")));
        }
        Ok(body)
    }

    /// The layout that the header of a record says, and its padded body.
    pub(crate) fn open_any(
        &self,
        key: &str,
        kind: ObjectType,
        bytes: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        self.open_bytes(key, kind, bytes)
            .map_err(|damage| Error::corrupt(key, damage))
    }

    fn open_bytes(
        &self,
        key: &str,
        kind: ObjectType,
        bytes: &[u8],
    ) -> Result<(u16, Vec<u8>), Damage> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Damage::TooLong);
        }
        let mut fields = Fields::new(bytes);
        let layout = read_header(&mut fields, kind)?;
        let triple = self.keys.record(kind, &fields.array()?);
        triple.check(&fields.array()?)?;
        let nonce = fields.array()?;
        let sealed = bytes.get(CLEAR_BYTES..).ok_or(Damage::Truncated)?;
        let aad = self.aad(&bytes[..HEADER_BYTES], key);
        let body = triple.cipher().open(&nonce, &aad, sealed)?;
        Ok((layout, body))
    }
}

/// The format that introduced a kind of record.
pub(crate) fn first_layout(kind: ObjectType) -> u16 {
    match kind {
        ObjectType::Plan
        | ObjectType::Run
        | ObjectType::Final
        | ObjectType::RunPart
        | ObjectType::Pin
        | ObjectType::Keeper
        | ObjectType::Mend => LAYOUT_2,
        _ => LAYOUT,
    }
}

impl OpenBody {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.label.len());
        out.push(self.purpose.byte());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.random);
        out.extend_from_slice(self.purpose.parent().as_bytes());
        // The caller has checked the length against LABEL_BYTES_MAX.
        out.extend_from_slice(&(self.label.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.label);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields::new(bytes);
        let purpose = fields.u8()?;
        let generation = fields.u64()?;
        let random = fields.array()?;
        let purpose = Purpose::decode(purpose, SessionId::from_bytes(fields.array()?))?;
        let label = bounded(&mut fields, LABEL_BYTES_MAX, Width::U16, "label")?;
        fields.padding(PADDING_STEP)?;
        Ok(Self {
            purpose,
            generation,
            random,
            label,
        })
    }
}

impl EndBody {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Committed {
                generation,
                sequence,
                root,
                packs,
                summary,
            } => {
                out.push(1);
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(&sequence.to_le_bytes());
                out.extend_from_slice(root.as_bytes());
                out.extend_from_slice(&packs.to_le_bytes());
                // The caller has checked the length against SUMMARY_BYTES_MAX.
                out.extend_from_slice(&(summary.len() as u32).to_le_bytes());
                out.extend_from_slice(summary);
            }
            Self::Fenced { generation } => {
                out.push(2);
                out.extend_from_slice(&generation.to_le_bytes());
            }
            Self::Part {
                generation,
                parent,
                root,
                packs,
            } => {
                out.push(3);
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(parent.as_bytes());
                out.extend_from_slice(root.as_bytes());
                out.extend_from_slice(&packs.to_le_bytes());
            }
            Self::Copies { generation, packs } => {
                out.push(4);
                out.extend_from_slice(&generation.to_le_bytes());
                out.extend_from_slice(&packs.to_le_bytes());
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields::new(bytes);
        let outcome = fields.u8()?;
        let generation = fields.u64()?;
        let body = match outcome {
            1 => Self::Committed {
                generation,
                sequence: fields.u64()?,
                root: ChunkId::from_bytes(fields.array()?),
                packs: fields.u32()?,
                summary: bounded(&mut fields, SUMMARY_BYTES_MAX, Width::U32, "summary")?,
            },
            2 => Self::Fenced { generation },
            3 => Self::Part {
                generation,
                parent: SessionId::from_bytes(fields.array()?),
                root: ChunkId::from_bytes(fields.array()?),
                packs: fields.u32()?,
            },
            4 => Self::Copies {
                generation,
                packs: fields.u32()?,
            },
            _ => return Err(Damage::Field("outcome")),
        };
        fields.padding(PADDING_STEP)?;
        Ok(body)
    }
}

impl EndBody {
    /// The end as the protocol sees it.
    pub(crate) fn ended(&self, cluster: ClusterKey) -> Ended {
        let (birth, how) = match self {
            Self::Committed { generation, .. } => (*generation, How::Snapshot),
            Self::Fenced { generation } => (*generation, How::Fenced),
            Self::Part {
                generation, parent, ..
            } => (*generation, How::Part(*parent)),
            Self::Copies { generation, .. } => (*generation, How::Copies),
        };
        Ended {
            cluster,
            birth,
            how,
        }
    }

    /// How many packs the session wrote, if it committed.
    pub(crate) fn packs(&self) -> Option<u32> {
        match self {
            Self::Committed { packs, .. }
            | Self::Part { packs, .. }
            | Self::Copies { packs, .. } => Some(*packs),
            Self::Fenced { .. } => None,
        }
    }

    /// The chunk that everything hangs from, if there is one.
    pub(crate) fn root(&self) -> Option<ChunkId> {
        match self {
            Self::Committed { root, .. } | Self::Part { root, .. } => Some(*root),
            Self::Fenced { .. } | Self::Copies { .. } => None,
        }
    }
}

impl IndexBody {
    pub(crate) fn layout(&self) -> u16 {
        if self.relies.is_some() {
            LAYOUT_2
        } else {
            LAYOUT
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_packs(&mut out);
        if let Some(relies) = &self.relies {
            encode_pack_names(relies, &mut out);
        }
        out
    }

    pub(crate) fn encode_packs(&self, out: &mut Vec<u8>) {
        let chunks: usize = self.packs.iter().map(|pack| pack.chunks.len()).sum();
        out.reserve(36 + self.packs.len() * INDEX_PACK_BYTES + chunks * ChunkEntry::BYTES);
        out.extend_from_slice(&self.random);
        out.extend_from_slice(&(self.packs.len() as u32).to_le_bytes());
        for pack in &self.packs {
            out.extend_from_slice(&pack.number.to_le_bytes());
            out.push(pack.kind.object_type().byte());
            out.extend_from_slice(&pack.length.to_le_bytes());
            out.extend_from_slice(&pack.commitment);
            out.extend_from_slice(&(pack.chunks.len() as u32).to_le_bytes());
            for chunk in &pack.chunks {
                chunk.encode(out);
            }
        }
    }

    pub(crate) fn decode(layout: u16, bytes: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields::new(bytes);
        let mut body = Self::decode_packs(&mut fields)?;
        body.relies = match layout {
            LAYOUT => None,
            LAYOUT_2 => Some(decode_pack_names(&mut fields)?),
            _ => return Err(Damage::Field("version")),
        };
        fields.padding(PADDING_STEP)?;
        Ok(body)
    }

    pub(crate) fn decode_packs(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let random = fields.array()?;
        let count = fields.count(INDEX_PACK_BYTES)?;
        let mut packs: Vec<PackEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let pack = PackEntry::decode(fields)?;
            if packs.last().is_some_and(|last| last.number >= pack.number) {
                return Err(Damage::Field("pack number"));
            }
            packs.push(pack);
        }
        let relies = None;
        Ok(Self {
            random,
            packs,
            relies,
        })
    }
}

const PACK_NAME_BYTES: usize = 21;

/// Names of packs in rising order: count, then session, number, type of each.
pub(crate) fn encode_pack_names(names: &[PackName], out: &mut Vec<u8>) {
    out.reserve(4 + names.len() * PACK_NAME_BYTES);
    out.extend_from_slice(&(names.len() as u32).to_le_bytes());
    for name in names {
        out.extend_from_slice(name.session.as_bytes());
        out.extend_from_slice(&name.number.to_le_bytes());
        out.push(name.kind.object_type().byte());
    }
}

pub(crate) fn decode_pack_names(fields: &mut Fields<'_>) -> Result<Vec<PackName>, Damage> {
    let count = fields.count(PACK_NAME_BYTES)?;
    let mut names: Vec<PackName> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = PackName {
            session: SessionId::from_bytes(fields.array()?),
            number: fields.u32()?,
            kind: ChunkKind::from_type(fields.u8()?).ok_or(Damage::Field("pack type"))?,
        };
        if names.last().is_some_and(|last| *last >= name) {
            return Err(Damage::Field("order of packs"));
        }
        names.push(name);
    }
    Ok(names)
}

impl PackEntry {
    fn decode(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let number = fields.u32()?;
        let kind = ChunkKind::from_type(fields.u8()?).ok_or(Damage::Field("pack type"))?;
        let length = fields.u32()?;
        if usize::try_from(length).is_ok_and(|length| length > PACK_BYTES_MAX) {
            return Err(Damage::Field("pack length"));
        }
        let commitment = fields.array()?;
        let chunks = ChunkEntry::decode_all(fields)?;
        if chunks.is_empty() || chunks.len() > PACK_CHUNKS_MAX {
            return Err(Damage::Field("number of chunks"));
        }
        if ChunkEntry::end_of_all(&chunks) > u64::from(length) {
            return Err(Damage::Field("stored length"));
        }
        Ok(Self {
            number,
            kind,
            length,
            commitment,
            chunks,
        })
    }
}

pub(crate) fn encode_forget(reason: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + reason.len());
    // The caller has checked the length against REASON_BYTES_MAX.
    out.extend_from_slice(&(reason.len() as u16).to_le_bytes());
    out.extend_from_slice(reason.as_bytes());
    out
}

pub(crate) fn decode_forget(bytes: &[u8]) -> Result<String, Damage> {
    let mut fields = Fields::new(bytes);
    let reason = bounded(&mut fields, REASON_BYTES_MAX, Width::U16, "reason")?;
    fields.padding(PADDING_STEP)?;
    String::from_utf8(reason.into()).map_err(|_| Damage::Field("reason"))
}

pub(crate) fn encode_beat(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

pub(crate) fn decode_beat(bytes: &[u8]) -> Result<u64, Damage> {
    let mut fields = Fields::new(bytes);
    let n = fields.u64()?;
    fields.padding(PADDING_STEP)?;
    Ok(n)
}

pub(crate) enum Width {
    U16,
    U32,
}

pub(crate) fn bounded(
    fields: &mut Fields<'_>,
    limit: usize,
    width: Width,
    field: &'static str,
) -> Result<Bytes, Damage> {
    let len = match width {
        Width::U16 => u32::from(fields.u16()?),
        Width::U32 => fields.u32()?,
    };
    let len = usize::try_from(len).map_err(|_| Damage::Field(field))?;
    if len > limit {
        return Err(Damage::Field(field));
    }
    Ok(Bytes::copy_from_slice(fields.bytes(len)?))
}

/// The session whose end or index this is, checked by the key it lies under.
pub(crate) fn decode_at<T>(
    key: &str,
    body: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, Damage>,
) -> Result<T> {
    decode(body).map_err(|damage| Error::corrupt(key, damage))
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It committed this snapshot.
    Committed(Snapshot),
    /// It committed a part of another session's snapshot, or copies.
    CommittedOther,
    /// It was given up and can never commit.
    Fenced,
}

/// What a committed session points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The session that committed it; its id is the snapshot's.
    pub session: SessionId,
    /// The cluster that wrote it.
    pub cluster: crate::ids::ClusterKey,
    /// Orders the snapshots of one cluster: a later backup has a higher one.
    pub seq: u64,
    /// The chunk that everything else hangs from.
    pub root: ChunkId,
    /// What the writer said about it, not longer than [`SUMMARY_BYTES_MAX`].
    pub summary: Bytes,
    /// True if somebody asked to forget it.
    pub forgotten: bool,
    /// True if it must not be forgotten, whatever a retention says. What was
    /// forgotten before stays while it is pinned, and goes once it is not.
    pub pinned: bool,
}

impl Snapshot {
    /// True if it is on its way out: forgotten, and no pin keeps it.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.forgotten && !self.pinned
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{compress::Codec, crypto::MasterKey};

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn chunk() -> impl Strategy<Value = ChunkEntry> {
        (any::<[u8; 32]>(), 1..=4096_u32, any::<bool>()).prop_map(|(id, raw, packed)| ChunkEntry {
            id: ChunkId::from_bytes(id),
            codec: if packed { Codec::Zstd } else { Codec::Stored },
            raw,
            stored: if packed { raw / 2 + 16 } else { raw + 16 },
        })
    }

    fn purpose() -> impl Strategy<Value = Purpose> {
        prop_oneof![
            Just(Purpose::Backup),
            Just(Purpose::Repack),
            Just(Purpose::Restore),
            any::<[u8; 16]>()
                .prop_filter("no parent", |id| *id != [0; 16])
                .prop_map(|id| Purpose::Part(SessionId::from_bytes(id))),
        ]
    }

    fn pack_names() -> impl Strategy<Value = Vec<PackName>> {
        let name = (any::<[u8; 16]>(), any::<u32>()).prop_map(|(id, number)| PackName {
            session: SessionId::from_bytes(id),
            number,
            kind: ChunkKind::Data,
        });
        proptest::collection::btree_set(name, 0..20).prop_map(|set| set.into_iter().collect())
    }

    fn packs() -> impl Strategy<Value = Vec<PackEntry>> {
        let pack = (any::<bool>(), any::<[u8; 32]>(), vec(chunk(), 1..20));
        vec(pack, 0..5).prop_map(|packs| {
            let entry =
                |(number, (data, commitment, chunks)): (u32, (bool, _, Vec<ChunkEntry>))| {
                    PackEntry {
                        number: number * 3,
                        kind: if data {
                            ChunkKind::Data
                        } else {
                            ChunkKind::Metadata
                        },
                        length: ChunkEntry::end_of_all(&chunks) as u32 + 1000,
                        commitment,
                        chunks,
                    }
                };
            (0..).zip(packs).map(entry).collect()
        })
    }

    fn end() -> impl Strategy<Value = EndBody> {
        let committed = (
            any::<u64>(),
            any::<u64>(),
            any::<[u8; 32]>(),
            any::<u32>(),
            bytes(900),
        );
        prop_oneof![
            committed.prop_map(|(generation, sequence, root, packs, summary)| {
                let root = ChunkId::from_bytes(root);
                EndBody::Committed {
                    generation,
                    sequence,
                    root,
                    packs,
                    summary,
                }
            }),
            any::<u64>().prop_map(|generation| EndBody::Fenced { generation }),
            (any::<u64>(), any::<u32>())
                .prop_map(|(generation, packs)| EndBody::Copies { generation, packs }),
            (
                any::<u64>(),
                any::<[u8; 16]>(),
                any::<[u8; 32]>(),
                any::<u32>()
            )
                .prop_map(|(generation, parent, root, packs)| EndBody::Part {
                    generation,
                    parent: SessionId::from_bytes(parent),
                    root: ChunkId::from_bytes(root),
                    packs,
                }),
        ]
    }

    /// Through sealing and padding, as it is in the bucket.
    fn through(kind: ObjectType, body: &[u8]) -> Vec<u8> {
        let repository = RepositoryId::from_bytes([2; 16]);
        let keys = Keys::derive(&MasterKey::new([1; 32]), repository);
        let records = Records {
            keys: &keys,
            repository,
        };
        let sealed = records
            .seal("a/key", kind, LAYOUT, body, &mut StdRng::seed_from_u64(1))
            .unwrap();
        assert!(records.open("another/key", kind, &sealed).is_err());
        records.open("a/key", kind, &sealed).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn open_round_trips(
            purpose in purpose(),
            generation: u64,
            random: [u8; 32],
            label in bytes(4096),
        ) {
            let body = OpenBody { purpose, generation, random, label };
            let read = OpenBody::decode(&through(ObjectType::Open, &body.encode()));
            prop_assert_eq!(read, Ok(body));
        }

        #[test]
        fn end_round_trips(body in end()) {
            let read = EndBody::decode(&through(ObjectType::End, &body.encode()));
            prop_assert_eq!(read, Ok(body));
        }

        #[test]
        fn index_round_trips(
            random: [u8; 32],
            packs in packs(),
            relies in proptest::option::of(pack_names()),
        ) {
            let body = IndexBody { random, packs, relies };
            let read = IndexBody::decode(body.layout(), &through(ObjectType::Index, &body.encode()));
            prop_assert_eq!(read, Ok(body));
        }

        #[test]
        fn forget_and_beat_round_trip(reason in ".{0,200}", n: u64) {
            let read = decode_forget(&through(ObjectType::Forget, &encode_forget(&reason)));
            prop_assert_eq!(read, Ok(reason));
            let read = decode_beat(&through(ObjectType::Beat, &encode_beat(n)));
            prop_assert_eq!(read, Ok(n));
        }

        #[test]
        fn no_bytes_make_a_parser_panic_or_allocate(input in vec(any::<u8>(), 0..400)) {
            let _ = OpenBody::decode(&input);
            let _ = EndBody::decode(&input);
            let _ = IndexBody::decode(LAYOUT_2, &input);
            let _ = decode_forget(&input);
            let _ = decode_beat(&input);
        }

        #[test]
        fn lengths_beyond_the_input_are_refused(at in 0..100_usize, packs in packs()) {
            let mut bytes = IndexBody { random: [0; 32], packs, relies: None }.encode();
            if at + 4 <= bytes.len() {
                bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            }
            let _ = IndexBody::decode(LAYOUT, &bytes);
            bytes.truncate(at);
            prop_assert!(IndexBody::decode(LAYOUT, &bytes).is_err() || at >= 36);
        }
    }
}

//! What the targets in `fuzz/` run: every parser of the repository on any
//! bytes, under one fixed key. A target panics where something is read that
//! would not be written as it is, and where two ways of reading disagree.
//! Never part of a program that people run.
//!
//! Most parsers stand behind encryption. Their targets get plain bytes and seal
//! them, so that what is tried is the parser and not the cipher.

use std::sync::{Arc, LazyLock};

use object_store::memory::InMemory;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    Access, CHUNK_BYTES_MAX, Checked, Passphrase, Repository,
    compress::{Codec, Compression, Encoded},
    crypto::{Keys, MasterKey, TAG_BYTES},
    format::{Format, encode as encode_format},
    generation::{
        Claim, PacksPart, RelyPart, RunBody, decode_final, decode_packs_part, decode_plan,
        decode_rely_part, encode_final, encode_packs_part, encode_plan, encode_rely_part,
    },
    header::{HEADER_BYTES, LAYOUT, LAYOUT_2, header},
    ids::{ChunkId, ClusterKey, RepositoryId, SessionId},
    index::Index,
    keyslot::{SLOT_BYTES, Slot},
    names::{ChunkKind, Mended, Name, ObjectType, PackName, RunPartName},
    pack::{
        CHUNKS_OFFSET, ChunkEntry, FOOTER_BYTES, HASH_BYTES, PackBuilder, TRAILER_POSITION, aad,
        nonce, read_pack, trailer_entry,
    },
    protocol::{Final, Plan},
    record::{
        EndBody, IndexBody, OpenBody, decode_beat, decode_forget, encode_beat, encode_forget,
        first_layout,
    },
    repository::Shared,
    store::Objects,
    wire::{Damage, Fields},
};

/// A target: what is done with an input.
pub type Target = fn(&[u8]);

/// The targets by name. Inputs to begin with are in `fuzz/corpus/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("object_name", object_name),
    ("format_object", format_object),
    ("key_slot", key_slot),
    ("record_object", record_object),
    ("record_body", record_body),
    ("index_body", index_body),
    ("pack_object", pack_object),
    ("pack_trailer", pack_trailer),
    ("pack_chunk", pack_chunk),
];

const MASTER: [u8; 32] = [1; 32];
const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);
const RANDOM: [u8; 32] = [3; 32];
const CLUSTER: ClusterKey = ClusterKey::from_bytes([4; 16]);
const SESSION: SessionId = SessionId::from_bytes([5; 16]);
const PACK: PackName = PackName {
    session: SESSION,
    number: 7,
    kind: ChunkKind::Data,
};
const PART: RunPartName = RunPartName {
    run: 1,
    random: [7; 16],
};
const MEND: Name = Name::Mend(Mended::Index(SESSION));
const FORMAT: Name = Name::Format(1);
const SLOT: Name = Name::Slot([6; 16]);
const PASSPHRASE: &str = "correct horse";

/// The step to which the plain text of a record is padded.
const RECORD_STEP: usize = 256;
/// Chunks are made up to this length for a trailer that lists them.
const MADE_BYTES_MAX: usize = 64 * 1024;
/// The dearest slot that is tried: above it, fuzzing would test Argon2 only.
const SLOT_KIB_MAX: u32 = 64;

fn keys() -> Keys {
    Keys::derive(&MasterKey::new(MASTER), REPOSITORY)
}

/// A repository with the fixed key. There is nothing in its store.
fn shared() -> &'static Shared {
    static SHARED: LazyLock<Arc<Shared>> = LazyLock::new(|| {
        let objects = Objects::new(Arc::new(InMemory::new()));
        Repository::new(
            objects,
            Arc::new(keys()),
            REPOSITORY,
            LAYOUT,
            Access::ReadWrite,
        )
        .shared
    });
    &SHARED
}

fn sound(name: Name, object: &[u8]) -> bool {
    shared().check_bytes(&name.key(), object).is_ok()
}

/// Text: a key of an object.
fn object_name(input: &[u8]) {
    let Ok(key) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(name) = Name::parse(key) {
        assert_eq!(name.key(), key, "a name has one spelling");
    }
}

/// A format object: as it is, with a fitting checksum, and with a fitting MAC.
fn format_object(input: &[u8]) {
    const MAC: std::ops::Range<usize> = 64..96;
    read_format(input);
    let Some((body, _)) = input.split_last_chunk::<HASH_BYTES>() else {
        return;
    };
    let mut object = with_hash(body);
    read_format(&object);
    if let Some(signed) = body.get(..MAC.start)
        && body.len() >= MAC.end
    {
        let mac = shared().keys.format_mac(&FORMAT.key(), signed);
        object[MAC].copy_from_slice(&mac);
        read_format(&with_hash(&object[..body.len()]));
    }
}

fn read_format(object: &[u8]) {
    let key = FORMAT.key();
    let Ok(format) = Format::parse(&key, object) else {
        assert!(!sound(FORMAT, object));
        return;
    };
    let _ = format.check_features();
    if sound(FORMAT, object) {
        let Format {
            version,
            repository,
            features,
            ..
        } = format;
        let again = encode_format(&key, version, repository, features, &shared().keys);
        assert_eq!(again, object, "a format object has one encoding");
    }
}

/// A key slot: as it is, and with a fitting checksum.
fn key_slot(input: &[u8]) {
    read_slot(input);
    if let Some((body, _)) = input.split_last_chunk::<HASH_BYTES>() {
        read_slot(&with_hash(body));
    }
}

fn read_slot(object: &[u8]) {
    let key = SLOT.key();
    let Ok(slot) = Slot::parse(&key, object) else {
        return;
    };
    assert_eq!(object.len(), SLOT_BYTES);
    let mut cost = Fields::new(&object[36..44]);
    let cheap = cost.u32().is_ok_and(|kib| kib <= SLOT_KIB_MAX) && cost.u32() == Ok(1);
    if let Ok(passphrase) = Passphrase::new(PASSPHRASE)
        && cheap
        && let Ok(Some(master)) = slot.unwrap(&key, &passphrase)
    {
        assert_eq!(
            master.as_bytes(),
            &MASTER,
            "only what was wrapped comes out"
        );
    }
}

fn with_hash(body: &[u8]) -> Vec<u8> {
    let mut object = body.to_vec();
    object.extend_from_slice(blake3::hash(body).as_bytes());
    object
}

/// A byte that chooses the kind, and a record object of it: as it is, and with
/// a fitting key commitment.
fn record_object(input: &[u8]) {
    let Some((kind, object)) = input.split_first() else {
        return;
    };
    let (name, kind) = match kind % 12 {
        0 => (Name::Open(CLUSTER, 0, SESSION), ObjectType::Open),
        1 => (Name::End(CLUSTER, SESSION), ObjectType::End),
        2 => (Name::Index(SESSION), ObjectType::Index),
        3 => (Name::Forget(SESSION), ObjectType::Forget),
        4 => (Name::Beat(SESSION, 1), ObjectType::Beat),
        5 => (Name::Plan(1), ObjectType::Plan),
        6 => (Name::Final(1), ObjectType::Final),
        7 => (Name::Run(1), ObjectType::Run),
        8 => (Name::RunPart(PART), ObjectType::RunPart),
        9 => (Name::Pin(SESSION, 1), ObjectType::Pin),
        10 => (Name::Keeper(1), ObjectType::Keeper),
        _ => (MEND, ObjectType::Mend),
    };
    let was_sound = sound(name, object);
    let mut fields = Fields::new(object);
    let _ = fields.bytes(HEADER_BYTES);
    if let Ok(salt) = fields.array()
        && fields.bytes(32).is_ok()
    {
        let mut object = object.to_vec();
        let commitment = shared().keys.record(kind, &salt).commitment;
        object[HEADER_BYTES + 32..HEADER_BYTES + 64].copy_from_slice(&commitment);
        assert!(sound(name, &object) || !was_sound);
    }
}

/// A byte that chooses the kind, and the plain text of a record of it.
fn record_body(input: &[u8]) {
    let Some((kind, plain)) = input.split_first() else {
        return;
    };
    match kind % 10 {
        0 => {
            let open = Body(OpenBody::decode, OpenBody::encode, ObjectType::Open);
            open.read(plain, |body| Name::Open(CLUSTER, body.generation, SESSION));
        }
        1 => {
            let end = Body(EndBody::decode, EndBody::encode, ObjectType::End);
            end.read(plain, |_| Name::End(CLUSTER, SESSION));
        }
        2 => {
            let forget: Body<String> = Body(
                decode_forget,
                |text| encode_forget(text),
                ObjectType::Forget,
            );
            forget.read(plain, |_| Name::Forget(SESSION));
        }
        4 => {
            let plan: Body<Plan> = Body(decode_plan, encode_plan, ObjectType::Plan);
            plan.read(plain, |_| Name::Plan(1));
        }
        5 => {
            let last: Body<Final> = Body(decode_final, encode_final, ObjectType::Final);
            last.read(plain, |_| Name::Final(1));
        }
        6 => {
            let run = Body(RunBody::decode, RunBody::encode, ObjectType::Run);
            run.read(plain, |_| Name::Run(1));
        }
        7 => {
            let part: Body<PacksPart> = Body(
                decode_packs_part,
                |part| encode_packs_part(part),
                ObjectType::RunPart,
            );
            part.read(plain, |_| Name::RunPart(PART));
        }
        8 => {
            let part: Body<RelyPart> = Body(
                decode_rely_part,
                |part| encode_rely_part(part),
                ObjectType::RunPart,
            );
            part.read(plain, |_| Name::RunPart(PART));
        }
        9 => {
            let claim = Body(Claim::decode, Claim::encode, ObjectType::Keeper);
            claim.read(plain, |_| Name::Keeper(1));
        }
        _ => {
            let beat: Body<u64> = Body(decode_beat, |n| encode_beat(*n), ObjectType::Beat);
            beat.read(plain, |n| Name::Beat(SESSION, *n));
        }
    }
}

/// The plain text of an index of either format, and what a reader makes of it.
fn index_body(plain: &[u8]) {
    let old: Body<IndexBody> = Body(
        |plain| IndexBody::decode(LAYOUT, plain),
        IndexBody::encode,
        ObjectType::Index,
    );
    let new: Body<IndexBody> = Body(
        |plain| IndexBody::decode(LAYOUT_2, plain),
        IndexBody::encode,
        ObjectType::Index,
    );
    let read =
        |kind: &Body<IndexBody>, layout| kind.read_in(layout, plain, |_| Name::Index(SESSION));
    for body in [read(&old, LAYOUT), read(&new, LAYOUT_2)]
        .into_iter()
        .flatten()
    {
        index_of(&body);
    }
}

fn index_of(body: &IndexBody) {
    let mut index = Index::default();
    index.add(SESSION, body);
    for pack in &body.packs {
        for chunk in &pack.chunks {
            let Some((of, place)) = index.copies(&chunk.id).next() else {
                panic!("a chunk of the index is not found in it")
            };
            let listed = body.packs.iter().find(|pack| pack.number == of.name.number);
            let end = u64::from(place.offset) + u64::from(place.entry(chunk.id).stored);
            assert!(listed.is_some_and(|pack| end <= u64::from(pack.length)));
        }
    }
}

/// How one kind of record is read, written and named in its header.
struct Body<T>(
    fn(&[u8]) -> Result<T, Damage>,
    fn(&T) -> Vec<u8>,
    ObjectType,
);

impl<T> Body<T> {
    /// Reads it, plain and out of a sealed object that lies under `name`.
    fn read(&self, plain: &[u8], name: impl FnOnce(&T) -> Name) -> Option<T> {
        self.read_in(first_layout(self.2), plain, name)
    }

    fn read_in(&self, layout: u16, plain: &[u8], name: impl FnOnce(&T) -> Name) -> Option<T> {
        self.read_plain(plain);
        let mut padded = plain.to_vec();
        padded.resize(plain.len().next_multiple_of(RECORD_STEP), 0);
        let body = self.read_plain(&padded)?;
        let name = name(&body);
        // Not random: the same input must always do the same.
        let rng = &mut StdRng::seed_from_u64(0);
        if let Ok(object) = shared()
            .records()
            .seal(&name.key(), self.2, layout, &padded, rng)
        {
            assert!(sound(name, &object), "{name:?} opens as it was sealed");
        }
        Some(body)
    }

    fn read_plain(&self, plain: &[u8]) -> Option<T> {
        let body = (self.0)(plain).ok()?;
        let mut again = (self.1)(&body);
        assert!(again.len() <= plain.len() && plain.len() - again.len() < RECORD_STEP);
        again.resize(plain.len(), 0);
        assert_eq!(again, plain, "a record has one encoding");
        Some(body)
    }
}

/// A pack: as it is, and with a fitting key commitment and checksum.
fn pack_object(input: &[u8]) {
    let name = Name::Pack(PACK);
    let was_sound = sound(name, input);
    let Some(random) = input.get(HEADER_BYTES..CHUNKS_OFFSET) else {
        return;
    };
    let Ok(random) = Fields::new(random).array() else {
        return;
    };
    if input.len() < CHUNKS_OFFSET + FOOTER_BYTES {
        assert!(!was_sound);
        return;
    }
    let mut object = input[..input.len() - HASH_BYTES].to_vec();
    let kind = PACK.kind.object_type();
    let commitment = shared().keys.pack(&random, PACK.number, kind).commitment;
    let at = object.len() - commitment.len();
    object[at..].copy_from_slice(&commitment);
    assert!(sound(name, &with_hash(&object)) || !was_sound);
}

/// The plain text of a trailer, in a pack as long as the trailer says.
fn pack_trailer(plain: &[u8]) {
    let listed = ChunkEntry::decode_all(&mut Fields::new(plain));
    let end = listed.as_deref().map_or(0, ChunkEntry::end_of_all);
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    let end = end.clamp(CHUNKS_OFFSET, CHUNKS_OFFSET + MADE_BYTES_MAX);
    let Ok(object) = pack_with_trailer(end, plain) else {
        return;
    };
    let shared = shared();
    if let Ok((_, pack)) = read_pack(&shared.keys, shared.id, PACK, &object) {
        assert_eq!(Ok(&pack.chunks), listed.as_ref());
        assert_eq!(pack.length as usize, object.len());
        let mut again = (pack.chunks.len() as u32).to_le_bytes().to_vec();
        for chunk in &pack.chunks {
            chunk.encode(&mut again);
        }
        again.resize(plain.len(), 0);
        assert_eq!(again, plain, "a trailer has one encoding");
    }
    // The chunks are zeros, which nobody sealed.
    assert!(!sound(Name::Pack(PACK), &object));
}

/// A pack with a sealed trailer at `end`, and zeros for chunks.
fn pack_with_trailer(end: usize, plain: &[u8]) -> Result<Vec<u8>, Damage> {
    let kind = PACK.kind.object_type();
    let triple = shared().keys.pack(&RANDOM, PACK.number, kind);
    let entry = trailer_entry(plain.len(), plain.len() + TAG_BYTES)?;
    let mut out = Vec::with_capacity(end + plain.len() + TAG_BYTES + FOOTER_BYTES);
    out.extend_from_slice(&header(kind));
    out.extend_from_slice(&RANDOM);
    out.resize(end, 0);
    out.extend_from_slice(plain);
    let nonce = nonce(&triple, TRAILER_POSITION, &entry);
    let aad = aad(REPOSITORY, PACK, TRAILER_POSITION, &entry);
    triple.cipher().seal(&nonce, &aad, &mut out, end)?;
    out.extend_from_slice(&entry.stored.to_le_bytes());
    out.extend_from_slice(&triple.commitment);
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    Ok(out)
}

/// A byte for the codec, the declared length, and the encoded bytes of a chunk.
fn pack_chunk(input: &[u8]) {
    let mut fields = Fields::new(input);
    let (Ok(codec), Ok(raw)) = (fields.u8(), fields.u32()) else {
        return;
    };
    let codec = match codec % 2 {
        0 => Codec::Stored,
        _ => Codec::Zstd,
    };
    let (raw, encoded) = (raw as usize, &input[5..]);
    let shared = shared();
    let id = match shared
        .coders
        .decode(codec, raw.min(CHUNK_BYTES_MAX), encoded.to_vec())
    {
        Ok(plain) if plain.len() == raw => {
            encode_again(&plain);
            Some(shared.keys.chunk_id(&plain))
        }
        _ => None,
    };
    let mut pack = PackBuilder::new(&shared.keys, REPOSITORY, &RANDOM, PACK, Vec::new());
    let chunk = Encoded {
        codec,
        raw,
        bytes: encoded,
    };
    let named = id.unwrap_or(ChunkId::from_bytes([0; 32]));
    if pack.push(named, &chunk).is_err() {
        return;
    }
    let Ok(sealed) = pack.finish() else {
        return;
    };
    let checked = shared.check_bytes(&PACK.key(), &sealed.bytes).ok();
    // What is not shorter compressed is stored as it is.
    let fits = codec == Codec::Stored || encoded.len() < raw;
    let expected = id.filter(|_| fits).map(|_| Checked::Pack {
        chunks: 1,
        plain_bytes: raw as u64,
    });
    assert_eq!(checked, expected);
}

fn encode_again(plain: &[u8]) {
    if plain.len() > MADE_BYTES_MAX {
        return;
    }
    let coders = &shared().coders;
    for compression in [Compression::Small, Compression::Quick] {
        match coders.lease().encode(compression, plain) {
            Ok(chunk) => {
                let decoded = coders.decode(chunk.codec, chunk.raw, chunk.bytes.to_vec());
                assert_eq!(decoded.as_deref(), Ok(plain));
            }
            Err(damage) => panic!("a chunk cannot be compressed: {damage}"),
        }
    }
}

#[cfg(test)]
mod tests;

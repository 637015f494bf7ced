//! Packs: chunks of one session in one object, `docs/format.md` section 7.
//! Never does I/O; what is larger than a pack is refused, never split.

use crate::{
    compress::{Codec, Encoded},
    crypto::{Keys, TAG_BYTES, Triple, same},
    header::{HEADER_BYTES, LAYOUT, expect_header, header},
    ids::{ChunkId, RepositoryId},
    names::PackName,
    record::PackEntry,
    wire::{Damage, Fields},
};

/// Longest chunk, in bytes of plain data.
pub const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest pack, in bytes.
pub(crate) const PACK_BYTES_MAX: usize = 16 * 1024 * 1024;
pub(crate) const PACK_CHUNKS_MAX: usize = 65_536;

pub(crate) const CHUNKS_OFFSET: usize = HEADER_BYTES + 32;
pub(crate) const FOOTER_BYTES: usize = 68;
pub(crate) const HASH_BYTES: usize = 32;

const PAGE_BYTES: usize = 4096;
pub(crate) const TRAILER_POSITION: u32 = u32::MAX;
const NO_CHUNK: ChunkId = ChunkId::from_bytes([0; 32]);

// One chunk that does not compress always fits into an empty pack.
const _: () = assert!(CHUNK_BYTES_MAX + 2 * PAGE_BYTES < PACK_BYTES_MAX);

/// One chunk as a trailer or index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    pub(crate) id: ChunkId,
    pub(crate) codec: Codec,
    pub(crate) raw: u32,
    pub(crate) stored: u32,
}

impl ChunkEntry {
    pub(crate) const BYTES: usize = 41;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        out.push(self.codec.byte());
        out.extend_from_slice(&self.raw.to_le_bytes());
        out.extend_from_slice(&self.stored.to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let id = ChunkId::from_bytes(fields.array()?);
        let codec = Codec::from_byte(fields.u8()?).ok_or(Damage::Field("codec"))?;
        let raw = fields.u32()?;
        let stored = fields.u32()?;
        if raw as usize > CHUNK_BYTES_MAX {
            return Err(Damage::Field("raw length"));
        }
        // A chunk is compressed only where that makes it shorter.
        let longest = raw as usize + TAG_BYTES;
        let fits = match codec {
            Codec::Stored => stored as usize == longest,
            Codec::Zstd => (TAG_BYTES..longest).contains(&(stored as usize)),
        };
        if !fits {
            return Err(Damage::Field("stored length"));
        }
        Ok(Self {
            id,
            codec,
            raw,
            stored,
        })
    }

    pub(crate) fn decode_all(fields: &mut Fields<'_>) -> Result<Vec<Self>, Damage> {
        let count = fields.count(Self::BYTES)?;
        (0..count).map(|_| Self::decode(fields)).collect()
    }

    /// The offset behind the last of these chunks in their pack.
    pub(crate) fn end_of_all(chunks: &[Self]) -> u64 {
        chunks
            .iter()
            .map(|chunk| u64::from(chunk.stored))
            .sum::<u64>()
            + CHUNKS_OFFSET as u64
    }
}

/// The AAD of a chunk or trailer: everything that says where it belongs.
pub(crate) fn aad(
    repository: RepositoryId,
    name: PackName,
    position: u32,
    entry: &ChunkEntry,
) -> [u8; 80] {
    let mut out = [0; 80];
    out[0..2].copy_from_slice(&LAYOUT.to_le_bytes());
    out[2..18].copy_from_slice(repository.as_bytes());
    out[18] = name.kind.object_type().byte();
    out[19..35].copy_from_slice(name.session.as_bytes());
    out[35..39].copy_from_slice(&name.number.to_le_bytes());
    out[39..43].copy_from_slice(&position.to_le_bytes());
    out[43..75].copy_from_slice(entry.id.as_bytes());
    out[75] = entry.codec.byte();
    out[76..80].copy_from_slice(&entry.raw.to_le_bytes());
    out
}

pub(crate) fn nonce(triple: &Triple, position: u32, entry: &ChunkEntry) -> [u8; 12] {
    triple.nonce(&[
        &position.to_le_bytes(),
        entry.id.as_bytes(),
        &entry.stored.to_le_bytes(),
    ])
}

pub(crate) fn trailer_entry(plain: usize, stored: usize) -> Result<ChunkEntry, Damage> {
    Ok(ChunkEntry {
        id: NO_CHUNK,
        codec: Codec::Stored,
        raw: u32::try_from(plain).map_err(|_| Damage::TooLong)?,
        stored: u32::try_from(stored).map_err(|_| Damage::TooLong)?,
    })
}

/// Decrypts one chunk of a pack. The caller decodes it and checks its id.
pub(crate) fn open_chunk(
    triple: &Triple,
    repository: RepositoryId,
    name: PackName,
    position: u32,
    entry: &ChunkEntry,
    sealed: &[u8],
) -> Result<Vec<u8>, Damage> {
    if sealed.len() != entry.stored as usize {
        return Err(Damage::Truncated);
    }
    let nonce = nonce(triple, position, entry);
    let aad = aad(repository, name, position, entry);
    triple.cipher().open(&nonce, &aad, sealed)
}

/// A pack that is being filled.
pub(crate) struct PackBuilder {
    repository: RepositoryId,
    name: PackName,
    triple: Triple,
    out: Vec<u8>,
    /// Has seen the first `hashed` bytes of `out`: right after they were encrypted,
    /// while they are near.
    hasher: blake3::Hasher,
    hashed: usize,
    chunks: Vec<ChunkEntry>,
}

/// A finished pack: its object and its entry in the index.
pub(crate) struct SealedPack {
    pub(crate) name: PackName,
    pub(crate) bytes: Vec<u8>,
    pub(crate) entry: PackEntry,
}

impl PackBuilder {
    /// Fills `out`, an empty buffer.
    pub(crate) fn new(
        keys: &Keys,
        repository: RepositoryId,
        random: &[u8; 32],
        name: PackName,
        mut out: Vec<u8>,
    ) -> Self {
        let kind = name.kind.object_type();
        out.extend_from_slice(&header(kind));
        out.extend_from_slice(random);
        Self {
            repository,
            name,
            triple: keys.pack(random, name.number, kind),
            out,
            hasher: blake3::Hasher::new(),
            hashed: 0,
            chunks: Vec::new(),
        }
    }

    /// How long the pack is if it gets one more chunk of this encoded length.
    pub(crate) fn len_with(&self, encoded: usize) -> usize {
        let trailer = 4 + (self.chunks.len() + 1) * ChunkEntry::BYTES + TAG_BYTES;
        (self.out.len() + encoded + TAG_BYTES + trailer + FOOTER_BYTES).next_multiple_of(PAGE_BYTES)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.chunks.len() >= PACK_CHUNKS_MAX
    }

    pub(crate) fn push(&mut self, id: ChunkId, chunk: &Encoded<'_>) -> Result<(), Damage> {
        if self.is_full() || self.len_with(chunk.bytes.len()) > PACK_BYTES_MAX {
            return Err(Damage::TooLong);
        }
        let entry = ChunkEntry {
            id,
            codec: chunk.codec,
            raw: u32::try_from(chunk.raw).map_err(|_| Damage::TooLong)?,
            stored: u32::try_from(chunk.bytes.len() + TAG_BYTES).map_err(|_| Damage::TooLong)?,
        };
        let position = u32::try_from(self.chunks.len()).map_err(|_| Damage::TooLong)?;
        self.out.extend_from_slice(chunk.bytes);
        let from = self.out.len() - chunk.bytes.len();
        self.seal(position, &entry, from)?;
        self.hash();
        self.chunks.push(entry);
        Ok(())
    }

    fn hash(&mut self) {
        self.hasher.update(&self.out[self.hashed..]);
        self.hashed = self.out.len();
    }

    fn seal(&mut self, position: u32, entry: &ChunkEntry, from: usize) -> Result<(), Damage> {
        let nonce = nonce(&self.triple, position, entry);
        let aad = aad(self.repository, self.name, position, entry);
        self.triple.cipher().seal(&nonce, &aad, &mut self.out, from)
    }

    pub(crate) fn finish(mut self) -> Result<SealedPack, Damage> {
        let from = self.out.len();
        let plain = 4 + self.chunks.len() * ChunkEntry::BYTES;
        let total = from + plain + TAG_BYTES + FOOTER_BYTES;
        let padded = plain + total.next_multiple_of(PAGE_BYTES) - total;

        let count = u32::try_from(self.chunks.len()).map_err(|_| Damage::TooLong)?;
        self.out.extend_from_slice(&count.to_le_bytes());
        for chunk in &self.chunks {
            chunk.encode(&mut self.out);
        }
        self.out.resize(from + padded, 0);
        let trailer = trailer_entry(padded, padded + TAG_BYTES)?;
        self.seal(TRAILER_POSITION, &trailer, from)?;

        self.out.extend_from_slice(&trailer.stored.to_le_bytes());
        self.out.extend_from_slice(&self.triple.commitment);
        self.hash();
        self.out
            .extend_from_slice(self.hasher.finalize().as_bytes());
        let entry = PackEntry {
            number: self.name.number,
            kind: self.name.kind,
            length: u32::try_from(self.out.len()).map_err(|_| Damage::TooLong)?,
            commitment: self.triple.commitment,
            chunks: self.chunks,
        };
        Ok(SealedPack {
            name: self.name,
            bytes: self.out,
            entry,
        })
    }
}

/// Reads the trailer of an entire pack, with every check but those of its
/// chunks: header, hash, commitment, and that it is as long as it says.
pub(crate) fn read_pack(
    keys: &Keys,
    repository: RepositoryId,
    name: PackName,
    bytes: &[u8],
) -> Result<(Triple, PackEntry), Damage> {
    if bytes.len() > PACK_BYTES_MAX {
        return Err(Damage::TooLong);
    }
    let mut fields = Fields::new(bytes);
    expect_header(&mut fields, name.kind.object_type())?;
    let random = fields.array()?;
    let hashed = bytes
        .len()
        .checked_sub(FOOTER_BYTES)
        .filter(|end| *end >= CHUNKS_OFFSET)
        .map(|end| end + FOOTER_BYTES - HASH_BYTES)
        .ok_or(Damage::Truncated)?;
    let (hashed, hash) = bytes.split_at(hashed);
    if !same(blake3::hash(hashed).as_bytes(), hash) {
        return Err(Damage::Checksum);
    }
    read_tail(keys, repository, name, &random, bytes.len(), bytes)
}

/// How many bytes at the end of a pack its trailer and footer are, as the footer
/// says, which is what `tail` ends with.
pub(crate) fn tail_bytes(tail: &[u8]) -> Result<usize, Damage> {
    let footer = tail
        .len()
        .checked_sub(FOOTER_BYTES)
        .ok_or(Damage::Truncated)?;
    let stored = Fields::new(&tail[footer..]).u32()? as usize;
    Ok(stored.saturating_add(FOOTER_BYTES))
}

/// Reads the trailer of a pack of `length` bytes that ends with `tail`. It is
/// authenticated; the chunks are not looked at.
pub(crate) fn read_tail(
    keys: &Keys,
    repository: RepositoryId,
    name: PackName,
    random: &[u8; 32],
    length: usize,
    tail: &[u8],
) -> Result<(Triple, PackEntry), Damage> {
    let triple = keys.pack(random, name.number, name.kind.object_type());
    let body = tail
        .len()
        .checked_sub(FOOTER_BYTES)
        .ok_or(Damage::Truncated)?;
    let mut footer = Fields::new(&tail[body..]);
    let stored = footer.u32()? as usize;
    let commitment = footer.array()?;
    triple.check(&commitment)?;

    let from = length
        .checked_sub(FOOTER_BYTES + stored)
        .filter(|from| *from >= CHUNKS_OFFSET && stored >= TAG_BYTES)
        .ok_or(Damage::Field("trailer length"))?;
    let entry = trailer_entry(stored - TAG_BYTES, stored)?;
    let sealed = body
        .checked_sub(stored)
        .and_then(|start| tail.get(start..body))
        .ok_or(Damage::Truncated)?;
    let plain = open_chunk(&triple, repository, name, TRAILER_POSITION, &entry, sealed)?;
    let mut fields = Fields::new(&plain);
    let chunks = ChunkEntry::decode_all(&mut fields)?;
    fields.padding(PAGE_BYTES)?;
    if chunks.is_empty() || chunks.len() > PACK_CHUNKS_MAX {
        return Err(Damage::Field("number of chunks"));
    }
    if ChunkEntry::end_of_all(&chunks) != from as u64 {
        return Err(Damage::Field("stored length"));
    }
    let length = u32::try_from(length).map_err(|_| Damage::TooLong)?;
    let entry = PackEntry {
        number: name.number,
        kind: name.kind,
        length,
        commitment,
        chunks,
    };
    Ok((triple, entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compress::{Coders, Compression},
        crypto::MasterKey,
        ids::{SessionId, hex},
        names::ChunkKind,
    };

    const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);
    const NAME: PackName = PackName {
        session: SessionId::from_bytes([5; 16]),
        number: 7,
        kind: ChunkKind::Data,
    };

    fn keys() -> Keys {
        Keys::derive(&MasterKey::new([1; 32]), REPOSITORY)
    }

    fn pack_of(chunks: &[Vec<u8>]) -> SealedPack {
        let keys = keys();
        let mut pack = PackBuilder::new(&keys, REPOSITORY, &[3; 32], NAME, Vec::new());
        let coders = Coders::default();
        for plain in chunks {
            let mut lease = coders.lease();
            let encoded = lease.encode(Compression::Small, plain).unwrap();
            pack.push(keys.chunk_id(plain), &encoded).unwrap();
        }
        pack.finish().unwrap()
    }

    #[test]
    fn known_answers() {
        // The same vectors are in docs/format.md, section 12.
        let pack = pack_of(&[b"lifebuoy".to_vec()]);
        let aad = aad(REPOSITORY, NAME, 0, &pack.entry.chunks[0]);
        assert_eq!(
            hex(&aad),
            "01000202020202020202020202020202020210050505050505050505050505050505050700000000000000736bf8e6b8887aa6f28351b591f1c9e278f8cd2283f8fdbd6d9017e07d5db7e80008000000"
        );
        assert_eq!(
            hex(&pack.bytes[48..72]),
            "c658177bd8d69e82b8503a9a2ca7b8a9decec59c8cdcafb8"
        );
        assert_eq!(pack.bytes.len(), 4096);
        assert_eq!(
            hex(&pack.bytes[4096 - 32..]),
            "8243eea9d79675cde3b6a104e7afbdff5f96651f2257a212251a03273e4cc660"
        );
        assert_eq!(
            pack.name.key(),
            "packs/0c/05050505050505050505050505050505-7.data"
        );
    }

    #[test]
    fn the_trailer_lists_what_was_put() {
        let chunks: Vec<Vec<u8>> = (0..200_usize).map(|n| vec![b'x'; n * n]).collect();
        let pack = pack_of(&chunks);
        let (_, read) = read_pack(&keys(), REPOSITORY, NAME, &pack.bytes).unwrap();
        assert_eq!(read, pack.entry);
        assert_eq!(read.length as usize, pack.bytes.len());
        assert!(read.chunks.iter().any(|chunk| chunk.codec == Codec::Zstd));
    }

    #[test]
    fn a_pack_does_not_grow_beyond_its_limit() {
        let keys = keys();
        let mut pack = PackBuilder::new(&keys, REPOSITORY, &[3; 32], NAME, Vec::new());
        let bytes = vec![0; CHUNK_BYTES_MAX];
        let chunk = Encoded {
            codec: Codec::Stored,
            raw: bytes.len(),
            bytes: &bytes,
        };
        let id = keys.chunk_id(b"any");
        while pack.push(id, &chunk).is_ok() {}
        let sealed = pack.finish().unwrap();
        assert_eq!(sealed.entry.chunks.len(), 3);
        assert!(sealed.bytes.len() <= PACK_BYTES_MAX);
    }
}

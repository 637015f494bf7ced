//! Checks one object of the bucket against all of `docs/format.md`, without
//! relying on the index: for repair, and for the tests of the format.

use crate::{
    error::{Error, Result},
    format::{FORMAT_BYTES, Format},
    generation::{
        Claim, RunBody, decode_final, decode_packs_part, decode_pin, decode_plan, decode_rely_part,
    },
    header::LAYOUT,
    keyslot::{SLOT_BYTES, Slot},
    names::{Mended, Name, ObjectType, PackName},
    pack::{CHUNKS_OFFSET, open_chunk, read_pack},
    record::{
        EndBody, IndexBody, OpenBody, RECORD_BYTES_MAX, decode_at, decode_beat, decode_forget,
    },
    repository::{Repository, Shared, blocking},
    wire::Damage,
};
use std::sync::Arc;

const PROBE_BYTES: usize = 32;

/// What an object is, as far as it was found sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checked {
    /// Format object, key slot or record: header and contents are sound.
    Record,
    /// A pack whose chunks all have the contents that their ids name.
    Pack {
        /// How many chunks it holds.
        chunks: usize,
        /// Their bytes of plain data.
        plain_bytes: u64,
    },
    /// A probe, or an object that this version gives no meaning to.
    Ignored,
}

impl Repository {
    /// Reads one object and checks every byte of it.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Missing`], or one of the store.
    pub async fn check_object(&self, key: &str) -> Result<Checked> {
        let shared = Arc::clone(&self.shared);
        let bytes = shared.objects.get_bounded(key, RECORD_BYTES_MAX).await?;
        let key = key.to_owned();
        blocking(move || shared.check_bytes(&key, &bytes)).await?
    }
}

impl Shared {
    pub(crate) fn check_bytes(&self, key: &str, bytes: &[u8]) -> Result<Checked> {
        let corrupt = |damage| Error::corrupt(key, damage);
        let open = |kind| self.records().open(key, kind, bytes);
        match Name::parse(key) {
            None => return Ok(Checked::Ignored),
            Some(Name::Probe(_)) if bytes.len() == PROBE_BYTES => return Ok(Checked::Ignored),
            Some(Name::Probe(_)) => return Err(corrupt(Damage::Truncated)),
            Some(Name::Format(_)) => {
                Format::parse(key, bytes)?.check_mac(key, bytes, &self.keys)?;
                debug_assert_eq!(bytes.len(), FORMAT_BYTES);
            }
            Some(Name::Slot(_)) => {
                Slot::parse(key, bytes).map_err(corrupt)?;
                debug_assert_eq!(bytes.len(), SLOT_BYTES);
            }
            Some(Name::Open(_, generation, _)) => {
                let body = decode_at(key, &open(ObjectType::Open)?, OpenBody::decode)?;
                if body.generation != generation {
                    return Err(corrupt(Damage::Field("birth generation")));
                }
            }
            Some(Name::End(..)) => {
                decode_at(key, &open(ObjectType::End)?, EndBody::decode)?;
            }
            Some(Name::Index(_)) => {
                let (layout, body) = self.records().open_any(key, ObjectType::Index, bytes)?;
                decode_at(key, &body, |body| IndexBody::decode(layout, body))?;
            }
            Some(Name::Plan(_)) => {
                decode_at(key, &open(ObjectType::Plan)?, decode_plan)?;
            }
            Some(Name::Final(_)) => {
                decode_at(key, &open(ObjectType::Final)?, decode_final)?;
            }
            Some(Name::Run(_)) => {
                decode_at(key, &open(ObjectType::Run)?, RunBody::decode)?;
            }
            Some(Name::RunPart(_)) => {
                let body = open(ObjectType::RunPart)?;
                let packs = decode_packs_part(&body).map(|_| ());
                let relied = || decode_rely_part(&body).map(|_| ());
                packs.or_else(|_| relied()).map_err(corrupt)?;
            }
            Some(Name::Pin(..)) => decode_at(key, &open(ObjectType::Pin)?, decode_pin)?,
            Some(Name::Keeper(_)) => {
                decode_at(key, &open(ObjectType::Keeper)?, Claim::decode)?;
            }
            Some(Name::Forget(_)) => {
                decode_at(key, &open(ObjectType::Forget)?, decode_forget)?;
            }
            Some(Name::Beat(_, n)) => {
                if decode_at(key, &open(ObjectType::Beat)?, decode_beat)? != n {
                    return Err(corrupt(Damage::Field("number")));
                }
            }
            Some(Name::Mend(mended)) => {
                let body = open(ObjectType::Mend)?;
                match mended {
                    Mended::Index(_) => IndexBody::decode(LAYOUT, &body).map(|_| ()),
                    Mended::Part(_) => decode_packs_part(&body)
                        .map(|_| ())
                        .or_else(|_| decode_rely_part(&body).map(|_| ())),
                    Mended::Pack(_) => decode_forget(&body).map(|_| ()),
                }
                .map_err(corrupt)?;
            }
            Some(Name::Pack(name)) => return self.check_pack(name, bytes).map_err(corrupt),
        }
        Ok(Checked::Record)
    }

    fn check_pack(&self, name: PackName, bytes: &[u8]) -> Result<Checked, Damage> {
        let (triple, pack) = read_pack(&self.keys, self.id, name, bytes)?;
        let mut from = CHUNKS_OFFSET;
        let mut plain_bytes = 0;
        for (position, entry) in (0..).zip(&pack.chunks) {
            let to = from + entry.stored as usize;
            let sealed = bytes.get(from..to).ok_or(Damage::Truncated)?;
            from = to;
            let plain = open_chunk(&triple, self.id, name, position, entry, sealed)?;
            let plain = self.coders.decode(entry.codec, entry.raw as usize, plain)?;
            if self.keys.chunk_id(&plain) != entry.id {
                return Err(Damage::ChunkId);
            }
            plain_bytes += plain.len() as u64;
        }
        Ok(Checked::Pack {
            chunks: pack.chunks.len(),
            plain_bytes,
        })
    }
}

//! A reader written from `docs/format.md` alone: it shares no code with the
//! repository crate. For every object it says which bytes are clear and which
//! are AEAD output, and opens the latter to prove it.

use std::collections::BTreeMap;
use std::ops::Range;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use anyhow::{Context, Result, bail, ensure};
use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use sha2::Sha256;

const HEADER: usize = 16;

/// A stretch of an object.
#[derive(Debug)]
pub(crate) enum Region {
    /// Listed as clear in section 8.
    Clear(Range<usize>),
    /// AEAD output that opened.
    Sealed(Range<usize>),
}

/// The keys of one repository, from its objects and the passphrase.
pub(crate) struct Reader {
    repository: [u8; 16],
    data: [u8; 32],
    record: [u8; 32],
    chunk_id: [u8; 32],
}

impl Reader {
    /// Opens the first key slot that the passphrase fits (sections 3 and 5).
    pub(crate) fn new(objects: &BTreeMap<String, Vec<u8>>, passphrase: &str) -> Result<Self> {
        let format = objects.get("format/1").context("no format/1")?;
        let repository: [u8; 16] = format.get(16..32).context("short format")?.try_into()?;
        let (key, slot) = objects
            .iter()
            .find(|(key, _)| key.starts_with("keys/"))
            .context("no key slot")?;
        ensure!(slot.len() == 192, "a key slot has 192 bytes");
        let number =
            |at: usize| -> Result<u32> { Ok(u32::from_le_bytes(slot[at..at + 4].try_into()?)) };
        let params = Params::new(number(36)?, number(40)?, number(44)?, Some(32))
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut kek = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &slot[48..80], &mut kek)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let triple = derive::<76>(&kek, Some(&slot[48..80]), b"lifebuoy/1/slot")?;
        ensure!(triple[32..64] == slot[80..112], "wrong passphrase");
        let aad = [&slot[..112], key.as_bytes()].concat();
        let master = open(&triple[..32], &triple[64..76], &aad, &slot[112..160])?;
        let sub = |name: &str| {
            derive::<32>(
                &master,
                Some(&repository),
                format!("lifebuoy/1/{name}").as_bytes(),
            )
        };
        let mac = blake3::keyed_hash(&sub("format")?, &[b"format/1", &format[..64]].concat());
        ensure!(
            mac.as_bytes()[..] == format[64..96],
            "the format object's MAC is wrong"
        );
        Ok(Self {
            repository,
            data: sub("data")?,
            record: sub("record")?,
            chunk_id: sub("chunk-id")?,
        })
    }

    /// Accounts for every byte of an object.
    pub(crate) fn account(&self, key: &str, bytes: &[u8]) -> Result<Vec<Region>> {
        let folder = key.split('/').next().unwrap_or_default();
        if folder == "probe" {
            return Ok(vec![Region::Clear(0..bytes.len())]);
        }
        ensure!(
            bytes.len() >= HEADER && &bytes[..8] == b"LIFEBUOY",
            "no header"
        );
        ensure!(bytes[9] == 0 && bytes[11..16] == [0; 5], "another header");
        let expected = match folder {
            "format" => 1,
            "keys" => 2,
            "open" => 3,
            "end" => 4,
            "index" if key.starts_with("index/runs/") => 9,
            "index" if key.starts_with("index/parts/") => 11,
            "index" => 5,
            "gc" if key.ends_with(".plan") => 8,
            "gc" if key.ends_with(".final") => 10,
            "pin" => 12,
            "keeper" => 13,
            "forget" => 6,
            "beat" => 7,
            "packs" if key.ends_with(".data") => 16,
            "packs" if key.ends_with(".meta") => 17,
            _ => bail!("a key that the format does not have"),
        };
        ensure!(
            bytes[10] == expected,
            "type {} instead of {expected}",
            bytes[10]
        );
        let layout = match expected {
            1 => key.trim_start_matches("format/").parse()?,
            5 | 8..=13 => 2,
            _ => 1,
        };
        ensure!(bytes[8] == layout, "layout {} of {key}", bytes[8]);
        match expected {
            1 => Ok(vec![Region::Clear(0..128)]),
            2 => Ok(vec![
                Region::Clear(0..112),
                Region::Sealed(112..160),
                Region::Clear(160..192),
            ]),
            16 | 17 => self.pack(key, bytes),
            _ => self.record(key, bytes),
        }
    }

    /// Section 6.
    fn record(&self, key: &str, bytes: &[u8]) -> Result<Vec<Region>> {
        ensure!(bytes.len() >= 92 + 16, "a short record");
        let info = [
            b"lifebuoy/1/record".as_slice(),
            &bytes[10..11],
            &bytes[16..48],
        ]
        .concat();
        let triple = derive::<96>(&self.record, None, &info)?;
        ensure!(triple[32..64] == bytes[48..80], "another commitment");
        let aad = [&bytes[..HEADER], &self.repository, key.as_bytes()].concat();
        let plain = open(&triple[..32], &bytes[80..92], &aad, &bytes[92..])?;
        ensure!(plain.len().is_multiple_of(256), "a record is padded");
        ensure!(
            nonce(&triple[64..], &[&plain])? == bytes[80..92],
            "another nonce"
        );
        Ok(vec![Region::Clear(0..92), Region::Sealed(92..bytes.len())])
    }

    /// Section 7.
    fn pack(&self, key: &str, bytes: &[u8]) -> Result<Vec<Region>> {
        let (session, number) = key
            .rsplit('/')
            .next()
            .and_then(|name| name.split('.').next())
            .and_then(|name| name.split_once('-'))
            .context("a pack's name")?;
        let session = u128::from_str_radix(session, 16)?.to_be_bytes();
        let number: u32 = number.parse()?;
        let footer = bytes.len().checked_sub(68).context("a short pack")?;
        ensure!(bytes.len().is_multiple_of(4096), "a pack is padded");
        ensure!(
            blake3::hash(&bytes[..footer + 36]).as_bytes()[..] == bytes[footer + 36..],
            "hash"
        );
        let info = [
            b"lifebuoy/1/pack".as_slice(),
            &bytes[16..48],
            &number.to_le_bytes(),
            &bytes[10..11],
        ];
        let triple = derive::<96>(&self.data, None, &info.concat())?;
        ensure!(
            triple[32..64] == bytes[footer + 4..footer + 36],
            "another commitment"
        );

        let sealed = |position: u32, id: &[u8], codec: u8, raw: u32, range: Range<usize>| {
            let aad = [
                &[1, 0],
                self.repository.as_slice(),
                &bytes[10..11],
                &session,
                &number.to_le_bytes(),
                &position.to_le_bytes(),
                id,
                &[codec],
                &raw.to_le_bytes(),
            ];
            let stored = u32::try_from(range.len())?.to_le_bytes();
            let nonce = nonce(&triple[64..], &[&position.to_le_bytes(), id, &stored])?;
            open(&triple[..32], &nonce, &aad.concat(), &bytes[range])
        };
        let length = u32::from_le_bytes(bytes[footer..footer + 4].try_into()?);
        let trailer = footer
            .checked_sub(length as usize)
            .context("a long trailer")?..footer;
        let raw = length.checked_sub(16).context("a short trailer")?;
        let plain = sealed(u32::MAX, &[0; 32], 0, raw, trailer.clone())?;

        let mut regions = vec![Region::Clear(0..48)];
        let mut at = 48;
        let count = u32::from_le_bytes(plain[..4].try_into()?);
        for (position, entry) in (0..count).zip(plain[4..].chunks(41)) {
            let (id, codec) = (&entry[..32], entry[32]);
            let raw = u32::from_le_bytes(entry[33..37].try_into()?);
            let stored = u32::from_le_bytes(entry[37..41].try_into()?) as usize;
            let encoded = sealed(position, id, codec, raw, at..at + stored)?;
            let chunk = match codec {
                0 => encoded,
                1 => zstd::decode_all(encoded.as_slice())?,
                other => bail!("codec {other}"),
            };
            ensure!(chunk.len() == raw as usize, "a chunk of another length");
            ensure!(
                blake3::keyed_hash(&self.chunk_id, &chunk).as_bytes()[..] == *id,
                "another id"
            );
            regions.push(Region::Sealed(at..at + stored));
            at += stored;
        }
        ensure!(
            at == trailer.start,
            "{} bytes between chunks and trailer",
            trailer.start - at
        );
        regions.push(Region::Sealed(trailer));
        regions.push(Region::Clear(footer..bytes.len()));
        Ok(regions)
    }
}

/// HKDF-SHA256; without a salt, its expand step alone.
fn derive<const N: usize>(key: &[u8], salt: Option<&[u8]>, info: &[u8]) -> Result<[u8; N]> {
    let mut output = [0; N];
    let hkdf = match salt {
        Some(salt) => Hkdf::<Sha256>::new(Some(salt), key),
        None => Hkdf::<Sha256>::from_prk(key).map_err(|error| anyhow::anyhow!("{error}"))?,
    };
    hkdf.expand(info, &mut output)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(output)
}

fn nonce(key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>> {
    let hash = blake3::keyed_hash(key.try_into()?, &parts.concat());
    Ok(hash.as_bytes()[..12].to_vec())
}

fn open(key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::try_from(key)?);
    cipher
        .decrypt(&Nonce::try_from(nonce)?, Payload { msg: sealed, aad })
        .map_err(|_| anyhow::anyhow!("this is not AEAD output"))
}

//! A second reader, written from `docs/format.md` alone: it shares no code with
//! the crate. It accounts for every byte of a bucket: clear and as specified, or
//! AEAD output that opens. `Err` names the object and what is wrong.
//!
//! It depends on cryptographic crates only, so other tests can include this file.

use std::collections::{BTreeMap, BTreeSet};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use sha2::Sha256;

/// What a bucket holds.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// Plain bytes by chunk id, of all packs.
    pub(crate) chunks: BTreeMap<[u8; 32], Vec<u8>>,
    /// Root and summary by session id in hex, of committed sessions.
    pub(crate) snapshots: BTreeMap<String, ([u8; 32], Vec<u8>)>,
    /// Session ids in hex of fenced sessions.
    pub(crate) fenced: BTreeSet<String>,
    /// Chunk ids that indices list.
    pub(crate) indexed: BTreeSet<[u8; 32]>,
    /// Objects that were read, by the first part of their key.
    pub(crate) objects: BTreeMap<String, usize>,
}

type Read<T> = Result<T, String>;

struct Keys {
    repository: [u8; 16],
    chunk_id: [u8; 32],
    data: [u8; 32],
    record: [u8; 32],
    format: [u8; 32],
}

/// Reads all objects of a bucket, by key.
pub(crate) fn read_bucket(objects: &BTreeMap<String, Vec<u8>>, passphrase: &str) -> Read<Bucket> {
    let keys = unlock(objects, passphrase)?;
    let mut bucket = Bucket::default();
    for (key, bytes) in objects {
        let (first, rest) = key
            .split_once('/')
            .ok_or(format!("{key} is not in the table"))?;
        let read = match first {
            "format" => format_object(&keys, key, bytes),
            "keys" => header(bytes, 2, 1),
            "open" => open(&keys, key, bytes),
            "end" => end(&keys, key, rest, bytes, &mut bucket),
            "index" => index(&keys, key, bytes, &mut bucket),
            "forget" => forget(&keys, key, bytes),
            "beat" => beat(&keys, key, rest, bytes),
            "packs" => pack(&keys, rest, bytes, &mut bucket),
            "probe" if bytes.len() == 32 => Ok(()),
            _ => Err("it is not in the table".into()),
        };
        read.map_err(|problem| format!("{key}: {problem}"))?;
        only_ids(key)?;
        *bucket.objects.entry(first.to_owned()).or_default() += 1;
    }
    Ok(bucket)
}

/// Behind the first part, a key holds hexadecimal ids and numbers only.
fn only_ids(key: &str) -> Read<()> {
    let name = key.trim_end_matches(".data").trim_end_matches(".meta");
    let mut parts = name.split(['/', '-']).skip(1);
    let fine = parts.all(|part| {
        let id = part.len() == 32 && part.bytes().all(|b| b"0123456789abcdef".contains(&b));
        let spread = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        id || spread || part.parse::<u64>().is_ok()
    });
    check(fine, &format!("{key} holds more than ids"))
}

fn check(holds: bool, problem: &str) -> Read<()> {
    if holds {
        Ok(())
    } else {
        Err(problem.to_owned())
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Read<[u8; N]> {
    let found = bytes.get(at..at + N).ok_or("it is too short")?;
    found.try_into().map_err(|_| "it is too short".to_owned())
}

fn number(bytes: &[u8], at: usize) -> Read<usize> {
    Ok(u32::from_le_bytes(part(bytes, at)?) as usize)
}

fn header(bytes: &[u8], kind: u8, layout: u8) -> Read<()> {
    let mut expected = b"LIFEBUOY\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
    expected[8] = layout;
    expected[10] = kind;
    check(bytes.starts_with(&expected), "the header is wrong")
}

fn expand(key: &[u8; 32], info: &[&[u8]]) -> Read<[[u8; 32]; 3]> {
    let mut out = [0; 96];
    let hkdf = Hkdf::<Sha256>::from_prk(key).map_err(|e| e.to_string())?;
    hkdf.expand_multi_info(info, &mut out)
        .map_err(|e| e.to_string())?;
    Ok([part(&out, 0)?, part(&out, 32)?, part(&out, 64)?])
}

fn decrypt(key: &[u8; 32], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Read<Vec<u8>> {
    let nonce: [u8; 12] = part(nonce, 0)?;
    let cipher = Aes256Gcm::new(key.into());
    cipher
        .decrypt((&nonce).into(), Payload { msg: sealed, aad })
        .map_err(|_| "it does not decrypt".to_owned())
}

fn unlock(objects: &BTreeMap<String, Vec<u8>>, passphrase: &str) -> Read<Keys> {
    let format = objects.get("format/1").ok_or("there is no format/1")?;
    let repository: [u8; 16] = part(format, 16)?;
    for (key, slot) in objects.iter().filter(|(key, _)| key.starts_with("keys/")) {
        check(slot.len() == 192, "a slot is not 192 bytes long")?;
        check(
            *blake3::hash(&slot[..160]).as_bytes() == slot[160..],
            "the hash of a slot",
        )?;
        if part::<16>(slot, 16)? != repository {
            continue;
        }
        check(slot[32..36] == [1, 0, 0, 0], "the KDF of a slot")?;
        let (memory, passes, lanes) = (number(slot, 36)?, number(slot, 40)?, number(slot, 44)?);
        let params = argon2::Params::new(memory as u32, passes as u32, lanes as u32, Some(32));
        let argon2 = argon2::Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            params.map_err(|e| e.to_string())?,
        );
        let mut kek = [0; 32];
        let derived = argon2.hash_password_into(passphrase.as_bytes(), &slot[48..80], &mut kek);
        derived.map_err(|e| e.to_string())?;
        let mut triple = [0; 76];
        let hkdf = Hkdf::<Sha256>::new(Some(&slot[48..80]), &kek);
        hkdf.expand(b"lifebuoy/1/slot", &mut triple)
            .map_err(|e| e.to_string())?;
        check(triple[32..64] == slot[80..112], "wrong passphrase")?;
        let aad = [&slot[..112], key.as_bytes()].concat();
        let master = decrypt(&part(&triple, 0)?, &triple[64..], &aad, &slot[112..160])?;
        let hkdf = Hkdf::<Sha256>::new(Some(&repository), &master);
        let sub = |name: &str| {
            let mut key = [0; 32];
            let info = format!("lifebuoy/1/{name}");
            let expanded = hkdf.expand(info.as_bytes(), &mut key);
            expanded.map(|()| key).map_err(|e| e.to_string())
        };
        return Ok(Keys {
            repository,
            chunk_id: sub("chunk-id")?,
            data: sub("data")?,
            record: sub("record")?,
            format: sub("format")?,
        });
    }
    Err("there is no slot of this repository".into())
}

fn format_object(keys: &Keys, key: &str, bytes: &[u8]) -> Read<()> {
    let version = key.strip_prefix("format/").and_then(|n| n.parse().ok());
    header(bytes, 1, version.ok_or("the key is wrong")?)?;
    check(bytes.len() == 128, "it is not 128 bytes long")?;
    check(bytes[32..56] == [0; 24], "feature bits are set")?;
    check(bytes[56..64] == [0, 1, 0, 0, 0, 0, 0, 0], "algorithms")?;
    let signed = [key.as_bytes(), &bytes[..64]].concat();
    check(
        *blake3::keyed_hash(&keys.format, &signed).as_bytes() == bytes[64..96],
        "the MAC",
    )?;
    check(
        *blake3::hash(&bytes[..96]).as_bytes() == bytes[96..],
        "the hash",
    )
}

/// The padded body of a record.
fn record(keys: &Keys, key: &str, kind: u8, bytes: &[u8]) -> Read<Vec<u8>> {
    // What a session relies on is in the index since format 2.
    header(bytes, kind, if kind == 5 { 2 } else { 1 })?;
    let salt: [u8; 32] = part(bytes, 16)?;
    let [aead, commitment, nonce_key] =
        expand(&keys.record, &[b"lifebuoy/1/record", &[kind], &salt])?;
    check(part(bytes, 48)? == commitment, "the commitment")?;
    let aad = [&bytes[..16], &keys.repository, key.as_bytes()].concat();
    let nonce: [u8; 12] = part(bytes, 80)?;
    let plain = decrypt(&aead, &nonce, &aad, &bytes[92..])?;
    let hash = blake3::keyed_hash(&nonce_key, &plain);
    check(
        hash.as_bytes().starts_with(&nonce),
        "the nonce is not the hash of the contents",
    )?;
    check(plain.len().is_multiple_of(256), "it is not padded")?;
    Ok(plain)
}

fn padding(body: &[u8], from: usize, step: usize) -> Read<()> {
    let rest = body.get(from..).ok_or("it is too short")?;
    check(
        rest.len() < step && rest.iter().all(|b| *b == 0),
        "the padding is wrong",
    )
}

fn open(keys: &Keys, key: &str, bytes: &[u8]) -> Read<()> {
    let body = record(keys, key, 3, bytes)?;
    check(
        body[0] == 1 && body[1..9] == [0; 8] && body[41..57] == [0; 16],
        "a field",
    )?;
    let label = u16::from_le_bytes(part(&body, 57)?) as usize;
    padding(&body, 59 + label, 256)
}

fn end(keys: &Keys, key: &str, rest: &str, bytes: &[u8], bucket: &mut Bucket) -> Read<()> {
    let body = record(keys, key, 4, bytes)?;
    let (_, session) = rest.split_once('/').ok_or("the key is wrong")?;
    match body[0] {
        1 => {
            let length = number(&body, 53)?;
            let summary = body.get(57..57 + length).ok_or("it is too short")?.to_vec();
            bucket
                .snapshots
                .insert(session.to_owned(), (part(&body, 17)?, summary));
            padding(&body, 57 + length, 256)
        }
        2 => {
            bucket.fenced.insert(session.to_owned());
            padding(&body, 9, 256)
        }
        _ => Err("the outcome is wrong".into()),
    }
}

fn index(keys: &Keys, key: &str, bytes: &[u8], bucket: &mut Bucket) -> Read<()> {
    let body = record(keys, key, 5, bytes)?;
    let mut at = 36;
    for _ in 0..number(&body, 32)? {
        let chunks = number(&body, at + 41)?;
        at += 45;
        for _ in 0..chunks {
            bucket.indexed.insert(part(&body, at)?);
            at += 41;
        }
    }
    let relied = number(&body, at)?;
    padding(&body, at + 4 + relied * 21, 256)
}

fn forget(keys: &Keys, key: &str, bytes: &[u8]) -> Read<()> {
    let body = record(keys, key, 6, bytes)?;
    padding(&body, 2 + u16::from_le_bytes(part(&body, 0)?) as usize, 256)
}

fn beat(keys: &Keys, key: &str, rest: &str, bytes: &[u8]) -> Read<()> {
    let body = record(keys, key, 7, bytes)?;
    let n = u64::from_le_bytes(part(&body, 0)?);
    check(
        rest.ends_with(&format!("/{n}")),
        "the number is not that of the key",
    )?;
    padding(&body, 8, 256)
}

/// What the AAD and nonces of one pack are made of.
struct Pack {
    triple: [[u8; 32]; 3],
    repository: [u8; 16],
    kind: u8,
    session: [u8; 16],
    number: u32,
}

impl Pack {
    fn open(
        &self,
        position: u32,
        id: &[u8; 32],
        codec: u8,
        raw: usize,
        sealed: &[u8],
    ) -> Read<Vec<u8>> {
        let stored = (sealed.len() as u32).to_le_bytes();
        let raw = (raw as u32).to_le_bytes();
        let position = position.to_le_bytes();
        let mut aad = vec![1, 0];
        aad.extend_from_slice(&self.repository);
        aad.push(self.kind);
        aad.extend_from_slice(&self.session);
        aad.extend_from_slice(&self.number.to_le_bytes());
        aad.extend_from_slice(&position);
        aad.extend_from_slice(id);
        aad.push(codec);
        aad.extend_from_slice(&raw);
        let nonce = blake3::keyed_hash(&self.triple[2], &[&position[..], id, &stored].concat());
        decrypt(&self.triple[0], nonce.as_bytes(), &aad, sealed)
    }
}

fn pack(keys: &Keys, rest: &str, bytes: &[u8], bucket: &mut Bucket) -> Read<()> {
    let (spread, name) = rest.split_once('/').ok_or("the key is wrong")?;
    let (name, suffix) = name.split_once('.').ok_or("the key is wrong")?;
    let (session, n) = name.split_once('-').ok_or("the key is wrong")?;
    let n: u32 = n.parse().map_err(|_| "the key is wrong")?;
    let mut id = [0; 16];
    for (at, byte) in id.iter_mut().enumerate() {
        let digits = session.get(at * 2..at * 2 + 2).ok_or("the key is wrong")?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| "the key is wrong")?;
    }
    let expected = format!("{:02x}", (usize::from(id[0]) + n as usize) % 256);
    check(spread == expected, "the spread is wrong")?;
    let kind = if suffix == "data" { 16 } else { 17 };
    header(bytes, kind, 1)?;
    check(
        bytes.len().is_multiple_of(4096) && bytes.len() <= 16_777_216,
        "the length",
    )?;

    let random: [u8; 32] = part(bytes, 16)?;
    let info: [&[u8]; 4] = [b"lifebuoy/1/pack", &random, &n.to_le_bytes(), &[kind]];
    let triple = expand(&keys.data, &info)?;
    let footer = bytes.len() - 68;
    check(
        bytes[footer + 4..footer + 36] == triple[1],
        "the commitment",
    )?;
    let hash = blake3::hash(&bytes[..footer + 36]);
    check(*hash.as_bytes() == bytes[footer + 36..], "the hash")?;
    let pack = Pack {
        triple,
        repository: keys.repository,
        kind,
        session: id,
        number: n,
    };

    let from = footer
        .checked_sub(number(bytes, footer)?)
        .ok_or("the trailer")?;
    let sealed = &bytes[from..footer];
    let trailer = pack.open(u32::MAX, &[0; 32], 0, sealed.len() - 16, sealed)?;
    let (mut at, mut offset) = (4, 48);
    for position in 0..number(&trailer, 0)? as u32 {
        let id: [u8; 32] = part(&trailer, at)?;
        let (codec, raw) = (trailer[at + 32], number(&trailer, at + 33)?);
        let stored = number(&trailer, at + 37)?;
        at += 41;
        let sealed = bytes
            .get(offset..offset + stored)
            .ok_or("a chunk is cut off")?;
        offset += stored;
        let encoded = pack.open(position, &id, codec, raw, sealed)?;
        let plain = match codec {
            0 => encoded,
            1 => zstd::decode_all(encoded.as_slice()).map_err(|e| e.to_string())?,
            _ => return Err("the codec".into()),
        };
        check(plain.len() == raw, "the raw length")?;
        check(
            *blake3::keyed_hash(&keys.chunk_id, &plain).as_bytes() == id,
            "a chunk id",
        )?;
        bucket.chunks.insert(id, plain);
    }
    check(offset == from, "bytes between the chunks and the trailer")?;
    padding(&trailer, at, 4096)
}

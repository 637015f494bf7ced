//! Keys and their derivation, `docs/format.md` section 3. Never stores a key,
//! never encrypts under a key that is not that of one pack or record.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    ids::{ChunkId, ClusterKey, RepositoryId},
    names::ObjectType,
    wire::Damage,
};

pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 12;

/// The key that everything else is derived from.
#[derive(Clone)]
pub(crate) struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The keys of one repository.
pub(crate) struct Keys {
    chunk_id: Zeroizing<[u8; 32]>,
    data: Zeroizing<[u8; 32]>,
    record: Zeroizing<[u8; 32]>,
    cluster: Zeroizing<[u8; 32]>,
    format: Zeroizing<[u8; 32]>,
}

/// What one pack or record is encrypted with.
pub(crate) struct Triple {
    cipher: Cipher,
    pub(crate) commitment: [u8; 32],
    nonce_key: Zeroizing<[u8; 32]>,
}

/// AES-256-GCM under one key.
pub(crate) struct Cipher(Option<LessSafeKey>);

/// HKDF output never fails at the lengths used here: at most 96 of 8,160 bytes.
fn expand(hkdf: &Hkdf<Sha256>, info: &[&[u8]], out: &mut [u8]) {
    let done = hkdf.expand_multi_info(info, out);
    debug_assert!(done.is_ok(), "HKDF output is bounded by the callers");
}

/// `HKDF(ikm, salt, info)`, as long as `out`.
pub(crate) fn derive(ikm: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) {
    expand(&Hkdf::<Sha256>::new(Some(salt), ikm), &[info], out);
}

impl Keys {
    pub(crate) fn derive(master: &MasterKey, repository: RepositoryId) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(repository.as_bytes()), master.as_bytes());
        let sub = |name: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            expand(&hkdf, &[b"lifebuoy/1/", name], key.as_mut());
            key
        };
        Self {
            chunk_id: sub(b"chunk-id"),
            data: sub(b"data"),
            record: sub(b"record"),
            cluster: sub(b"cluster"),
            format: sub(b"format"),
        }
    }

    pub(crate) fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId::from_bytes(*blake3::keyed_hash(&self.chunk_id, plain).as_bytes())
    }

    pub(crate) fn cluster_key(&self, identity: &str) -> ClusterKey {
        let hash = blake3::keyed_hash(&self.cluster, identity.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.as_bytes()[..16]);
        ClusterKey::from_bytes(key)
    }

    pub(crate) fn format_mac(&self, key: &str, bytes: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.format);
        hasher.update(key.as_bytes()).update(bytes);
        *hasher.finalize().as_bytes()
    }

    pub(crate) fn record(&self, kind: ObjectType, salt: &[u8; 32]) -> Triple {
        Triple::expand(&self.record, &[b"lifebuoy/1/record", &[kind.byte()], salt])
    }

    pub(crate) fn pack(&self, random: &[u8; 32], number: u32, kind: ObjectType) -> Triple {
        let number = number.to_le_bytes();
        Triple::expand(
            &self.data,
            &[b"lifebuoy/1/pack", random, &number, &[kind.byte()]],
        )
    }
}

impl Triple {
    fn expand(key: &[u8; 32], info: &[&[u8]]) -> Self {
        let mut out = Zeroizing::new([0; 96]);
        if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(key) {
            expand(&hkdf, info, out.as_mut());
        }
        let mut parts = [[0; 32]; 3];
        for (part, bytes) in parts.iter_mut().zip(out.chunks_exact(32)) {
            part.copy_from_slice(bytes);
        }
        let [mut aead, commitment, nonce_key] = parts;
        let cipher = Cipher::new(&aead);
        aead.zeroize();
        Self {
            cipher,
            commitment,
            nonce_key: Zeroizing::new(nonce_key),
        }
    }

    /// Compares in constant time: a wrong key is told before decrypting.
    pub(crate) fn check(&self, commitment: &[u8; 32]) -> Result<(), Damage> {
        if same(&self.commitment, commitment) {
            Ok(())
        } else {
            Err(Damage::Commitment)
        }
    }

    /// The nonce for what the parts name: unique, because it is a hash of it.
    pub(crate) fn nonce(&self, parts: &[&[u8]]) -> [u8; NONCE_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.nonce_key);
        for part in parts {
            hasher.update(part);
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_BYTES]);
        nonce
    }

    pub(crate) fn cipher(&self) -> &Cipher {
        &self.cipher
    }
}

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(
            UnboundKey::new(&AES_256_GCM, key)
                .ok()
                .map(LessSafeKey::new),
        )
    }

    /// A key of 32 bytes always makes a cipher.
    fn key(&self) -> Result<&LessSafeKey, Damage> {
        self.0.as_ref().ok_or(Damage::Authentication)
    }

    /// Encrypts `out[from..]` where it is, and appends the tag.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        out: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), Damage> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self
            .key()?
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out[from..])
            .map_err(|_| Damage::TooLong)?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Decrypts ciphertext and tag.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, Damage> {
        let (text, tag) = sealed
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(Damage::Truncated)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut plain = vec![0; text.len()];
        self.key()?
            .open_separate_gather(nonce, Aad::from(aad), text, tag, &mut plain)
            .map_err(|_| Damage::Authentication)?;
        Ok(plain)
    }
}

/// Equality that takes the same time whatever differs.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::hex;

    fn vector_keys() -> Keys {
        Keys::derive(&MasterKey::new([1; 32]), RepositoryId::from_bytes([2; 16]))
    }

    #[test]
    fn known_answers() {
        let keys = vector_keys();
        let pack = keys.pack(&[3; 32], 7, ObjectType::DataPack);
        let record = keys.record(ObjectType::End, &[4; 32]);
        // The same vectors are in docs/format.md, section 12.
        assert_eq!(
            hex(keys.chunk_id(b"lifebuoy").as_bytes()),
            "736bf8e6b8887aa6f28351b591f1c9e278f8cd2283f8fdbd6d9017e07d5db7e8"
        );
        assert_eq!(
            keys.cluster_key("prod").to_string(),
            "563263bd247cc5d6df60332c6a416e04"
        );
        assert_eq!(
            hex(&pack.commitment),
            "2547f6d6ca559dce37f20c50eeb2fa1d19a5eaa1ca1d6eb9a1bc60679086857a"
        );
        assert_eq!(
            hex(&record.commitment),
            "fe3be60d6150a4c265b75175756d6d2959d492c80e56c48f4c444e7ad120e120"
        );
        assert_eq!(
            hex(&keys.format_mac("format/1", b"abc")),
            "90c2c13c6e7c1acd79dacf3b8e8eb775e86db451c3914a48268779beedfe2f6f"
        );
    }

    #[test]
    fn sealed_bytes_open_only_under_the_same_nonce_and_data() {
        let triple = vector_keys().pack(&[3; 32], 0, ObjectType::DataPack);
        let nonce = triple.nonce(&[b"n"]);
        let mut out = b"headplain".to_vec();
        triple.cipher().seal(&nonce, b"aad", &mut out, 4).unwrap();
        assert_eq!(
            triple.cipher().open(&nonce, b"aad", &out[4..]).unwrap(),
            b"plain"
        );
        assert!(triple.cipher().open(&nonce, b"aaD", &out[4..]).is_err());
        assert!(triple.cipher().open(&[0; 12], b"aad", &out[4..]).is_err());
        assert!(triple.cipher().open(&nonce, b"aad", b"short").is_err());
        assert_eq!(triple.check(&[0; 32]), Err(Damage::Commitment));
    }
}

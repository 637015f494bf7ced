//! Passphrases and key slots, `docs/format.md` section 5. Never lets what a
//! slot says decide how much memory or time is spent beyond fixed limits.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use rand::Rng;
use zeroize::Zeroizing;

use crate::{
    crypto::{Cipher, MasterKey, derive, same},
    error::{Error, Result},
    header::{expect_header, header},
    ids::RepositoryId,
    names::ObjectType,
    wire::{Damage, Fields},
};

pub(crate) const SLOT_BYTES: usize = 192;
const CLEAR_BYTES: usize = 112;
const HASH_OFFSET: usize = 160;
const ARGON2ID: u8 = 1;

const MEMORY_KIB_MIN: u32 = 8;
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 4;

/// What the people remember. Zeroed when dropped, never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// A passphrase as it was typed, without the newline that files end in.
    ///
    /// # Errors
    /// [`Error::EmptyPassphrase`].
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let mut text = Zeroizing::new(text.into());
        while text.ends_with(['\n', '\r']) {
            text.pop();
        }
        if text.is_empty() {
            return Err(Error::EmptyPassphrase);
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for Passphrase {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(not shown)")
    }
}

/// What deriving a key from the passphrase costs, and so what guessing costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Default for KdfCost {
    /// 32 MiB and 4 passes: above the OWASP minimum of 19 MiB and 2 passes, and
    /// small enough for an operator that has to stay below 100 MiB.
    fn default() -> Self {
        Self {
            memory_kib: 32 * 1024,
            passes: 4,
            lanes: 1,
        }
    }
}

impl KdfCost {
    /// As cheap as the format allows: for tests, where passphrases guard nothing.
    #[must_use]
    pub const fn cheapest() -> Self {
        Self {
            memory_kib: MEMORY_KIB_MIN,
            passes: 1,
            lanes: 1,
        }
    }

    fn checked(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, Damage> {
        if !(1..=LANES_MAX).contains(&lanes) {
            return Err(Damage::Field("lanes"));
        }
        if !(MEMORY_KIB_MIN * lanes..=MEMORY_KIB_MAX).contains(&memory_kib) {
            return Err(Damage::Field("memory"));
        }
        if !(1..=PASSES_MAX).contains(&passes) {
            return Err(Damage::Field("passes"));
        }
        Ok(Self {
            memory_kib,
            passes,
            lanes,
        })
    }

    fn key(self, passphrase: &Passphrase, salt: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
        let failed = |_| Error::Internal {
            what: "deriving a key from the passphrase",
        };
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32));
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(failed)?);
        let mut key = Zeroizing::new([0; 32]);
        argon2
            .hash_password_into(passphrase.0.as_bytes(), salt, key.as_mut())
            .map_err(failed)?;
        Ok(key)
    }
}

struct SlotKeys {
    aead: Cipher,
    commitment: [u8; 32],
    nonce: [u8; 12],
}

fn slot_keys(kek: &[u8; 32], salt: &[u8; 32]) -> SlotKeys {
    let mut out = Zeroizing::new([0_u8; 76]);
    derive(kek, salt, b"lifebuoy/1/slot", out.as_mut());
    let mut key = Zeroizing::new([0; 32]);
    let mut commitment = [0; 32];
    let mut nonce = [0; 12];
    key.copy_from_slice(&out[..32]);
    commitment.copy_from_slice(&out[32..64]);
    nonce.copy_from_slice(&out[64..]);
    SlotKeys {
        aead: Cipher::new(&key),
        commitment,
        nonce,
    }
}

fn aad(clear: &[u8], key: &str) -> Vec<u8> {
    [clear, key.as_bytes()].concat()
}

/// Wraps the master key. Takes as long as `cost` says: not for async threads.
pub(crate) fn wrap(
    key: &str,
    repository: RepositoryId,
    master: &MasterKey,
    passphrase: &Passphrase,
    cost: KdfCost,
    rng: &mut impl Rng,
) -> Result<Vec<u8>> {
    let mut salt = [0; 32];
    rng.fill_bytes(&mut salt);
    let kek = cost.key(passphrase, &salt)?;
    let keys = slot_keys(&kek, &salt);

    let mut out = Vec::with_capacity(SLOT_BYTES);
    out.extend_from_slice(&header(ObjectType::Slot));
    out.extend_from_slice(repository.as_bytes());
    out.extend_from_slice(&[ARGON2ID, 0, 0, 0]);
    out.extend_from_slice(&cost.memory_kib.to_le_bytes());
    out.extend_from_slice(&cost.passes.to_le_bytes());
    out.extend_from_slice(&cost.lanes.to_le_bytes());
    out.extend_from_slice(&salt);
    out.extend_from_slice(&keys.commitment);
    let bound = aad(&out, key);
    out.extend_from_slice(master.as_bytes());
    keys.aead
        .seal(&keys.nonce, &bound, &mut out, CLEAR_BYTES)
        .map_err(|damage| Error::corrupt(key, damage))?;
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    Ok(out)
}

/// A slot whose fields and checksum are sound.
pub(crate) struct Slot {
    pub(crate) repository: RepositoryId,
    cost: KdfCost,
    salt: [u8; 32],
    commitment: [u8; 32],
    bound: Vec<u8>,
    wrapped: Vec<u8>,
}

impl Slot {
    pub(crate) fn parse(key: &str, bytes: &[u8]) -> Result<Self, Damage> {
        if bytes.len() > SLOT_BYTES {
            return Err(Damage::TooLong);
        }
        let mut fields = Fields::new(bytes);
        expect_header(&mut fields, ObjectType::Slot)?;
        let (signed, hash) = bytes
            .split_at_checked(HASH_OFFSET)
            .ok_or(Damage::Truncated)?;
        if hash.len() < 32 {
            return Err(Damage::Truncated);
        }
        if blake3::hash(signed).as_bytes().as_slice() != hash {
            return Err(Damage::Checksum);
        }
        let repository = RepositoryId::from_bytes(fields.array()?);
        if fields.u8()? != ARGON2ID {
            return Err(Damage::Field("key derivation"));
        }
        fields.zeros(3, "reserved")?;
        let cost = KdfCost::checked(fields.u32()?, fields.u32()?, fields.u32()?)?;
        let salt = fields.array()?;
        let commitment = fields.array()?;
        let wrapped = fields.bytes(HASH_OFFSET - CLEAR_BYTES)?.to_vec();
        let bound = aad(&bytes[..CLEAR_BYTES], key);
        Ok(Self {
            repository,
            cost,
            salt,
            commitment,
            bound,
            wrapped,
        })
    }

    /// The master key, or `None` if the passphrase is not that of this slot.
    /// Takes as long as the slot's cost says: not for async threads.
    pub(crate) fn unwrap(&self, key: &str, passphrase: &Passphrase) -> Result<Option<MasterKey>> {
        let kek = self.cost.key(passphrase, &self.salt)?;
        let keys = slot_keys(&kek, &self.salt);
        if !same(&keys.commitment, &self.commitment) {
            return Ok(None);
        }
        let plain = keys
            .aead
            .open(&keys.nonce, &self.bound, &self.wrapped)
            .map_err(|damage| Error::corrupt(key, damage))?;
        let plain = Zeroizing::new(plain);
        let mut master = [0; 32];
        master.copy_from_slice(&plain);
        Ok(Some(MasterKey::new(master)))
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn slot() -> (Vec<u8>, Passphrase) {
        let passphrase = Passphrase::new("correct horse\n").unwrap();
        let bytes = wrap(
            "keys/a",
            RepositoryId::from_bytes([2; 16]),
            &MasterKey::new([1; 32]),
            &passphrase,
            KdfCost::cheapest(),
            &mut StdRng::seed_from_u64(1),
        )
        .unwrap();
        (bytes, passphrase)
    }

    #[test]
    fn a_slot_opens_with_its_passphrase_only() {
        let (bytes, passphrase) = slot();
        assert_eq!(bytes.len(), SLOT_BYTES);
        let slot = Slot::parse("keys/a", &bytes).unwrap();
        let master = slot.unwrap("keys/a", &passphrase).unwrap().unwrap();
        assert_eq!(master.as_bytes(), &[1; 32]);
        let wrong = Passphrase::new("incorrect horse").unwrap();
        assert!(slot.unwrap("keys/a", &wrong).unwrap().is_none());
        let moved = Slot::parse("keys/b", &bytes).unwrap();
        assert!(moved.unwrap("keys/b", &passphrase).is_err());
    }

    #[test]
    fn damage_is_never_taken_for_a_wrong_passphrase() {
        let (bytes, _) = slot();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Slot::parse("keys/a", &flipped).is_err(), "byte {at}");
            assert!(Slot::parse("keys/a", &bytes[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn costs_are_bounded() {
        assert!(KdfCost::checked(64 * 1024, 16, 4).is_ok());
        assert!(KdfCost::checked(64 * 1024 + 1, 1, 1).is_err());
        assert!(KdfCost::checked(1024, 17, 1).is_err());
        assert!(KdfCost::checked(8, 1, 2).is_err());
        assert!(KdfCost::checked(u32::MAX, 1, u32::MAX).is_err());
    }

    #[test]
    fn a_passphrase_is_not_empty_and_not_shown() {
        assert!(Passphrase::new("\n").is_err());
        let debug = format!("{:?}", Passphrase::new("hunter2").unwrap());
        assert!(!debug.contains("hunter2"));
    }
}

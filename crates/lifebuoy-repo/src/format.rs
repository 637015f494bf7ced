//! The format object, `docs/format.md` section 5: which version and features.

use crate::{
    crypto::{Keys, same},
    error::{Error, Result},
    header::{FORMAT_VERSION, header_of_version, read_header},
    ids::RepositoryId,
    names::ObjectType,
    wire::{Damage, Fields},
};

pub(crate) const FORMAT_BYTES: usize = 128;
const MAC_OFFSET: usize = 64;
const HASH_OFFSET: usize = 96;
const ARGON2ID: u8 = 1;

/// What may be done with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    ReadWrite,
    /// Read only, for this reason.
    ReadOnly(String),
}

/// What the format object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Features {
    pub(crate) may_ignore: u64,
    pub(crate) read_only: u64,
    pub(crate) must_know: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) version: u16,
    pub(crate) repository: RepositoryId,
    pub(crate) features: Features,
    mac: [u8; 32],
}

pub(crate) fn encode(
    key: &str,
    version: u16,
    repository: RepositoryId,
    features: Features,
    keys: &Keys,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(FORMAT_BYTES);
    out.extend_from_slice(&header_of_version(ObjectType::Format, version));
    out.extend_from_slice(repository.as_bytes());
    out.extend_from_slice(&features.may_ignore.to_le_bytes());
    out.extend_from_slice(&features.read_only.to_le_bytes());
    out.extend_from_slice(&features.must_know.to_le_bytes());
    out.extend_from_slice(&[0, ARGON2ID, 0, 0, 0, 0, 0, 0]);
    let mac = keys.format_mac(key, &out);
    out.extend_from_slice(&mac);
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    out
}

impl Format {
    pub(crate) fn parse(key: &str, bytes: &[u8]) -> Result<Self> {
        let corrupt = |damage| Error::corrupt(key, damage);
        let mut fields = Fields::new(bytes);
        let version = read_header(&mut fields, ObjectType::Format).map_err(corrupt)?;
        if version > FORMAT_VERSION {
            return Err(newer(version.into()));
        }
        if version == 0 {
            return Err(corrupt(Damage::Field("version")));
        }
        Self::body(version, fields, bytes).map_err(corrupt)
    }

    fn body(version: u16, mut fields: Fields<'_>, bytes: &[u8]) -> Result<Self, Damage> {
        let (signed, hash) = bytes
            .split_at_checked(HASH_OFFSET)
            .ok_or(Damage::Truncated)?;
        if bytes.len() != FORMAT_BYTES {
            let short = bytes.len() < FORMAT_BYTES;
            return Err(if short {
                Damage::Truncated
            } else {
                Damage::TooLong
            });
        }
        if blake3::hash(signed).as_bytes().as_slice() != hash {
            return Err(Damage::Checksum);
        }
        let repository = RepositoryId::from_bytes(fields.array()?);
        let features = Features {
            may_ignore: fields.u64()?,
            read_only: fields.u64()?,
            must_know: fields.u64()?,
        };
        fields.zeros(1, "chunker")?;
        if fields.u8()? != ARGON2ID {
            return Err(Damage::Field("key derivation"));
        }
        fields.zeros(6, "reserved")?;
        Ok(Self {
            version,
            repository,
            features,
            mac: fields.array()?,
        })
    }

    /// The features first: an unknown one may change how anything else is read.
    pub(crate) fn check_features(&self) -> Result<Access> {
        let Features {
            may_ignore: _,
            read_only,
            must_know,
        } = self.features;
        if must_know != 0 {
            return Err(Error::UnknownFeatures { bits: must_know });
        }
        if read_only != 0 {
            let reason = format!("it uses features unknown to this program (bits {read_only:#x})");
            return Ok(Access::ReadOnly(reason));
        }
        Ok(Access::ReadWrite)
    }

    /// True if one who has the key wrote exactly this.
    pub(crate) fn check_mac(&self, key: &str, bytes: &[u8], keys: &Keys) -> Result<()> {
        if same(&self.mac, &keys.format_mac(key, &bytes[..MAC_OFFSET])) {
            Ok(())
        } else {
            Err(Error::corrupt(key, Damage::Authentication))
        }
    }
}

pub(crate) fn newer(found: u32) -> Error {
    Error::NewerFormat {
        found,
        known: FORMAT_VERSION.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;

    const KEY: &str = "format/1";

    fn keys() -> Keys {
        Keys::derive(&MasterKey::new([1; 32]), RepositoryId::from_bytes([2; 16]))
    }

    fn encoded(features: Features) -> Vec<u8> {
        encode(KEY, 1, RepositoryId::from_bytes([2; 16]), features, &keys())
    }

    #[test]
    fn it_round_trips_and_every_change_is_noticed() {
        let bytes = encoded(Features::default());
        assert_eq!(bytes.len(), FORMAT_BYTES);
        let format = Format::parse(KEY, &bytes).unwrap();
        format.check_mac(KEY, &bytes, &keys()).unwrap();
        assert_eq!(format.check_features().unwrap(), Access::ReadWrite);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Format::parse(KEY, &flipped).is_err(), "byte {at}");
            assert!(Format::parse(KEY, &bytes[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn forged_bits_do_not_pass_even_with_a_good_checksum() {
        let mut bytes = encoded(Features::default());
        bytes[40] = 1;
        let hash = blake3::hash(&bytes[..HASH_OFFSET]);
        bytes[HASH_OFFSET..].copy_from_slice(hash.as_bytes());
        let format = Format::parse(KEY, &bytes).unwrap();
        assert!(format.check_mac(KEY, &bytes, &keys()).is_err());
    }

    #[test]
    fn unknown_features_decide_what_may_be_done() {
        let of = |features| {
            Format::parse(KEY, &encoded(features))
                .unwrap()
                .check_features()
        };
        let ignore = Features {
            may_ignore: 4,
            ..Features::default()
        };
        assert_eq!(of(ignore).unwrap(), Access::ReadWrite);
        let read_only = Features {
            read_only: 2,
            ..Features::default()
        };
        assert!(matches!(of(read_only).unwrap(), Access::ReadOnly(_)));
        let must_know = Features {
            must_know: 1,
            ..Features::default()
        };
        assert!(matches!(
            of(must_know),
            Err(Error::UnknownFeatures { bits: 1 })
        ));
    }

    #[test]
    fn a_newer_version_is_told_before_its_fields_are_read() {
        let mut bytes = encoded(Features::default());
        bytes[8] = 2;
        bytes.truncate(20);
        let error = Format::parse("format/2", &bytes).unwrap_err();
        assert!(matches!(error, Error::NewerFormat { found: 2, known: 1 }));
    }
}

//! Reading and writing little-endian fields. Every length is checked against
//! what is there before anything is allocated. Never panics on input.

/// What is wrong with the bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The object ends before it should.
    #[error("it is truncated")]
    Truncated,
    /// The object is longer than the format allows.
    #[error("it is longer than the format allows")]
    TooLong,
    /// The object does not begin with the header of the format.
    #[error("it does not begin with the header of a repository object")]
    Header,
    /// The object is of another type than its key says.
    #[error("it is of another type than its key says")]
    Type,
    /// A hash over the object does not match.
    #[error("its checksum does not match")]
    Checksum,
    /// The key commitment is not that of this repository.
    #[error("it was not written with this repository's key, or it is damaged")]
    Commitment,
    /// Decryption fails: the bytes were changed, or belong under another key.
    #[error("it cannot be authenticated: it was changed, or moved from another place")]
    Authentication,
    /// Compressed data that cannot be decoded to the length it declares.
    #[error("its compressed data cannot be decoded")]
    Compression,
    /// The decoded bytes are not those that the chunk id names.
    #[error("its contents do not match their id")]
    ChunkId,
    /// A field has a value that the format does not allow.
    #[error("the field {0:?} has a value that the format does not allow")]
    Field(&'static str),
}

/// A cursor over the bytes of one object.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Damage::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Damage::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    /// How many items of `size` bytes may follow: a count above it is a lie,
    /// and must not decide how much is allocated.
    pub(crate) fn count(&mut self, size: usize) -> Result<usize, Damage> {
        let count = usize::try_from(self.u32()?).map_err(|_| Damage::Truncated)?;
        if count > self.rest.len() / size {
            return Err(Damage::Truncated);
        }
        Ok(count)
    }

    pub(crate) fn zeros(&mut self, len: usize, field: &'static str) -> Result<(), Damage> {
        if self.bytes(len)?.iter().any(|byte| *byte != 0) {
            return Err(Damage::Field(field));
        }
        Ok(())
    }

    /// What is left must be padding: zeros, fewer than `step` of them.
    pub(crate) fn padding(self, step: usize) -> Result<(), Damage> {
        if self.rest.len() >= step || self.rest.iter().any(|byte| *byte != 0) {
            return Err(Damage::Field("padding"));
        }
        Ok(())
    }
}

//! Compression of chunks, with contexts that are reused. What was compressed is
//! decoded and compared before it counts. Never decodes more than was declared.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::compress_bound,
};

use crate::wire::Damage;

/// What compression is to be good at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// A small repository: for what there is little of, and many versions of.
    #[default]
    Small,
    /// Speed: a third less time for one part in a hundred more.
    Quick,
}

impl Compression {
    /// zstd's.
    const fn level(self) -> i32 {
        match self {
            Self::Small => 3,
            Self::Quick => 2,
        }
    }
}

/// How a chunk is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Stored,
    Zstd,
}

impl Codec {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stored),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// A chunk as it is stored, before encryption.
pub(crate) struct Encoded<'a> {
    pub(crate) codec: Codec,
    pub(crate) raw: usize,
    pub(crate) bytes: &'a [u8],
}

/// One thread's contexts and buffers.
struct Coder {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    packed: Vec<u8>,
    again: Vec<u8>,
}

/// Idle contexts. As many exist as were in use at one time.
#[derive(Default)]
pub(crate) struct Coders {
    idle: Mutex<Vec<Coder>>,
}

/// A context in use. It goes back when this is dropped.
pub(crate) struct Lease<'a> {
    coders: &'a Coders,
    coder: Option<Coder>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(coder) = self.coder.take() {
            self.coders.idle().push(coder);
        }
    }
}

impl Coders {
    fn idle(&self) -> MutexGuard<'_, Vec<Coder>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lease(&self) -> Lease<'_> {
        Lease {
            coders: self,
            coder: self.idle().pop(),
        }
    }

    /// Decodes to exactly `raw` bytes.
    pub(crate) fn decode(
        &self,
        codec: Codec,
        raw: usize,
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, Damage> {
        let plain = match codec {
            Codec::Stored => bytes,
            Codec::Zstd => {
                let mut lease = self.lease();
                let plain = lease.coder()?.decompressor.decompress(&bytes, raw);
                plain.map_err(|_| Damage::Compression)?
            }
        };
        if plain.len() == raw {
            Ok(plain)
        } else {
            Err(Damage::Compression)
        }
    }
}

impl Lease<'_> {
    fn coder(&mut self) -> Result<&mut Coder, Damage> {
        if self.coder.is_none() {
            self.coder = Some(Coder::new().map_err(|_| Damage::Compression)?);
        }
        self.coder.as_mut().ok_or(Damage::Compression)
    }

    /// Compresses if that makes the chunk shorter.
    pub(crate) fn encode<'a>(
        &'a mut self,
        compression: Compression,
        plain: &'a [u8],
    ) -> Result<Encoded<'a>, Damage> {
        self.coder()?.encode(compression, plain)
    }
}

impl Coder {
    fn new() -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(Compression::Small.level())?,
            decompressor: Decompressor::new()?,
            packed: Vec::new(),
            again: Vec::new(),
        })
    }

    fn encode<'a>(
        &'a mut self,
        compression: Compression,
        plain: &'a [u8],
    ) -> Result<Encoded<'a>, Damage> {
        let failed = |_| Damage::Compression;
        self.packed.clear();
        self.packed.reserve(compress_bound(plain.len()));
        self.compressor
            .set_compression_level(compression.level())
            .map_err(failed)?;
        self.compressor
            .compress_to_buffer(plain, &mut self.packed)
            .map_err(failed)?;
        if self.packed.len() >= plain.len() {
            return Ok(Encoded {
                codec: Codec::Stored,
                raw: plain.len(),
                bytes: plain,
            });
        }
        self.again.clear();
        self.again.reserve(plain.len());
        self.decompressor
            .decompress_to_buffer(&self.packed, &mut self.again)
            .map_err(failed)?;
        // A bug of the compressor must never reach the bucket.
        if self.again != plain {
            return Err(Damage::Compression);
        }
        Ok(Encoded {
            codec: Codec::Zstd,
            raw: plain.len(),
            bytes: &self.packed,
        })
    }
}

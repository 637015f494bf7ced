//! Compression of chunks, with contexts that are reused. What was compressed is
//! decoded and compared before it counts. Never decodes more than was declared.

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
};

use zstd::bulk::{Compressor, Decompressor};

use crate::wire::Damage;

/// zstd's level for Kubernetes objects: a third smaller than level 1 costs.
const LEVEL: i32 = 3;

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
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// One thread's contexts.
struct Coder {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    scratch: Vec<u8>,
}

/// Idle contexts. As many exist as were in use at one time.
#[derive(Default)]
pub(crate) struct Coders {
    idle: Mutex<Vec<Coder>>,
}

impl Coders {
    fn take(&self) -> std::io::Result<Coder> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(coder) => Ok(coder),
            None => Ok(Coder {
                compressor: Compressor::new(LEVEL)?,
                decompressor: Decompressor::new()?,
                scratch: Vec::new(),
            }),
        }
    }

    fn give_back(&self, coder: Coder) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(coder);
    }

    /// Compresses if that makes the chunk shorter.
    pub(crate) fn encode<'a>(&self, plain: &'a [u8]) -> Result<Encoded<'a>, Damage> {
        let mut coder = self.take().map_err(|_| Damage::Compression)?;
        let encoded = coder.encode(plain);
        self.give_back(coder);
        encoded
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
                let mut coder = self.take().map_err(|_| Damage::Compression)?;
                let plain = coder.decompressor.decompress(&bytes, raw);
                self.give_back(coder);
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

impl Coder {
    fn encode<'a>(&mut self, plain: &'a [u8]) -> Result<Encoded<'a>, Damage> {
        let packed = self
            .compressor
            .compress(plain)
            .map_err(|_| Damage::Compression)?;
        if packed.len() >= plain.len() {
            return Ok(Encoded {
                codec: Codec::Stored,
                raw: plain.len(),
                bytes: Cow::Borrowed(plain),
            });
        }
        self.scratch.clear();
        self.scratch.reserve(plain.len());
        self.decompressor
            .decompress_to_buffer(&packed, &mut self.scratch)
            .map_err(|_| Damage::Compression)?;
        // A bug of the compressor must never reach the bucket.
        if self.scratch != plain {
            return Err(Damage::Compression);
        }
        Ok(Encoded {
            codec: Codec::Zstd,
            raw: plain.len(),
            bytes: Cow::Owned(packed),
        })
    }
}

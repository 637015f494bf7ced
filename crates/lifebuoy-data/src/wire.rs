//! Numbers and texts of `docs/format-data.md`. Checks every length against what is
//! there before it allocates, and never panics on input.

use crate::error::Malformed;

/// A cursor over the bytes of one chunk.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// An unsigned LEB128 in its shortest form.
    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part || (shift > 0 && byte == 0) {
                return Err(Malformed("a number is too long"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed(what))
    }

    pub(crate) fn text(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        match usize::try_from(self.number()?) {
            Ok(len) if len <= max => self.bytes(len),
            _ => Err(Malformed("a text is too long")),
        }
    }

    /// How many items follow, of at least `least` bytes each.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        match usize::try_from(self.number()?) {
            Ok(count) if count <= self.rest.len() / least => Ok(count),
            _ => Err(TRUNCATED),
        }
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed("something follows the last item"))
        }
    }
}

const TRUNCATED: Malformed = Malformed("it ends too early");

pub(crate) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    put_number(out, count as u64);
}

pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_number(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_count(out, text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(number: u64, signed: i64, text: Vec<u8>) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            put_signed(&mut out, signed);
            put_text(&mut out, &text);
            let mut fields = Fields::new(&out);
            prop_assert_eq!(fields.number(), Ok(number));
            prop_assert_eq!(fields.signed(), Ok(signed));
            prop_assert_eq!(fields.text(text.len()), Ok(&*text));
            prop_assert_eq!(fields.end(), Ok(()));
        }

        #[test]
        fn a_number_has_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut fields = Fields::new(&bytes);
            if let Ok(number) = fields.number() {
                let mut out = Vec::new();
                put_number(&mut out, number);
                prop_assert_eq!(&bytes[..out.len()], &*out);
            }
        }
    }
}

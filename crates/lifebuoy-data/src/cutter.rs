//! Where a large file is cut: at boundaries that its contents decide, so that an
//! edit moves only those around it. Never cuts beyond the longest chunk.

/// No chunk but the last of a file is shorter, in bytes.
pub(crate) const CHUNK_BYTES_MIN: usize = 256 * 1024;
/// From here on a boundary is sixteen times as likely.
const CHUNK_BYTES_NORMAL: usize = 1024 * 1024;
/// The longest chunk.
pub(crate) const CHUNK_BYTES_MAX: usize = lifebuoy_repo::CHUNK_BYTES_MAX;

/// The highest 22 bits.
const MASK_BEFORE: u64 = !0 << (64 - 22);
/// The highest 18 bits.
const MASK_AFTER: u64 = !0 << (64 - 18);

const _: () = assert!(CHUNK_BYTES_MIN < CHUNK_BYTES_NORMAL && CHUNK_BYTES_NORMAL < CHUNK_BYTES_MAX);

/// A table of random numbers, one for each byte.
pub(crate) struct Gear([u64; 256]);

impl Gear {
    pub(crate) const BYTES: usize = 256 * 8;

    pub(crate) fn new(random: &[u8; Self::BYTES]) -> Self {
        let mut table = [0; 256];
        for (number, bytes) in table.iter_mut().zip(random.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        Self(table)
    }

    /// How long the first chunk of `bytes` is, if that can be told: a boundary is
    /// found, or there are as many bytes as the longest chunk has.
    pub(crate) fn cut(&self, bytes: &[u8]) -> Option<usize> {
        let before = bytes.len().min(CHUNK_BYTES_NORMAL);
        let after = bytes.len().min(CHUNK_BYTES_MAX);
        let mut hash = 0;
        self.scan(&mut hash, bytes, CHUNK_BYTES_MIN..before, MASK_BEFORE)
            .or_else(|| self.scan(&mut hash, bytes, CHUNK_BYTES_NORMAL..after, MASK_AFTER))
            .or((after == CHUNK_BYTES_MAX).then_some(after))
    }

    fn scan(
        &self,
        hash: &mut u64,
        bytes: &[u8],
        range: std::ops::Range<usize>,
        mask: u64,
    ) -> Option<usize> {
        let from = range.start;
        let mut rolled = *hash;
        for (at, byte) in bytes.get(range)?.iter().enumerate() {
            rolled = (rolled << 1).wrapping_add(self.0[usize::from(*byte)]);
            if rolled & mask == 0 {
                return Some(from + at + 1);
            }
        }
        *hash = rolled;
        None
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn gear() -> Gear {
        let mut table = [0; Gear::BYTES];
        StdRng::seed_from_u64(1).fill_bytes(&mut table);
        Gear::new(&table)
    }

    fn cut_all(mut bytes: &[u8]) -> Vec<&[u8]> {
        let gear = gear();
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(gear.cut(bytes).unwrap_or(bytes.len()));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }

    #[test]
    fn an_edit_moves_only_the_boundaries_around_it() {
        let mut bytes = vec![0; 24 << 20];
        StdRng::seed_from_u64(2).fill_bytes(&mut bytes);
        let before = cut_all(&bytes);
        assert!((12..40).contains(&before.len()), "{}", before.len());
        let mut edited = bytes.clone();
        edited.splice(9_000_000..9_000_000, *b"a few bytes more");
        let after = cut_all(&edited);
        let same = after.iter().filter(|chunk| before.contains(chunk)).count();
        assert!(same + 3 >= before.len(), "{same} of {}", before.len());
    }

    #[test]
    fn no_chunk_is_longer_than_a_chunk_may_be() {
        let chunks = cut_all(&[7; 20 << 20])
            .iter()
            .map(|chunk| chunk.len())
            .max();
        assert_eq!(chunks, Some(CHUNK_BYTES_MAX));
        assert_eq!(gear().cut(&[7; CHUNK_BYTES_MAX - 1]), None);
    }
}

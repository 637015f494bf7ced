//! Where a large file is cut: at boundaries that its contents decide, so that an
//! edit moves only those around it. Never cuts beyond the longest chunk.

use std::ops::Range;

/// No chunk but the last of a file is shorter, in bytes.
pub(crate) const CHUNK_BYTES_MIN: usize = 512 * 1024;
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

    pub(crate) fn cutter(&self) -> Cutter<'_> {
        Cutter {
            gear: self,
            scanned: 0,
            hash: 0,
        }
    }
}

/// Finds where the chunk ends that is being read.
pub(crate) struct Cutter<'a> {
    gear: &'a Gear,
    /// So many bytes of it hold no boundary.
    scanned: usize,
    hash: u64,
}

impl Cutter<'_> {
    /// How long the chunk is that `bytes` begins with, if that can be told: a boundary
    /// is found, or there are as many bytes as the longest chunk has. If it cannot,
    /// call again with more behind the same bytes: those are not looked at again. If it
    /// can, the next call is for the next chunk.
    pub(crate) fn cut(&mut self, bytes: &[u8]) -> Option<usize> {
        let length = self
            .scan(bytes, CHUNK_BYTES_MIN..CHUNK_BYTES_NORMAL, MASK_BEFORE)
            .or_else(|| self.scan(bytes, CHUNK_BYTES_NORMAL..CHUNK_BYTES_MAX, MASK_AFTER))
            .or((bytes.len() >= CHUNK_BYTES_MAX).then_some(CHUNK_BYTES_MAX))?;
        (self.scanned, self.hash) = (0, 0);
        Some(length)
    }

    fn scan(&mut self, bytes: &[u8], within: Range<usize>, mask: u64) -> Option<usize> {
        let from = self.scanned.max(within.start);
        let to = bytes.len().min(within.end);
        let table = &self.gear.0;
        let mut hash = self.hash;
        let (pairs, last) = bytes.get(from..to)?.as_chunks::<2>();
        // Two at a time: what one byte does to the hash need not wait for the other.
        for (pair, [first, second]) in pairs.iter().enumerate() {
            let (first, second) = (table[usize::from(*first)], table[usize::from(*second)]);
            let between = (hash << 1).wrapping_add(first);
            hash = (hash << 2).wrapping_add((first << 1).wrapping_add(second));
            if between & mask == 0 {
                return Some(from + 2 * pair + 1);
            }
            if hash & mask == 0 {
                return Some(from + 2 * pair + 2);
            }
        }
        for byte in last {
            hash = (hash << 1).wrapping_add(table[usize::from(*byte)]);
            if hash & mask == 0 {
                return Some(to);
            }
        }
        (self.scanned, self.hash) = (to, hash);
        None
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

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
            let length = gear.cutter().cut(bytes).unwrap_or(bytes.len());
            let (chunk, rest) = bytes.split_at(length);
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
        assert_eq!(gear().cutter().cut(&[7; CHUNK_BYTES_MAX - 1]), None);
    }

    #[test]
    fn bytes_that_come_little_by_little_are_cut_as_if_they_had_come_at_once() {
        let mut random = StdRng::seed_from_u64(3);
        let mut bytes = vec![0; 12 << 20];
        random.fill_bytes(&mut bytes);
        let gear = gear();
        let mut cutter = gear.cutter();
        let (mut lengths, mut from, mut to) = (Vec::new(), 0, 0);
        while to < bytes.len() {
            to = bytes.len().min(to + random.random_range(1..300_000));
            while let Some(length) = cutter.cut(&bytes[from..to]) {
                lengths.push(length);
                from += length;
            }
        }
        lengths.push(bytes.len() - from);
        let at_once: Vec<usize> = cut_all(&bytes).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(lengths, at_once);
    }

    #[test]
    fn a_chunk_ends_where_the_format_says() {
        let mut bytes = vec![0; 3 << 20];
        StdRng::seed_from_u64(4).fill_bytes(&mut bytes);
        let gear = gear();
        let mut hash = 0_u64;
        let end = bytes
            .iter()
            .enumerate()
            .skip(512 * 1024)
            .find(|(at, byte)| {
                hash = (hash << 1).wrapping_add(gear.0[usize::from(**byte)]);
                hash.leading_zeros() >= if *at < 1024 * 1024 { 22 } else { 18 }
            });
        assert_eq!(gear.cutter().cut(&bytes), end.map(|(at, _)| at + 1));
    }
}

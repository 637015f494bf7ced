//! Which waves are written together. Pure.

/// After these waves everything in flight is awaited, since the next wave needs
/// all of it: definitions and namespaces; classes and roles; what workloads
/// start with; then each wave on its own. 3, 4 and 5 do not need each other.
const BARRIERS: &[u8] = &[1, 2, 5, 6, 7, 8, 9];

/// How many barriers are before a wave.
pub(crate) fn stage(wave: u8) -> usize {
    BARRIERS.iter().filter(|barrier| **barrier < wave).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_need_each_other_is_one_stage() {
        let stages: Vec<usize> = (0..=10).map(stage).collect();
        assert_eq!(stages, [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7]);
    }
}

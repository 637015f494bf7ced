//! Nodes of the tree of a directory.
#![no_main]

use lifebuoy_fuzz::{Budget, KIB, run};

/// A leaf is held twice here: as it was read, and as it was read again. Its paths may
/// share what is before them, and have 4 MiB in all.
const LEAVES: Budget = Budget {
    base: Budget::SHORT_ITEMS.base + 2 * 4 * 1024 * KIB,
    factor: 2 * Budget::SHORT_ITEMS.factor,
};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(lifebuoy_data::fuzzing::TARGETS, "file_node", LEAVES, input);
});

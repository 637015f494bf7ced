//! What is in the trailer of a pack.
#![no_main]

use lifebuoy_fuzz::{Budget, KIB, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // The target makes up to 64 KiB of chunks for what the trailer lists, and one
    // of them is copied to be opened.
    let budget = Budget {
        base: (64 + 64 + 8) * KIB,
        ..Budget::PLAIN
    };
    run(
        lifebuoy_repo::fuzzing::TARGETS,
        "pack_trailer",
        budget,
        input,
    );
});

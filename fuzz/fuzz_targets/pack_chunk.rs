//! One chunk of a pack, compressed or not.
#![no_main]

use lifebuoy_fuzz::{Budget, KIB, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // What a chunk says to be its length is reserved before it is decoded: the
    // format bounds it by 4 MiB. The pack around it is of whole pages.
    let budget = Budget {
        base: (4096 + 16) * KIB,
        ..Budget::PLAIN
    };
    run(lifebuoy_repo::fuzzing::TARGETS, "pack_chunk", budget, input);
});

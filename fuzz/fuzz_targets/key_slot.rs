//! Key slots.
#![no_main]

use lifebuoy_fuzz::{Budget, KIB, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // Argon2 takes what the slot asks for: 64 KiB in those that are tried here,
    // and 64 MiB at most by the format.
    let budget = Budget {
        base: (64 + 8) * KIB,
        ..Budget::PLAIN
    };
    run(lifebuoy_repo::fuzzing::TARGETS, "key_slot", budget, input);
});

//! Packs as they are stored, with their footers.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(
        lifebuoy_repo::fuzzing::TARGETS,
        "pack_object",
        Budget::PLAIN,
        input,
    );
});

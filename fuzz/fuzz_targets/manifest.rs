//! Manifests.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // The fields of a tagged value are kept as they come until its tag is known.
    // There, a list in a list is 128 bytes and two of JSON.
    let budget = Budget {
        factor: 72,
        ..Budget::PLAIN
    };
    run(lifebuoy_engine::fuzzing::TARGETS, "manifest", budget, input);
});

//! Chunks of extended attributes.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(
        lifebuoy_data::fuzzing::TARGETS,
        "file_attributes",
        Budget::SHORT_ITEMS,
        input,
    );
});

//! What is in a record, but for an index.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(
        lifebuoy_repo::fuzzing::TARGETS,
        "record_body",
        Budget::PLAIN,
        input,
    );
});

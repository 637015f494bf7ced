//! Summaries of snapshots.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(
        lifebuoy_engine::fuzzing::TARGETS,
        "summary",
        Budget::PLAIN,
        input,
    );
});

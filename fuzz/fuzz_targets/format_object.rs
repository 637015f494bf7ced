//! Format objects.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(
        lifebuoy_repo::fuzzing::TARGETS,
        "format_object",
        Budget::PLAIN,
        input,
    );
});

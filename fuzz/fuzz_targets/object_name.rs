//! Keys of objects.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(
        lifebuoy_repo::fuzzing::TARGETS,
        "object_name",
        Budget::PLAIN,
        input,
    );
});

//! Manifests and summaries of files and devices.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(
        lifebuoy_data::fuzzing::TARGETS,
        "data_manifest",
        Budget::PLAIN,
        input,
    );
});

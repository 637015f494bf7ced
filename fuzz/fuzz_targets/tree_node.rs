//! Nodes of a search tree: the catalogue.
#![no_main]

use lifebuoy_fuzz::{Budget, run};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    run(
        lifebuoy_engine::fuzzing::TARGETS,
        "tree_node",
        Budget::PLAIN,
        input,
    );
});

//! The inputs of the fuzz targets, as ordinary tests of each crate that has targets.
//! Included by path: no program and no feature has it.

use std::{fs, path::PathBuf};

/// Set, the seeds are written to `fuzz/corpus`: `cargo xtask fuzz --seeds`.
const WRITE_VARIABLE: &str = "LIFEBUOY_WRITE_SEEDS";

type Targets<'a> = &'a [(&'a str, fn(&[u8]))];

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(target)
}

/// Runs every target on each input of its corpus.
pub(crate) fn run_corpus(targets: Targets<'_>) {
    for (target, run) in targets {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus(target)).unwrap() {
            let path = entry.unwrap().path();
            // Shown only if the test fails: by this, one knows the input.
            println!("{}", path.display());
            run(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "no inputs for {target}");
    }
}

/// Runs the targets on what their corpora begin with, by target and name, and writes it
/// there if that is asked for. Each target has a seed.
pub(crate) fn run_seeds(targets: Targets<'_>, seeds: &[(&str, &str, &[u8])]) {
    for (target, run) in targets {
        let mut inputs = 0;
        for (_, _, input) in seeds.iter().filter(|(of, ..)| of == target) {
            run(input);
            inputs += 1;
        }
        assert!(inputs > 0, "no seeds for {target}");
    }
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        for (target, name, input) in seeds {
            fs::create_dir_all(corpus(target)).unwrap();
            fs::write(corpus(target).join(format!("seed-{name}")), input).unwrap();
        }
    }
}

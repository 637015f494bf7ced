//! Runs one fuzz target with a bound on what it allocates. Knows nothing of
//! what it runs: the targets are in the crates whose parsers they try.
#![forbid(unsafe_code)]

/// Bytes in a kibibyte.
pub const KIB: u64 = 1024;

/// The most that a target may hold at one time. What an input says must not
/// decide how much is allocated for it, only how long it is.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes, whatever the input is.
    pub base: u64,
    /// Bytes for each byte of input.
    pub factor: u64,
}

impl Budget {
    /// For what becomes fields and copies of the input. The worst inputs that we
    /// could make take ten times their length: many of the smallest items, in
    /// lists and maps that are copied when they grow.
    pub const PLAIN: Self = Self {
        base: 8 * KIB,
        factor: 16,
    };

    /// For lists whose shortest items are three bytes and take 48 in memory, and
    /// which are copied when they grow.
    pub const SHORT_ITEMS: Self = Self {
        base: 8 * KIB,
        factor: 64,
    };
}

/// Runs the target of this name on an input.
///
/// # Panics
/// When the target panics, allocates more than its budget, or does not exist.
pub fn run(targets: &[(&str, fn(&[u8]))], name: &str, budget: Budget, input: &[u8]) {
    let Some((_, target)) = targets.iter().find(|(of, _)| *of == name) else {
        panic!("there is no target {name}")
    };
    let most = budget.base + budget.factor * input.len() as u64;
    let used = allocation_counter::measure(|| target(input)).bytes_max;
    assert!(
        used <= most,
        "{name} held {used} bytes for an input of {}; {most} are allowed",
        input.len()
    );
}

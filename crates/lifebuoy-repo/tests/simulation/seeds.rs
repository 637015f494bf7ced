//! Runs a simulation for many seeds, on all cores, each seed on one thread with
//! a runtime of its own. A seed that fails is told with the way to replay it.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::runtime::{Builder, Runtime};

use crate::{faults::Faults, world::World};

/// Seeds that one test runs, unless `LIFEBUOY_SEEDS` says otherwise.
const SEEDS: u64 = 2_000;
/// Lines of the trace that a failure shows; a replay shows all.
const TRACE_LINES: usize = 80;
/// A simulation that takes longer than that waits for something that never comes.
const SIMULATED_TIME_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// A seed that failed, why, and what happened before.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) seed: u64,
    pub(crate) message: String,
    pub(crate) trace: String,
}

/// One test's simulation: what can go wrong in a world, and what happens there.
pub(crate) struct Simulation<B> {
    /// The name of the test, for the replay.
    pub(crate) test: &'static str,
    /// One in so many of all seeds.
    pub(crate) share: u64,
    pub(crate) faults: fn(&mut StdRng) -> Faults,
    pub(crate) body: B,
}

impl<B: AsyncFn(Arc<World>) + Sync> Simulation<B> {
    /// Runs all seeds, or the one that is to be replayed.
    pub(crate) fn run(&self) {
        if let Some(seed) = number("LIFEBUOY_SEED") {
            if let Err(failed) = self.run_seed(seed, usize::MAX) {
                self.report(failed);
            }
            return;
        }
        let count = self.count();
        let begun = Instant::now();
        if let Some(failed) = self.run_seeds(count) {
            self.report(failed);
        }
        let took = begun.elapsed();
        #[allow(clippy::print_stderr, reason = "shown with --nocapture")]
        {
            let rate = count as f64 / took.as_secs_f64();
            eprintln!(
                "{}: {count} seeds in {took:.1?}, {rate:.0} a second",
                self.test
            );
        }
    }

    /// How many seeds this test runs.
    pub(crate) fn count(&self) -> u64 {
        (number("LIFEBUOY_SEEDS").unwrap_or(SEEDS) / self.share).max(1)
    }

    /// The first failure of seeds 0 to `count`, if any.
    pub(crate) fn run_seeds(&self, count: u64) -> Option<Failed> {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let failures = Mutex::new(Vec::new());
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= count {
                    return;
                }
                if let Err(failed) = self.run_seed(seed, TRACE_LINES) {
                    stop.store(true, Ordering::Relaxed);
                    failures.lock().unwrap().push(failed);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
                scope.spawn(work);
            }
        });
        let failures = failures.into_inner().unwrap();
        failures.into_iter().min_by_key(|failed| failed.seed)
    }

    /// Runs one seed from the beginning of its world to its end.
    pub(crate) fn run_seed(&self, seed: u64, lines: usize) -> Result<Arc<World>, Failed> {
        let runtime = runtime();
        let faults = (self.faults)(&mut StdRng::seed_from_u64(!seed));
        let world = {
            let _entered = runtime.enter();
            World::new(seed, faults)
        };
        let body = (self.body)(Arc::clone(&world));
        let run =
            || runtime.block_on(async { tokio::time::timeout(SIMULATED_TIME_MAX, body).await });
        let outcome = catch_unwind(AssertUnwindSafe(run));
        let message = match outcome {
            Ok(Ok(())) => return Ok(world),
            Ok(Err(_)) => "it waits for ever".to_owned(),
            Err(panic) => panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default(),
        };
        Err(Failed {
            seed,
            message,
            trace: world.trace(None, lines),
        })
    }

    fn report(&self, failed: Failed) -> ! {
        let Failed {
            seed,
            message,
            trace,
        } = failed;
        let test = self.test;
        panic!(
            "seed {seed}: {message}\n{trace}\nreplay it by: \
             LIFEBUOY_SEED={seed} cargo test -p lifebuoy-repo --test simulation {test}"
        );
    }
}

/// One thread, and a clock that goes on when there is nothing else to do.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {text:?}")))
}

//! Where a handle takes its randomness from: the operating system, or, in a
//! simulation that is to be replayed, a seed.

use std::sync::{Mutex, OnceLock, PoisonError};

use rand::{SeedableRng, rngs::StdRng};

use crate::repository::Repository;

#[derive(Default)]
pub(crate) struct Randomness {
    seeded: OnceLock<Mutex<StdRng>>,
}

impl Randomness {
    /// A generator of its own for one use. Cryptographically strong.
    pub(crate) fn rng(&self) -> StdRng {
        match self.seeded.get() {
            None => StdRng::from_rng(&mut rand::rng()),
            Some(seeded) => {
                let mut seeded = seeded.lock().unwrap_or_else(PoisonError::into_inner);
                StdRng::from_rng(&mut *seeded)
            }
        }
    }
}

impl Repository {
    /// Takes all randomness from a seed from now on, so that the same work writes
    /// the same objects. What is written so is no secret to whoever knows the seed:
    /// for simulations only. A second seed changes nothing.
    #[doc(hidden)]
    pub fn seed_randomness(&self, seed: [u8; 32]) {
        let seeded = Mutex::new(StdRng::from_seed(seed));
        let _ = self.shared.randomness.seeded.set(seeded);
    }
}

//! How fast bytes may go. Those who share a [`Throttle`] get their turns in the order
//! in which they ask, so none of them starves. Never does I/O.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;
/// One who comes late catches up, but no more than this: timers are coarse.
const SLACK: Duration = Duration::from_millis(100);

/// Bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// The slowest rate at which a repository can be used: 16 KiB per second.
    pub const SLOWEST: Self = Self(16 * 1024);

    /// So many bytes per second; none below [`Rate::SLOWEST`].
    #[must_use]
    pub fn per_second(bytes: u64) -> Option<Self> {
        Some(Self(bytes)).filter(|rate| *rate >= Self::SLOWEST)
    }

    /// Bytes per second.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How long so many bytes take.
    pub(crate) fn time_of(self, bytes: u64) -> Duration {
        let nanoseconds = u128::from(bytes) * NANOSECONDS_PER_SECOND / u128::from(self.0);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// Keeps all who share it together to a rate.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Rate,
    /// When those who have asked so far are through.
    free_at: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until it is the turn of so many bytes.
    pub(crate) async fn pass(&self, bytes: u64) {
        tokio::time::sleep_until(self.take(bytes, Instant::now())).await;
    }

    /// Counts bytes that do not wait: those that come later wait longer.
    pub(crate) fn count(&self, bytes: u64) {
        self.take(bytes, Instant::now());
    }

    /// When the turn of so many bytes is, if they are asked for now.
    fn take(&self, bytes: u64, now: Instant) -> Instant {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*free_at).max(earliest);
        *free_at = turn + self.rate.time_of(bytes);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle() -> (Throttle, Instant) {
        let throttle = Throttle::new(Rate::per_second(1 << 20).unwrap());
        let now = *throttle.free_at.lock().unwrap();
        (throttle, now)
    }

    #[test]
    fn a_rate_is_at_least_the_slowest() {
        assert_eq!(Rate::per_second(16 * 1024), Some(Rate::SLOWEST));
        assert_eq!(Rate::per_second(16 * 1024 - 1), None);
        assert_eq!(
            Rate::SLOWEST.time_of(40 * 1024),
            Duration::from_millis(2500)
        );
        assert!(Rate::SLOWEST.time_of(u64::MAX) > Duration::from_secs(1 << 33));
    }

    #[test]
    fn turns_are_given_in_the_order_of_asking() {
        let (throttle, now) = throttle();
        let second = Duration::from_secs(1);
        assert_eq!(throttle.take(2 << 20, now), now);
        assert_eq!(throttle.take(1, now), now + 2 * second);
        assert!(throttle.take(1 << 20, now + second) > now + 2 * second);
    }

    #[test]
    fn time_without_work_is_not_saved_up() {
        let (throttle, now) = throttle();
        let later = now + Duration::from_secs(3600);
        assert_eq!(throttle.take(1 << 20, later), later - SLACK);
        assert_eq!(
            throttle.take(1, later),
            later - SLACK + Duration::from_secs(1)
        );
    }
}

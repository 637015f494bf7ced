//! How many requests are in flight, and when a failed one is tried again. Pure:
//! times and chance are arguments.

use std::time::Duration;

use tokio::time::Instant;

/// Requests in flight at the start.
const START: f64 = 24.0;
/// Requests in flight at most.
const MAX: f64 = 64.0;
/// An answer within this time says that there is room for more.
const FAST: Duration = Duration::from_millis(25);
/// Answers that take longer than this say that the server is overloaded.
const SLOW: Duration = Duration::from_millis(250);
/// The longest pause that a server can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The pause after "too many requests" that names none.
const PAUSE_DEFAULT: Duration = Duration::from_secs(1);
/// The first wait before a request is repeated.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait before a request is repeated.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Adapts the number of requests in flight to what the server takes: a little
/// more while answers are fast, much less when it complains.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: f64,
    max: f64,
    /// The fastest answer of all: the way there and back.
    best: Duration,
    /// The sum and number of the answers in this window.
    sum: Duration,
    answers: u32,
    paused_until: Option<Instant>,
}

impl Pace {
    /// A pace of at most `max` requests in flight; the hard bounds are 1 and 64.
    pub(crate) fn new(max: usize) -> Self {
        let max = u32::try_from(max).map_or(MAX, f64::from).clamp(1.0, MAX);
        Self {
            limit: START.min(max),
            max,
            best: Duration::MAX,
            sum: Duration::ZERO,
            answers: 0,
            paused_until: None,
        }
    }

    /// How many requests may be in flight.
    pub(crate) fn limit(&self) -> usize {
        let mut limit = 1;
        while f64::from(limit + 1) <= self.limit {
            limit += 1;
        }
        usize::try_from(limit).unwrap_or(1)
    }

    /// Until when nothing may be sent, if that is after `now`.
    pub(crate) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// An answer came, of whatever content, after this time.
    pub(crate) fn answered(&mut self, took: Duration) {
        self.best = self.best.min(took);
        self.sum += took;
        self.answers += 1;
        if f64::from(self.answers) < self.limit {
            return;
        }
        let average = self.sum / self.answers;
        self.sum = Duration::ZERO;
        self.answers = 0;
        if average < FAST.max(self.best.saturating_mul(2)) {
            self.limit = (self.limit + 1.0).min(self.max);
        } else if average > SLOW.max(self.best.saturating_mul(8)) {
            self.limit = (self.limit * 0.9).max(1.0);
        }
    }

    /// The server asked to slow down: everything waits, not only the request
    /// that was answered.
    pub(crate) fn throttled(&mut self, after: Option<Duration>, now: Instant) {
        let until = now + after.unwrap_or(PAUSE_DEFAULT).min(PAUSE_MAX);
        // Answers to requests that were sent before the pause count once.
        if self.paused_until(now).is_none() {
            self.limit = (self.limit * 0.5).max(1.0);
        }
        self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
    }

    /// The server failed, or could not be reached.
    pub(crate) fn failed(&mut self) {
        self.limit = (self.limit * 0.8).max(1.0);
    }
}

/// How long to wait before a request is sent for the `attempt`th time, counted
/// from 1: doubling, and anywhere between half and all of it.
pub(crate) fn backoff(attempt: u32, after: Option<Duration>, chance: u64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let whole = doubled.min(BACKOFF_MAX);
    let part = u32::try_from(chance % 1024).unwrap_or(0);
    let jittered = whole / 2 + (whole / 2) * part / 1024;
    after.map_or(jittered, |after| after.min(PAUSE_MAX) + jittered / 4)
}

/// A source of chance with a seed, for jitter only.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn answers(pace: &mut Pace, count: u32, took: Duration) {
        (0..count).for_each(|_| pace.answered(took));
    }

    #[test]
    fn fast_answers_raise_the_limit_to_its_bound_and_slow_ones_lower_it() {
        let mut pace = Pace::new(1000);
        assert_eq!(pace.limit(), 24);
        answers(&mut pace, 24, ms(5));
        assert_eq!(pace.limit(), 25);
        answers(&mut pace, 10_000, ms(5));
        assert_eq!(pace.limit(), 64);
        answers(&mut pace, 64, ms(100));
        assert_eq!(pace.limit(), 64);
        answers(&mut pace, 100_000, ms(900));
        assert_eq!(pace.limit(), 1);
    }

    #[test]
    fn a_server_far_away_is_not_an_overloaded_one() {
        let mut pace = Pace::new(64);
        answers(&mut pace, 10_000, ms(300));
        assert_eq!(pace.limit(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_request_stops_all_of_them_once() {
        let mut pace = Pace::new(64);
        let now = Instant::now();
        assert_eq!(pace.paused_until(now), None);
        pace.throttled(Some(ms(3000)), now);
        pace.throttled(Some(ms(1000)), now);
        assert_eq!(pace.limit(), 12);
        assert_eq!(pace.paused_until(now), Some(now + ms(3000)));
        assert_eq!(pace.paused_until(now + ms(3000)), None);
        pace.throttled(Some(Duration::from_secs(86_400)), now + ms(3000));
        assert_eq!(pace.paused_until(now + ms(3000)), Some(now + ms(63_000)));
    }

    #[test]
    fn waits_double_with_jitter_and_honour_what_the_server_says() {
        assert_eq!(backoff(1, None, 0), ms(50));
        assert!((ms(400)..ms(800)).contains(&backoff(4, None, 777)));
        assert!(backoff(60, None, u64::MAX) < ms(10_001));
        assert!(backoff(1, Some(ms(2000)), 9) >= ms(2000));
        let mut chance = Chance::new(7);
        assert_ne!(chance.next(), chance.next());
    }
}

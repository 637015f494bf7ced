//! Sends a request until there is an answer to go by: repeats what the server
//! failed at, and slows down when it asks for that.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lifebuoy_api::Reason;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{Refusal, Verdict, classify};
use super::http::{Call, Http};
use super::pace::{Chance, Pace, backoff};

/// A final verdict on a request, and the body of the answer.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) verdict: Verdict,
    pub(crate) body: Bytes,
}

/// What all requests of one run share.
pub(crate) struct Sender {
    pub(crate) http: Http,
    pace: Mutex<Pace>,
    chance: Mutex<Chance>,
    /// How many repetitions are left for the entire run.
    budget: AtomicU64,
    /// How long one request is repeated.
    patience: Duration,
    pub(crate) cancel: CancellationToken,
}

impl Sender {
    pub(crate) fn new(
        http: Http,
        pace: Pace,
        chance: Chance,
        budget: u64,
        patience: Duration,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            http,
            pace: Mutex::new(pace),
            chance: Mutex::new(chance),
            budget: AtomicU64::new(budget),
            patience,
            cancel,
        }
    }

    pub(crate) fn pace(&self) -> MutexGuard<'_, Pace> {
        // A pace is whole after every call, so a panic elsewhere does no harm.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and repeats it while that can help. The verdict is never
    /// `Throttled` or `Failed`.
    pub(crate) async fn send(&self, call: &Call<'_>, secret: bool) -> Sent {
        let begun = Instant::now();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = Instant::now();
            let (after, refusal) = match self.http.call(call).await {
                Ok(answer) => {
                    self.pace().answered(sent.elapsed());
                    match classify(&answer, secret) {
                        Verdict::Throttled(after, refusal) => {
                            self.pace().throttled(after, Instant::now());
                            (after, refusal)
                        }
                        Verdict::Failed(after, refusal) => {
                            self.pace().failed();
                            (after, refusal)
                        }
                        verdict => {
                            return Sent {
                                verdict,
                                body: answer.body,
                            };
                        }
                    }
                }
                Err(lost) => {
                    self.pace().failed();
                    let words = format!("no answer from the API server: {}", lost.0);
                    (
                        None,
                        Refusal {
                            reason: Reason::Refused,
                            words,
                            passing: false,
                        },
                    )
                }
            };
            if begun.elapsed() >= self.patience || !self.take_from_budget() {
                return gave_up(refusal, attempt);
            }
            if !self.sleep(attempt, after).await {
                return gave_up(
                    Refusal {
                        reason: Reason::Cancelled,
                        ..refusal
                    },
                    attempt,
                );
            }
        }
    }

    fn take_from_budget(&self) -> bool {
        self.budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    /// Waits before the next attempt; false when the run was cancelled.
    async fn sleep(&self, attempt: u32, after: Option<Duration>) -> bool {
        let chance = self
            .chance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next();
        let now = Instant::now();
        let own = now + backoff(attempt, after, chance);
        let until = self
            .pace()
            .paused_until(now)
            .map_or(own, |pause| pause.max(own));
        tokio::select! {
            () = self.cancel.cancelled() => false,
            () = tokio::time::sleep_until(until) => true,
        }
    }

    /// Waits for `time`; false when the run was cancelled.
    pub(crate) async fn wait(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.cancel.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

fn gave_up(refusal: Refusal, attempts: u32) -> Sent {
    let words = format!("{} (tried {attempts} times)", refusal.words);
    Sent {
        verdict: Verdict::Refused(Refusal { words, ..refusal }),
        body: Bytes::new(),
    }
}

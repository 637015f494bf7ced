//! Which replica works: a Lease that one holds and renews.
//!
//! Time is measured by each replica's own monotonic clock, from the moment at
//! which it saw the Lease change: wall clocks that differ or jump decide
//! nothing. A Lease fences nothing either; every write that must not be done
//! twice has preconditions of its own.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use lifebuoy_api::time::to_kube_micro;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// How long it is waited between two looks at the Lease, at most.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A Lease, and who wants it.
pub(crate) struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
    clock: fn() -> DateTime<Utc>,
    seen: Option<Seen>,
}

/// What the Lease last looked like, and since when.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    version: Option<String>,
    since: Instant,
}

/// What a replica may do about a Lease as it looks now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// It is ours.
    Renew,
    /// Nobody has it, or the holder let it expire.
    Take,
    /// It is somebody else's.
    Wait,
}

fn claim(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration, ours: Duration) -> Claim {
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if holder == identity {
        return Claim::Renew;
    }
    if holder.is_empty() {
        return Claim::Take;
    }
    // The holder's own duration counts: it promised to renew within it.
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
    let duration = seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(ours, Duration::from_secs);
    if unchanged >= duration {
        Claim::Take
    } else {
        Claim::Wait
    }
}

/// What came of a look at the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// It is ours, from now on for its duration.
    Ours,
    /// It is somebody else's.
    Others,
    /// Somebody wrote it meanwhile: maybe we did, with a request whose answer was lost.
    Overtaken,
}

impl Election {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        duration: Duration,
        clock: fn() -> DateTime<Utc>,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration,
            clock,
            seen: None,
        }
    }

    /// Tries until the Lease is ours. Until then `alive` is told whenever the
    /// API server answered: who stands by is ready.
    pub(crate) async fn acquire(&mut self, alive: &watch::Sender<Option<Instant>>) {
        loop {
            match self.attempt().await {
                Ok(Attempt::Ours) => {
                    tracing::info!(lease = self.name, identity = self.identity, "leading");
                    return;
                }
                Ok(Attempt::Others | Attempt::Overtaken) => {
                    alive.send_replace(Some(Instant::now()));
                }
                Err(error) => tracing::warn!(lease = self.name, %error, "cannot read the lease"),
            }
            tokio::time::sleep(self.retry()).await;
        }
    }

    /// Renews the Lease until `stop`, then gives it back.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when somebody else has it, or when it could not be
    /// renewed in two thirds of its duration: others may take it soon.
    pub(crate) async fn hold(
        &mut self,
        alive: &watch::Sender<Option<Instant>>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.retry()) => {}
            }
            let left = (self.duration * 2 / 3).saturating_sub(renewed.elapsed());
            // One answer that never comes must not use up the time of all.
            let limit = left.min(self.duration / 4);
            let asked = Instant::now();
            match tokio::time::timeout(limit, self.attempt()).await {
                Ok(Ok(Attempt::Ours)) => {
                    // Others count from when they see it, which is no earlier.
                    renewed = asked;
                    alive.send_replace(Some(Instant::now()));
                }
                Ok(Ok(Attempt::Overtaken)) => {}
                Ok(Ok(Attempt::Others)) => return Err(self.lost()),
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease"),
                Err(_) => tracing::warn!("no answer when the lease was to be renewed"),
            }
            if renewed.elapsed() >= self.duration * 2 / 3 {
                return Err(self.lost());
            }
        }
        self.release().await;
        Ok(())
    }

    fn lost(&self) -> Error {
        Error::LeaseLost {
            lease: self.name.clone(),
        }
    }

    fn retry(&self) -> Duration {
        (self.duration / 8).min(RETRY_MAX)
    }

    /// One look at the Lease, and one write if it is or becomes ours.
    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone();
        let seen = match self.seen.take() {
            Some(seen) if seen.version == version => seen,
            _ => Seen {
                version,
                since: Instant::now(),
            },
        };
        let unchanged = seen.since.elapsed();
        self.seen = Some(seen);
        let spec = match claim(
            lease.spec.as_ref(),
            &self.identity,
            unchanged,
            self.duration,
        ) {
            Claim::Wait => return Ok(Attempt::Others),
            Claim::Renew => {
                let renew_time = Some(to_kube_micro((self.clock)()));
                LeaseSpec {
                    renew_time,
                    ..lease.spec.clone().unwrap_or_default()
                }
            }
            Claim::Take => self.spec(lease.spec.as_ref()),
        };
        // The resourceVersion that was read goes along: of two that take it, one wins.
        let lease = Lease {
            spec: Some(spec),
            ..lease
        };
        won(self
            .leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = to_kube_micro((self.clock)());
        let seconds = i32::try_from(self.duration.as_secs())
            .unwrap_or(i32::MAX)
            .max(1);
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(-1);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(1)),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, so that nobody has to wait until it expires.
    async fn release(&self) {
        let released: Result<(), kube::Error> = async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
                return Ok(());
            };
            let Some(spec) = lease.spec.as_mut() else {
                return Ok(());
            };
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                self.leases
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok(())
        }
        .await;
        if let Err(error) = released {
            tracing::warn!(%error, "cannot give the lease back; it expires by itself");
        }
    }
}

fn won(written: Result<Lease, kube::Error>) -> Result<Attempt, kube::Error> {
    match written {
        Ok(_) => Ok(Attempt::Ours),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Overtaken),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_when_its_holder_let_it_expire() {
        let held = |holder: &str, seconds: Option<i32>| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        let second = Duration::from_secs;
        for (spec, unchanged, expected) in [
            (None, second(0), Claim::Take),
            (Some(held("", Some(15))), second(0), Claim::Take),
            (Some(held("me", Some(15))), second(99), Claim::Renew),
            (Some(held("other", Some(15))), second(14), Claim::Wait),
            (Some(held("other", Some(15))), second(15), Claim::Take),
            (Some(held("other", Some(60))), second(59), Claim::Wait),
            (Some(held("other", Some(-1))), second(9), Claim::Wait),
            (Some(held("other", None)), second(10), Claim::Take),
        ] {
            let got = claim(spec.as_ref(), "me", unchanged, second(10));
            assert_eq!(got, expected, "{spec:?} unchanged for {unchanged:?}");
        }
    }
}

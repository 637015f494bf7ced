//! The one place where times change their type.
//!
//! Our own code speaks `chrono`; Kubernetes types speak `jiff`. See
//! `docs/decisions/0002-time.md`.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// A Kubernetes timestamp (whole seconds on the wire) of this instant.
///
/// Instants outside the range of Kubernetes' own type (before year -9999 or
/// after 9999) become the epoch: no clock gives them.
#[must_use]
pub fn to_kube(at: DateTime<Utc>) -> Time {
    Time(jiff::Timestamp::from_second(at.timestamp()).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// A Kubernetes timestamp with microseconds, as Leases have it.
#[must_use]
pub fn to_kube_micro(at: DateTime<Utc>) -> MicroTime {
    MicroTime(
        jiff::Timestamp::from_microsecond(at.timestamp_micros())
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH),
    )
}

/// The instant of a Kubernetes timestamp.
#[must_use]
pub fn from_kube(at: &Time) -> DateTime<Utc> {
    from_jiff(at.0)
}

/// The instant of a Kubernetes timestamp with microseconds.
#[must_use]
pub fn from_kube_micro(at: &MicroTime) -> DateTime<Utc> {
    from_jiff(at.0)
}

fn from_jiff(at: jiff::Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp(
        at.as_second(),
        u32::try_from(at.subsec_nanosecond()).unwrap_or(0),
    )
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_survive_both_ways() {
        for second in [0, 1, -1, 1_795_474_800, -62_135_596_800] {
            let at = DateTime::from_timestamp(second, 0).unwrap();
            assert_eq!(from_kube(&to_kube(at)), at);
            assert_eq!(from_kube_micro(&to_kube_micro(at)), at);
        }
    }
}

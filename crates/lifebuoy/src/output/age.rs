//! Spans of time as kubectl shows them. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lifebuoy_api::time::from_kube;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// How long ago `at` was, or `<unknown>`.
pub(crate) fn age_of(at: Option<&Time>, now: DateTime<Utc>) -> String {
    at.map_or_else(|| "<unknown>".to_owned(), |at| age(from_kube(at), now))
}

/// How long ago `at` was; the future counts as now, since clocks differ.
pub(crate) fn age(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    duration((now - at).to_std().unwrap_or_default())
}

/// A span in at most two units.
pub(crate) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| {
        let rest = seconds % large / small;
        if rest == 0 {
            format!("{}{large_unit}", seconds / large)
        } else {
            format!("{}{large_unit}{rest}{small_unit}", seconds / large)
        }
    };
    match seconds {
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(DAY, "d", HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(YEAR, "y", DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_look_as_in_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * HOUR + 60, "3h1m"),
            (8 * HOUR, "8h"),
            (2 * DAY + HOUR, "2d1h"),
            (9 * DAY, "9d"),
            (3 * YEAR + DAY, "3y1d"),
            (9 * YEAR, "9y"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn the_future_is_now() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let later = DateTime::from_timestamp(2_000, 0).unwrap();
        assert_eq!(age(later, now), "0s");
        assert_eq!(age_of(None, now), "<unknown>");
    }
}

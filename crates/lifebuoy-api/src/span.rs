//! A length of time as people write it in a spec: `90s`, `1h30m`, `168h`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest text of a length of time that a schema lets pass, in bytes.
const TEXT_BYTES_MAX: usize = 24;

const SECONDS_PER_MINUTE: u64 = 60;
const SECONDS_PER_HOUR: u64 = 60 * SECONDS_PER_MINUTE;

/// A length of time in whole seconds, written as whole hours, minutes and
/// seconds in that order, such as `168h` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(Duration);

impl TimeSpan {
    /// A number of hours.
    #[must_use]
    pub const fn hours(hours: u32) -> Self {
        Self(Duration::from_secs(hours as u64 * SECONDS_PER_HOUR))
    }

    /// The length of time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// A text that is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time such as 90s, 10m or 1h30m")]
pub struct ParseTimeSpanError;

impl FromStr for TimeSpan {
    type Err = ParseTimeSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut seconds: u64 = 0;
        let mut rest = text;
        let mut smallest = u64::MAX;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or(ParseTimeSpanError)?;
            let number: u64 = rest[..digits].parse().map_err(|_| ParseTimeSpanError)?;
            let unit = match rest.as_bytes()[digits] {
                b'h' => SECONDS_PER_HOUR,
                b'm' => SECONDS_PER_MINUTE,
                b's' => 1,
                _ => return Err(ParseTimeSpanError),
            };
            if unit >= smallest {
                return Err(ParseTimeSpanError);
            }
            smallest = unit;
            seconds = number
                .checked_mul(unit)
                .and_then(|part| seconds.checked_add(part))
                .ok_or(ParseTimeSpanError)?;
            rest = &rest[digits + 1..];
        }
        if smallest == u64::MAX {
            return Err(ParseTimeSpanError);
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds == 0 {
            return f.write_str("0s");
        }
        for (number, unit) in [
            (seconds / SECONDS_PER_HOUR, "h"),
            (seconds % SECONDS_PER_HOUR / SECONDS_PER_MINUTE, "m"),
            (seconds % SECONDS_PER_MINUTE, "s"),
        ] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for TimeSpan {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TimeSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": TEXT_BYTES_MAX})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_whole_numbers_with_units_in_falling_order() {
        for (text, seconds, again) in [
            ("0s", 0, "0s"),
            ("90s", 90, "1m30s"),
            ("10m", 600, "10m"),
            ("1h30m", 5400, "1h30m"),
            ("2h1s", 7201, "2h1s"),
            ("168h", 604_800, "168h"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!(span.duration(), Duration::from_secs(seconds), "{text}");
            assert_eq!(span.to_string(), again);
            assert_eq!(again.parse(), Ok(span));
        }
        for text in [
            "",
            "10",
            "m",
            "-1h",
            "+1h",
            "1.5h",
            "1d",
            "1 h",
            "1H",
            "1m1h",
            "1s1s",
            "1é",
            "99999999999999999999h",
            "9999999999999999999h",
        ] {
            assert_eq!(text.parse::<TimeSpan>(), Err(ParseTimeSpanError), "{text}");
        }
    }

    #[test]
    fn json_holds_the_text() {
        let span: TimeSpan = serde_json::from_str(r#""36h""#).unwrap();
        assert_eq!(span, TimeSpan::hours(36));
        assert_eq!(serde_json::to_string(&span).unwrap(), r#""36h""#);
        assert!(serde_json::from_str::<TimeSpan>(r#""1 day""#).is_err());
        assert!(serde_json::from_str::<TimeSpan>("36").is_err());
    }
}

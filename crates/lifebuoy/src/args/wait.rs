//! Whether and how long a command waits.

use std::time::Duration;

use clap::Args;
use lifebuoy_api::{ParseTimeSpanError, TimeSpan};

#[derive(Args, Debug, Clone, Copy)]
#[command(next_help_heading = "Waiting")]
pub(crate) struct WaitArgs {
    /// Follow the request until it has ended. Direct work is always followed.
    #[arg(long)]
    pub(crate) wait: bool,

    /// Stop following after this time, such as 90s, 10m or 2h: the command ends
    /// with 5, the request goes on. Direct work is stopped.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// A time that is not nothing.
fn parse_duration(text: &str) -> Result<Duration, ParseTimeSpanError> {
    let time = text.parse::<TimeSpan>()?.duration();
    if time.is_zero() {
        return Err(ParseTimeSpanError);
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h1s", 7201)] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "m",
            "1d",
            "1m1h",
            "1s1s",
            "0s",
            "1é",
            "99999999999999999999h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}

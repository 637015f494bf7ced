//! Whether and how long a command waits.

use std::time::Duration;

use clap::Args;

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

/// Parses whole numbers with units in falling order: `90s`, `1h30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    const WAY_OUT: &str = "expected a time such as 90s, 10m or 1h30m";
    let mut seconds: u64 = 0;
    let mut rest = text;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(WAY_OUT)?;
        let number: u64 = rest[..digits].parse().map_err(|_| WAY_OUT)?;
        let unit = match rest.as_bytes()[digits] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(WAY_OUT.to_owned()),
        };
        if unit >= smallest {
            return Err(WAY_OUT.to_owned());
        }
        smallest = unit;
        let part = number.checked_mul(unit).ok_or("too long")?;
        seconds = seconds.checked_add(part).ok_or("too long")?;
        rest = &rest[digits + 1..];
    }
    if seconds == 0 {
        return Err(WAY_OUT.to_owned());
    }
    Ok(Duration::from_secs(seconds))
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

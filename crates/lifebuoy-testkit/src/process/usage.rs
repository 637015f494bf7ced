//! Reads a process's processor time and memory from `/proc`. Never samples:
//! the kernel keeps the peak.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of processor time in `/proc/PID/stat` is fixed at 1/100 s.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads.
    pub processor: Duration,
    /// Memory in RAM now, in bytes.
    pub resident_bytes: u64,
    /// The most memory in RAM at any moment, in bytes.
    pub peak_bytes: u64,
}

impl Usage {
    /// Reads the figures of process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            processor: processor_time(&stat).context("unexpected /proc/PID/stat")?,
            resident_bytes: kib_field(&status, "VmRSS:").unwrap_or(0) * 1024,
            peak_bytes: kib_field(&status, "VmHWM:").unwrap_or(0) * 1024,
        })
    }
}

/// Makes `VmHWM` start again from what is resident now.
pub(super) fn reset_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak memory")
}

/// Fields 14 and 15, counted after the name, which may hold spaces.
fn processor_time(stat: &str) -> Option<Duration> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SECOND,
    ))
}

fn kib_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_brackets_are_no_problem() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5";
        assert_eq!(processor_time(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn this_process_has_figures() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 0 && usage.peak_bytes >= usage.resident_bytes);
    }
}

//! What one target's run came to, out of what libFuzzer prints.

use std::path::PathBuf;

use super::LINES_SHOWN;

/// What one run came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) target: String,
    pub(crate) executions: u64,
    pub(crate) per_second: u64,
    /// Branches that were taken.
    pub(crate) coverage: u64,
    /// Inputs that are worth keeping.
    pub(crate) inputs: u64,
    pub(crate) peak_mib: u64,
    pub(crate) failed: bool,
    /// Where the input is that it failed on.
    pub(crate) input: Option<PathBuf>,
    /// The end of the output of a failed run.
    pub(crate) last_lines: String,
}

impl Outcome {
    pub(crate) const HEADING: &str =
        "target           executions   per second  branches  inputs  peak MiB";

    pub(crate) fn read(target: &str, succeeded: bool, output: &str) -> Self {
        let stat = |name: &str| {
            let line = output
                .lines()
                .rev()
                .find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
        };
        // "#7 NEW cov: 12 ft: 13 corp: 4/9b …"
        let progress = |name: &str| {
            let line = output
                .lines()
                .rev()
                .find(|line| line.starts_with('#') && line.contains(name));
            let rest = line
                .and_then(|line| line.split(name).nth(1))
                .unwrap_or_default();
            let digits = rest
                .trim_start()
                .split(|c: char| !c.is_ascii_digit())
                .next();
            digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
        };
        let input = output
            .lines()
            .find_map(|line| line.split_once("Test unit written to "))
            .map(|(_, path)| PathBuf::from(path.trim()));
        let executions = stat("stat::number_of_executed_units:");
        let lines: Vec<&str> = output.lines().collect();
        Self {
            target: target.to_owned(),
            executions,
            per_second: stat("stat::average_exec_per_sec:"),
            coverage: progress("cov:"),
            inputs: progress("corp:"),
            peak_mib: stat("stat::peak_rss_mb:"),
            // A target that ran nothing has shown nothing.
            failed: !succeeded || executions == 0,
            input,
            last_lines: lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"),
        }
    }

    pub(crate) fn row(&self) -> String {
        let Self {
            target,
            executions,
            per_second,
            coverage,
            inputs,
            peak_mib,
            failed,
            ..
        } = self;
        let verdict = if *failed { "  FAILED" } else { "" };
        format!(
            "{target:15} {executions:>11} {per_second:>12} {coverage:>9} {inputs:>7} {peak_mib:>9}{verdict}"
        )
    }

    pub(crate) fn json(&self) -> String {
        serde_json::json!({
            "target": self.target,
            "executions": self.executions,
            "executionsPerSecond": self.per_second,
            "branches": self.coverage,
            "inputs": self.inputs,
            "peakMiB": self.peak_mib,
            "failed": self.failed,
            "input": self.input,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "\
INFO: Seed: 42
#2	INITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb
#99	NEW    cov: 123 ft: 456 corp: 78/9012b lim: 4 exec/s: 0 rss: 41Mb L: 3/3 MS: 1 CopyPart-
#1234567	DONE   cov: 125 ft: 460 corp: 80/9100b lim: 4096 exec/s: 205761 rss: 52Mb
Done 1234567 runs in 6 second(s)
stat::number_of_executed_units: 1234567
stat::average_exec_per_sec:     205761
stat::peak_rss_mb:              52
";

    #[test]
    fn the_figures_are_read_from_the_end() {
        let outcome = Outcome::read("pack", true, PASSED);
        let figures = (outcome.executions, outcome.per_second, outcome.coverage);
        assert_eq!(figures, (1_234_567, 205_761, 125));
        assert_eq!((outcome.inputs, outcome.peak_mib), (80, 52));
        assert!(!outcome.failed && outcome.input.is_none());
        let json: serde_json::Value = serde_json::from_str(&outcome.json()).unwrap();
        assert_eq!(json["executionsPerSecond"], 205_761);
        assert_eq!(json["input"], serde_json::Value::Null);
    }

    #[test]
    fn a_crash_names_its_input() {
        let output = "\
thread '<unnamed>' panicked at src/node.rs:1:2:
==7== ERROR: libFuzzer: deadly signal
artifact_prefix='a b/'; Test unit written to a b/crash-0f
stat::number_of_executed_units: 5
";
        let outcome = Outcome::read("pack", false, output);
        assert!(outcome.failed && outcome.row().ends_with("FAILED"));
        assert_eq!(outcome.input, Some(PathBuf::from("a b/crash-0f")));
        assert!(outcome.last_lines.contains("panicked at src/node.rs"));
    }

    #[test]
    fn a_target_that_runs_nothing_has_failed() {
        assert!(Outcome::read("pack", true, "").failed);
    }
}

//! What happened when, for the terminal.

use std::io::Write;
use std::time::{Duration, Instant};

/// Steps with their measured durations.
pub(crate) struct Timeline {
    start: Instant,
    last: Instant,
    steps: Vec<(Duration, Duration, String)>,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last: now,
            steps: Vec::new(),
        }
    }

    /// Ends a step: says so at once, and keeps it for the table.
    pub(crate) fn done(&mut self, what: &str, detail: &str) {
        let took = self.last.elapsed();
        self.last = Instant::now();
        let what = if detail.is_empty() {
            what.to_owned()
        } else {
            format!("{what} ({detail})")
        };
        say(&format!("{:>7.1} s  {what}", took.as_secs_f64()));
        self.steps.push((self.start.elapsed(), took, what));
    }

    /// Prints the whole table.
    pub(crate) fn print(&self) {
        say("");
        say("   AT      TOOK     WHAT");
        for (at, took, what) in &self.steps {
            say(&format!(
                "{:>6.1} s {:>7.1} s  {what}",
                at.as_secs_f64(),
                took.as_secs_f64()
            ));
        }
    }
}

/// Prints a line at once, also into a pipe. A reader that went away is no
/// reason to stop.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

//! What happened in a world, in order, with its simulated time: the last of it,
//! bounded. Holds keys and lengths, never contents, so that it can be compared.

use std::{
    collections::VecDeque,
    fmt::{self, Write},
    sync::Arc,
};

/// Lines that are kept.
const LINES_MAX: usize = 20_000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    at_ms: u64,
    process: Arc<str>,
    text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at_ms,
            process,
            text,
        } = self;
        let (s, ms) = (at_ms / 1000, at_ms % 1000);
        write!(f, "{s:>6}.{ms:03} {process:<6} {text}")
    }
}

/// A ring of lines.
#[derive(Default, Debug)]
pub(crate) struct Trace {
    lines: VecDeque<Line>,
    dropped: usize,
}

impl Trace {
    pub(crate) fn add(&mut self, at_ms: u64, process: &Arc<str>, text: String) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(Line {
            at_ms,
            process: Arc::clone(process),
            text,
        });
    }

    /// The last `count` lines, of one process or of all.
    pub(crate) fn render(&self, process: Option<&str>, count: usize) -> String {
        let of = |line: &&Line| process.is_none_or(|name| *line.process == *name);
        let matching = self.lines.iter().filter(of).count();
        let skipped = matching.saturating_sub(count);
        let mut text = String::new();
        if skipped + self.dropped > 0 {
            let _ = writeln!(text, "… {} earlier lines", skipped + self.dropped);
        }
        for line in self.lines.iter().filter(of).skip(skipped) {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

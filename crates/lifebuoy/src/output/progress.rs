//! How far something is: a bar for a person, now and then a line in a pipe.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Terminal;

/// In a pipe, no two lines follow each other faster than this.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(120);

/// Shows how far something is, until it is dropped.
pub(crate) struct Progress {
    terminal: Terminal,
    bar: ProgressBar,
    said: Option<(Instant, String)>,
}

impl Progress {
    pub(crate) fn begin(terminal: Terminal) -> Self {
        let bar = ProgressBar::new_spinner();
        if terminal.interactive {
            bar.enable_steady_tick(TICK);
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self {
            terminal,
            bar,
            said: None,
        }
    }

    /// `done` of `total`; a total of zero is not known yet.
    pub(crate) fn update(&mut self, text: &str, done: u64, total: u64) {
        if self.terminal.interactive {
            self.draw(text, done, total);
            return;
        }
        let line = if total == 0 {
            text.to_owned()
        } else {
            format!("{text}: {done} of {total}")
        };
        let due = self
            .said
            .as_ref()
            .is_none_or(|(at, before)| at.elapsed() >= LINE_INTERVAL && *before != line);
        if due {
            self.terminal.say(&line);
            self.said = Some((Instant::now(), line));
        }
    }

    fn draw(&self, text: &str, done: u64, total: u64) {
        if total > 0 && self.bar.length() != Some(total) {
            self.bar.set_length(total);
            if let Ok(style) =
                ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}")
            {
                self.bar.set_style(style);
            }
        }
        self.bar.set_message(text.to_owned());
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

//! What a command shows: results on standard output, everything else on
//! standard error. Never prints a secret, nor anything that a terminal would obey.

mod age;
mod description;
pub(crate) mod inert;
mod objects;
mod progress;
mod table;

use std::io::{self, IsTerminal, Write};

pub(crate) use age::{age, age_of, duration};
pub(crate) use description::Description;
pub(crate) use objects::{document, listed};
pub(crate) use progress::Progress;
pub(crate) use table::Table;

use crate::error::Error;

/// The two streams of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Whether a person watches standard error.
    pub(crate) interactive: bool,
}

impl Terminal {
    pub(crate) fn detect() -> Self {
        Self {
            interactive: io::stderr().is_terminal(),
        }
    }

    /// Prints a result, with one newline at its end.
    ///
    /// # Errors
    /// [`Error::Output`], also when the reader of a pipe has gone.
    pub(crate) fn print(&self, text: &str) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        out.write_all(inert::lines(text).as_bytes())
            .map_err(Error::Output)?;
        if !text.ends_with('\n') {
            out.write_all(b"\n").map_err(Error::Output)?;
        }
        out.flush().map_err(Error::Output)
    }

    /// Tells the person something that is no result.
    pub(crate) fn say(&self, line: &str) {
        // Nobody is left to be told that standard error is closed.
        let _ = writeln!(io::stderr().lock(), "{}", inert::lines(line));
    }

    /// Says why the command failed, and what can be done.
    pub(crate) fn fail(&self, error: &Error) {
        self.say(&format!("error: {}", error.line()));
        if let Some(hint) = error.hint() {
            self.say(&format!("hint: {hint}"));
        }
    }
}

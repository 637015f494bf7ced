//! Exit codes, and nothing else: what a script learns from a command.

use std::process::ExitCode;

/// How a command ended. [`EXIT_CODES`] is the same for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for was done.
    Done,
    /// It failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// It ended, and something that was asked for is missing.
    Partial,
    /// It was refused, and nothing was changed.
    Refused,
    /// `--timeout` passed.
    TimedOut,
}

/// The list of exit codes at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  everything that was asked for was done
  1  it failed
  2  the command line makes no sense
  3  it ended, but something that was asked for is missing; the problems say what
  4  it was refused, and nothing was changed: no permission, an invalid request,
     a plan that differs from the reviewed one or cannot be carried out, an
     equal restore that ran already
  5  --timeout passed; a request to the operator goes on running";

impl Exit {
    /// The number that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Refused => 4,
            Self::TimedOut => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_help() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Partial,
            Exit::Refused,
            Exit::TimedOut,
        ];
        for (number, exit) in (0u8..).zip(all) {
            assert_eq!(exit.code(), number);
            assert!(EXIT_CODES.contains(&format!("\n  {number}  ")), "{number}");
        }
    }
}

//! One object for people: labelled lines and sections. Pure.

use std::fmt::{self, Write as _};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lifebuoy_api::{Problem, Severity};

use super::{Table, inert};

/// The width of the labels; a longer one is out of line.
const LABEL_CHARS: usize = 15;

/// Grows line by line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description(String);

impl Description {
    /// A labelled line; nothing for an empty value.
    pub(crate) fn line(&mut self, label: &str, value: impl fmt::Display) -> &mut Self {
        let value = value.to_string();
        if !value.is_empty() {
            let value = inert::line(&value);
            let label = format!("{label}:");
            // Writing to a string does not fail.
            let _ = writeln!(self.0, "{label:<LABEL_CHARS$} {value}");
        }
        self
    }

    /// As [`Description::line`], if there is a value.
    pub(crate) fn maybe(&mut self, label: &str, value: Option<impl fmt::Display>) -> &mut Self {
        if let Some(value) = value {
            self.line(label, value);
        }
        self
    }

    /// Text below a heading; nothing for an empty text.
    pub(crate) fn section(&mut self, heading: &str, text: impl fmt::Display) -> &mut Self {
        let text = text.to_string();
        if !text.trim().is_empty() {
            let _ = writeln!(self.0, "{heading}:");
            for line in text.trim_end().lines() {
                let _ = writeln!(self.0, "{}", format!("  {line}").trim_end());
            }
        }
        self
    }

    pub(crate) fn conditions(&mut self, conditions: &[Condition]) -> &mut Self {
        let mut table = Table::new(&["TYPE", "STATUS", "REASON", "MESSAGE"]);
        let mut before = None;
        for condition in conditions {
            // Most conditions of an object say the same: once is enough.
            let same = before.replace(&condition.message) == Some(&condition.message);
            table.row(vec![
                condition.type_.clone(),
                condition.status.clone(),
                condition.reason.clone(),
                if same {
                    "(the same)".to_owned()
                } else {
                    condition.message.clone()
                },
            ]);
        }
        if !table.is_empty() {
            self.section("Conditions", table);
        }
        self
    }

    /// The problems that there are; `count` is how many there are in all.
    pub(crate) fn problems(&mut self, problems: &[Problem], count: i64) -> &mut Self {
        let mut text: String = problems
            .iter()
            .map(|problem| format!("{}\n", sentence(problem)))
            .collect();
        let hidden = count - i64::try_from(problems.len()).unwrap_or(i64::MAX);
        if hidden > 0 {
            let _ = writeln!(text, "and {hidden} more");
        }
        self.section("Problems", text)
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A problem in one line.
fn sentence(problem: &Problem) -> String {
    let severity = match problem.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let Problem {
        reason,
        subject,
        message,
        severity: _,
    } = problem;
    if subject.is_empty() {
        format!("{severity}: {reason}: {message}")
    } else {
        format!("{severity}: {reason}: {subject}: {message}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_leave_no_line() {
        let mut text = Description::default();
        text.line("Name", "last")
            .line("Schedule", "")
            .maybe("Session", None::<String>)
            .section("Plan", "")
            .problems(
                &[
                    Problem::error("TypeUnavailable", "tickets.shop.example", "no answer"),
                    Problem::warning("Suspended", "", "look at it"),
                ],
                5,
            );
        insta::assert_snapshot!(text, @r"
        Name:           last
        Problems:
          error: TypeUnavailable: tickets.shop.example: no answer
          warning: Suspended: look at it
          and 3 more
        ");
    }
}

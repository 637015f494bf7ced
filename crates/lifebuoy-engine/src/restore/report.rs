//! What became of every object of a plan. A value with a document form; it
//! never reads anything, and holds no words of the server about a Secret, since
//! none are given to it.

mod volumes;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use lifebuoy_api::{MAX_PROBLEMS, Problem, Reason, RestoreCounts, Severity, bounded};
use serde::{Deserialize, Serialize};

pub use self::volumes::VolumeEnd;
use super::{Interner, Key, Plan};
use crate::Error;

/// The version of the report's own format.
const REPORT_VERSION: u32 = 1;

/// How long the message about one object is, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// The longest line of a report that is read, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;

const WHAT: &str = "the report";

/// What became of every object of a plan.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a report says what was not restored"]
pub struct Report {
    /// The snapshot that was restored.
    pub snapshot: String,
    /// The digest of the plan that was carried out.
    pub plan_digest: String,
    /// Whether the restore was cancelled before its end.
    pub cancelled: bool,
    /// How many objects ended how.
    pub counts: RestoreCounts,
    /// The types of the outcomes, such as `deployments.apps`.
    pub types: Vec<String>,
    /// One outcome an entry of the plan, in the plan's order.
    pub outcomes: Vec<Outcome>,
    /// What a person should look at: one problem for the objects of one type
    /// that ended for one reason, and what was waited for in vain.
    pub problems: Vec<Problem>,
    /// How long the waves took.
    pub timings: Vec<Timing>,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Index into [`Report::types`].
    pub kind: u32,
    /// Where it was captured.
    pub source: Key,
    /// Where it was to be written.
    pub target: Key,
    /// How it ended: `Created`, `Merged`, `Replaced`, `SkippedExisting`,
    /// `Cancelled`, or why it was not restored.
    pub reason: Reason,
    /// What there is to say about it, at most 1 KiB.
    pub message: Box<str>,
}

/// How long a wave took. Waves that are written together count as the first of
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// The wave.
    pub wave: u8,
    /// Objects that were written in it.
    pub objects: u64,
    /// From its first request to that of the next one, in milliseconds.
    pub millis: u64,
}

/// Whether an outcome says that something asked for was not done.
#[must_use]
pub fn is_failure(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::Created
            | Reason::Merged
            | Reason::Replaced
            | Reason::SkippedExisting
            | Reason::Overwritten
            | Reason::Withheld
            | Reason::VolumeDataNotSaved
            | Reason::Cancelled
    )
}

/// Whether an outcome means that the object, or another one in its place, is
/// there.
#[must_use]
pub fn is_there(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Created
            | Reason::Merged
            | Reason::Replaced
            | Reason::SkippedExisting
            | Reason::Overwritten
    )
}

impl Report {
    /// A report on a plan, from one outcome an entry.
    pub(crate) fn new(
        plan: &Plan,
        ended: Vec<(Reason, Box<str>)>,
        counts: RestoreCounts,
        waited: Vec<Problem>,
        timings: Vec<Timing>,
    ) -> Self {
        let outcomes: Vec<Outcome> = plan
            .entries
            .iter()
            .zip(ended)
            .map(|(entry, (reason, message))| Outcome {
                kind: entry.kind,
                source: entry.source.clone(),
                target: entry.target.clone(),
                reason,
                message,
            })
            .collect();
        let mut report = Self {
            snapshot: plan.snapshot.to_string(),
            plan_digest: plan.digest.to_string(),
            cancelled: outcomes
                .iter()
                .any(|outcome| outcome.reason == Reason::Cancelled),
            counts,
            types: plan.types.iter().map(|of| of.id.to_string()).collect(),
            outcomes,
            problems: Vec::new(),
            timings,
        };
        report.problems = report.grouped_problems();
        report.problems.extend(waited);
        let untouched = plan.problems.iter().filter(|of| is_remark(of));
        report.problems.extend(untouched.cloned());
        report
    }

    /// What the outcome is about: `deployments.apps shop/web`, by its name in
    /// the target.
    #[must_use]
    pub fn subject(&self, outcome: &Outcome) -> String {
        let of = self
            .types
            .get(outcome.kind as usize)
            .map_or("", String::as_str);
        format!("{of} {}", outcome.target)
    }

    /// Outcomes of objects that were asked for and are not restored.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes
            .iter()
            .filter(|outcome| is_failure(outcome.reason))
    }

    /// At most as many problems as a status lists, the errors first.
    #[must_use]
    pub fn top_problems(&self) -> Vec<Problem> {
        let mut sorted: Vec<&Problem> = self.problems.iter().collect();
        sorted.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        sorted.into_iter().take(MAX_PROBLEMS).cloned().collect()
    }

    /// One problem for all objects of a type that ended for the same reason;
    /// the first of them is named, with its message.
    fn grouped_problems(&self) -> Vec<Problem> {
        let mut groups: BTreeMap<(u32, Reason), (&Outcome, u64)> = BTreeMap::new();
        for outcome in &self.outcomes {
            let withheld = matches!(
                outcome.reason,
                Reason::Withheld | Reason::VolumeDataNotSaved
            );
            if is_failure(outcome.reason) || withheld {
                groups
                    .entry((outcome.kind, outcome.reason))
                    .or_insert((outcome, 0))
                    .1 += 1;
            }
        }
        groups
            .into_iter()
            .map(|((_, reason), (first, objects))| {
                let more = match objects {
                    1 => String::new(),
                    2 => "1 more object of the type like it; ".to_owned(),
                    _ => format!("{} more objects of the type like it; ", objects - 1),
                };
                let message = format!("{more}{}", first.message);
                if is_failure(reason) {
                    Problem::error(reason, self.subject(first), &message)
                } else {
                    Problem::warning(reason, self.subject(first), &message)
                }
            })
            .collect()
    }

    /// The report for a terminal: counts by type, then every object that was
    /// not restored.
    #[must_use]
    pub fn table(&self) -> String {
        let mut by_type: BTreeMap<(&str, Reason), u64> = BTreeMap::new();
        for outcome in &self.outcomes {
            let of = self
                .types
                .get(outcome.kind as usize)
                .map_or("", String::as_str);
            *by_type.entry((of, outcome.reason)).or_default() += 1;
        }
        let width = by_type
            .keys()
            .map(|(of, _)| of.len())
            .max()
            .unwrap_or(0)
            .max(4);
        let mut out = format!("{:width$}  {:20}  OBJECTS\n", "TYPE", "OUTCOME");
        for ((of, reason), objects) in by_type {
            // Writing into a String cannot fail, here and below.
            let _ = writeln!(out, "{of:width$}  {:20}  {objects}", reason.as_str());
        }
        for problem in self
            .problems
            .iter()
            .filter(|p| p.reason == Reason::DependencyNotReady.as_str() || is_remark(p))
        {
            let _ = writeln!(out, "\n{}: {}", problem.subject, problem.message);
        }
        let mut remarks = self
            .outcomes
            .iter()
            .filter(|outcome| !outcome.message.is_empty())
            .peekable();
        if remarks.peek().is_some() {
            out.push_str("\nREMARKS\n");
        }
        for outcome in remarks {
            let _ = writeln!(
                out,
                "{} ({}): {}",
                self.subject(outcome),
                outcome.reason,
                outcome.message
            );
        }
        out
    }

    /// The report as a document: gzip of JSON lines, the first of them the head.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form, and memory does not fail.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let broken =
            |error: std::io::Error| Error::Internal(format!("cannot write {WHAT}: {error}"));
        let mut out = GzEncoder::new(Vec::new(), Compression::default());
        let head = Head {
            version: REPORT_VERSION,
            snapshot: self.snapshot.clone(),
            plan_digest: self.plan_digest.clone(),
            cancelled: self.cancelled,
            counts: self.counts.clone(),
            types: self.types.clone(),
            problems: self.problems.clone(),
            timings: self.timings.clone(),
            objects: self.outcomes.len(),
        };
        write_line(&mut out, &head).map_err(broken)?;
        for outcome in &self.outcomes {
            let line = Line {
                of: self
                    .types
                    .get(outcome.kind as usize)
                    .cloned()
                    .unwrap_or_default(),
                kind: outcome.kind,
                from: outcome.source.to_string(),
                to: (outcome.target != outcome.source).then(|| outcome.target.to_string()),
                reason: outcome.reason.as_str().to_owned(),
                message: outcome.message.clone(),
            };
            write_line(&mut out, &line).map_err(broken)?;
        }
        out.finish().map_err(broken)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Error::TooNew`] for a newer version, [`Error::Damaged`] for what is no
    /// report, or not a whole one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut lines = BufReader::new(MultiGzDecoder::new(bytes));
        let head: Head = read_line(&mut lines)?.ok_or_else(|| damaged("it is empty"))?;
        if head.version > REPORT_VERSION {
            return Err(Error::TooNew {
                what: WHAT.to_owned(),
                found: head.version,
                known: REPORT_VERSION,
            });
        }
        let mut interner = Interner::default();
        let mut outcomes = Vec::new();
        while let Some(line) = read_line::<Line>(&mut lines)? {
            let source = key(&line.from, &mut interner);
            outcomes.push(Outcome {
                kind: line.kind,
                target: line
                    .to
                    .map_or_else(|| source.clone(), |to| key(&to, &mut interner)),
                source,
                reason: reason(&line.reason)?,
                message: line.message,
            });
        }
        if outcomes.len() != head.objects {
            return Err(damaged("objects are missing"));
        }
        Ok(Self {
            snapshot: head.snapshot,
            plan_digest: head.plan_digest,
            cancelled: head.cancelled,
            counts: head.counts,
            types: head.types,
            outcomes,
            problems: head.problems,
            timings: head.timings,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    version: u32,
    snapshot: String,
    plan_digest: String,
    #[serde(default)]
    cancelled: bool,
    objects: usize,
    counts: RestoreCounts,
    types: Vec<String>,
    #[serde(default)]
    problems: Vec<Problem>,
    #[serde(default)]
    timings: Vec<Timing>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    /// The type's name; for people only.
    #[serde(rename = "type", skip_deserializing)]
    of: String,
    kind: u32,
    from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    reason: String,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    message: Box<str>,
}

/// A message, cut to what a report holds of one object.
pub(crate) fn message(text: &str) -> Box<str> {
    bounded(text, MESSAGE_BYTES_MAX).into()
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn read_line<T: for<'de> Deserialize<'de>>(lines: &mut impl BufRead) -> Result<Option<T>, Error> {
    let mut line = Vec::new();
    let read = lines
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .map_err(|error| damaged(&error.to_string()))?;
    if read == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|error| damaged(&error.to_string()))
}

fn key(text: &str, interner: &mut Interner) -> Key {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    interner.key(namespace, name)
}

fn reason(text: &str) -> Result<Reason, Error> {
    Reason::ALL
        .iter()
        .copied()
        .find(|reason| reason.as_str() == text)
        .ok_or_else(|| damaged(&format!("`{text}` is no reason")))
}

fn damaged(message: &str) -> Error {
    Error::damaged(WHAT, message)
}

/// What a plan says that is as true when it has been carried out.
fn is_remark(problem: &Problem) -> bool {
    problem.reason == Reason::EmptyDirNotRestored.as_str()
}

/// Whether any problem is an error: then the restore is partial.
#[must_use]
pub fn has_errors(problems: &[Problem]) -> bool {
    problems
        .iter()
        .any(|problem| problem.severity == Severity::Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: u32, name: &str, reason: Reason, text: &str) -> Outcome {
        Outcome {
            kind,
            source: Key::new("shop", name),
            target: Key::new("shop-2", name),
            reason,
            message: message(text),
        }
    }

    fn report() -> Report {
        let mut report = Report {
            snapshot: "0".repeat(32),
            plan_digest: "f".repeat(64),
            cancelled: false,
            counts: RestoreCounts {
                planned: 5,
                done: 5,
                created: 2,
                failed: 3,
                ..RestoreCounts::default()
            },
            types: vec!["configmaps".to_owned(), "secrets".to_owned()],
            outcomes: vec![
                outcome(0, "a", Reason::Created, ""),
                outcome(0, "b", Reason::Created, "its owner is not restored"),
                outcome(
                    0,
                    "c",
                    Reason::Refused,
                    "the API server answered 403 Forbidden: exceeded quota",
                ),
                outcome(
                    0,
                    "d",
                    Reason::Refused,
                    "the API server answered 403 Forbidden: exceeded quota",
                ),
                outcome(
                    1,
                    "s",
                    Reason::Refused,
                    "the API server answered 422 Invalid about data[x]",
                ),
            ],
            problems: Vec::new(),
            timings: vec![Timing {
                wave: 3,
                objects: 5,
                millis: 12,
            }],
        };
        report.problems = report.grouped_problems();
        report
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let report = report();
        let bytes = report.to_bytes().unwrap();
        assert_eq!(Report::from_bytes(&bytes).unwrap(), report);
        assert!(Report::from_bytes(&bytes[..bytes.len() / 2]).is_err());
        assert!(Report::from_bytes(b"").is_err());
    }

    #[test]
    fn objects_that_failed_alike_are_one_problem() {
        let report = report();
        let said: Vec<String> = report
            .problems
            .iter()
            .map(|p| format!("{} {}: {}", p.reason, p.subject, p.message))
            .collect();
        assert_eq!(
            said,
            [
                "Refused configmaps shop-2/c: 1 more object of the type like it; the API server answered 403 Forbidden: exceeded quota",
                "Refused secrets shop-2/s: the API server answered 422 Invalid about data[x]",
            ]
        );
        assert_eq!(report.failures().count(), 3);
    }

    #[test]
    fn the_table_counts_and_names_what_there_is_to_say() {
        let table = report().table();
        assert!(
            table.contains("configmaps  Created               2"),
            "{table}"
        );
        assert!(
            table.contains("configmaps shop-2/b (Created): its owner is not restored"),
            "{table}"
        );
    }

    #[test]
    fn messages_are_bounded() {
        assert_eq!(message(&"ä".repeat(2000)).len(), MESSAGE_BYTES_MAX - 1);
    }
}

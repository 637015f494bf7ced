//! What the status of a Restore says. Pure.

use std::collections::BTreeSet;

use lifebuoy_api::{MAX_PROBLEMS, Problem, Reason, RestoreCounts, RestoreVolumes};
use lifebuoy_engine::restore::{Action, Plan, report::Report};

use crate::status::Standing;

/// What a person should know, as far as a status has room; and how much there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted {
    pub(crate) count: i64,
    pub(crate) listed: Vec<Problem>,
}

impl Noted {
    fn add(&mut self, problem: impl FnOnce() -> Problem) {
        self.count += 1;
        if self.listed.len() < MAX_PROBLEMS {
            self.listed.push(problem());
        }
    }
}

/// Of a plan: what is refused, then what it notes. Objects are named as they
/// were captured.
pub(crate) fn noted(plan: &Plan) -> Noted {
    let mut noted = Noted::default();
    for entry in &plan.entries {
        if let Action::Refuse { reason, message } = &entry.action {
            noted.add(|| Problem::error(*reason, plan.subject(entry), message));
        }
    }
    for problem in &plan.problems {
        noted.add(|| problem.clone());
    }
    noted
}

/// Of a report: each object that is missing, then what else it says.
pub(crate) fn reported(report: &Report) -> Noted {
    let mut noted = Noted::default();
    let of = |kind: u32| report.types.get(kind as usize).map_or("", String::as_str);
    let mut named = BTreeSet::new();
    for outcome in report.failures() {
        let subject = format!("{} {}", of(outcome.kind), outcome.source);
        noted.add(|| Problem::error(outcome.reason, subject, &outcome.message));
        named.insert(outcome.reason.as_str());
    }
    // The report groups the same objects by type and reason.
    let others = report
        .problems
        .iter()
        .filter(|problem| !named.contains(problem.reason.as_str()));
    for problem in others {
        noted.add(|| problem.clone());
    }
    noted
}

/// How a restore ended that ran to its end. Withheld objects are missing too:
/// the request asked for them, and they are not there.
pub(crate) fn verdict(
    counts: &RestoreCounts,
    volumes: Option<&RestoreVolumes>,
    errors: usize,
) -> Standing {
    let RestoreCounts {
        created,
        merged,
        replaced,
        skipped,
        withheld,
        failed,
        ..
    } = *counts;
    let mut text = format!("{created} objects were created");
    for (count, what) in [
        (merged, "merged"),
        (replaced, "replaced"),
        (skipped, "left alone because they exist"),
        (
            withheld,
            "withheld because the data of their volumes was not saved",
        ),
        (failed, "not restored"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    if let Some(RestoreVolumes {
        done,
        overwritten,
        waiting,
        ..
    }) = volumes
    {
        let filled = done - overwritten;
        text.push_str(&format!(", {filled} volumes were filled"));
        if *overwritten > 0 {
            text.push_str(&format!(", {overwritten} were overwritten"));
        }
        if *waiting > 0 {
            text.push_str(&format!(", {waiting} are filled when a pod mounts them"));
        }
    }
    let missing = failed > 0 || errors > 0 || withheld > 0;
    if missing {
        Standing::Failed(
            Reason::Partial,
            format!("{text}; the report names each of them"),
        )
    } else {
        Standing::Complete(Reason::Succeeded, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_partial_is_called_complete() {
        let counts = |failed, withheld| RestoreCounts {
            created: 10,
            failed,
            withheld,
            ..RestoreCounts::default()
        };
        for (counts, errors, complete) in [
            (counts(0, 0), 0, true),
            (counts(1, 0), 0, false),
            (counts(0, 1), 0, false),
            (counts(0, 0), 1, false),
        ] {
            let standing = verdict(&counts, None, errors);
            assert_eq!(
                matches!(standing, Standing::Complete(..)),
                complete,
                "{standing:?}"
            );
        }
    }
}

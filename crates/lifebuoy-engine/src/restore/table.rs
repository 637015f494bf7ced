//! A plan for people, as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use lifebuoy_api::Severity;

use super::{Action, Entry, Plan};
use crate::volumes::Size;

/// What each wave is there for.
const WAVES: [&str; 11] = [
    "definitions",
    "namespaces",
    "classes and cluster roles",
    "accounts, configuration and policies of namespaces",
    "volumes and claims",
    "services",
    "workloads that others are checked by",
    "custom resources",
    "workloads",
    "what acts on workloads",
    "webhooks, policies and extension APIs",
];

/// At most this many lines of refusals, and of notes, are printed.
const MAX_LINES: usize = 50;

impl Plan {
    /// The plan as text: counts by wave, type and action, then everything that
    /// is not simply done, and what a person should know.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        self.write_counts(&mut out);
        self.write_list(&mut out, "OVERWRITTEN", |entry| {
            (entry.action == Action::Overwrite).then(|| entry.notes.join("; "))
        });
        self.write_list(&mut out, "Refused", |entry| match &entry.action {
            Action::Refuse { reason, message } => Some(format!("{reason}: {message}")),
            _ => None,
        });
        self.write_list(&mut out, "Withheld", |entry| match &entry.action {
            Action::Withhold { reason, message } => Some(format!("{reason}: {message}")),
            _ => None,
        });
        self.write_data(&mut out);
        self.write_left_out(&mut out);
        self.write_list(&mut out, "Notes", |entry| {
            let said = entry.action == Action::Overwrite;
            (!said && !entry.notes.is_empty()).then(|| entry.notes.join("; "))
        });
        self.write_problems(&mut out);
        let summary = self.summary();
        line(
            &mut out,
            &format!(
                "\n{} objects: {} to create, {} to merge, {} to replace, {} to leave alone, {} withheld, {} refused{}{}",
                summary.objects,
                summary.create,
                summary.merge,
                summary.replace,
                summary.skip,
                summary.withhold,
                summary.refuse,
                match summary.overwrite {
                    0 => String::new(),
                    claims => format!(", {claims} whose volumes are overwritten"),
                },
                match summary.resume {
                    0 => String::new(),
                    done => format!(", {done} done already"),
                },
            ),
        );
        if summary.volumes > 0 {
            let bytes = Size(summary.volume_bytes);
            let volumes = summary.volumes;
            line(
                &mut out,
                &format!("{volumes} volumes are filled with {bytes}"),
            );
        }
        if summary.overwrite > 0 {
            let (volumes, bytes) = (summary.overwrite, Size(summary.overwrite_bytes));
            line(
                &mut out,
                &format!("{volumes} volumes that are there are OVERWRITTEN with {bytes}"),
            );
        }
        line(&mut out, &format!("digest {}", self.digest));
        out
    }

    fn write_counts(&self, out: &mut String) {
        // Types in the order in which they are first applied.
        let mut order: Vec<(u8, u32)> = Vec::new();
        let mut counts: BTreeMap<(u8, u32), BTreeMap<&str, u64>> = BTreeMap::new();
        for entry in &self.entries {
            let at = (entry.wave, entry.kind);
            let actions = counts.entry(at).or_insert_with(|| {
                order.push(at);
                BTreeMap::new()
            });
            *actions.entry(entry.action.as_str()).or_default() += 1;
        }
        let names: Vec<String> = self.types.iter().map(|of| of.id.to_string()).collect();
        let width = order
            .iter()
            .map(|(_, kind)| names[*kind as usize].len())
            .max()
            .unwrap_or(0);
        let mut last = None;
        for at in order {
            if last != Some(at.0) {
                let what = WAVES.get(usize::from(at.0)).copied().unwrap_or_default();
                line(out, &format!("wave {}: {what}", at.0));
                last = Some(at.0);
            }
            let actions: Vec<String> = counts[&at]
                .iter()
                .map(|(action, objects)| format!("{action} {objects}"))
                .collect();
            line(
                out,
                &format!("  {:width$}  {}", names[at.1 as usize], actions.join(", ")),
            );
        }
    }

    fn write_list(&self, out: &mut String, title: &str, say: impl Fn(&Entry) -> Option<String>) {
        let mut said = self
            .entries
            .iter()
            .filter_map(|entry| say(entry).map(|text| (entry, text)))
            .peekable();
        if said.peek().is_none() {
            return;
        }
        line(out, &format!("\n{title}:"));
        for (entry, text) in said.by_ref().take(MAX_LINES) {
            let to = if entry.source == entry.target {
                String::new()
            } else {
                format!(" → {}", entry.target)
            };
            line(out, &format!("  {}{to}: {text}", self.subject(entry)));
        }
        let more = said.count();
        if more > 0 {
            line(out, &format!("  and {more} more"));
        }
    }

    fn write_data(&self, out: &mut String) {
        self.write_list(out, "Data from the repository", |entry| {
            let fills = matches!(
                entry.action,
                Action::Create | Action::Replace | Action::Resume
            );
            let bytes = entry.fills.filter(|_| fills)?;
            Some(Size(bytes).to_string())
        });
    }

    fn write_left_out(&self, out: &mut String) {
        if self.left_out.is_empty() {
            return;
        }
        line(out, "\nLeft out:");
        for left in &self.left_out {
            let more = left.objects.saturating_sub(left.examples.len() as u64);
            let more = if more == 0 {
                String::new()
            } else {
                format!(" and {more} more")
            };
            line(
                out,
                &format!(
                    "  {} {}{more}: {}",
                    left.of,
                    left.examples.join(", "),
                    left.why
                ),
            );
        }
    }

    fn write_problems(&self, out: &mut String) {
        if self.problems.is_empty() {
            return;
        }
        line(out, "\nProblems:");
        for problem in &self.problems {
            let severity = match problem.severity {
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            line(
                out,
                &format!("  {severity}: {}: {}", problem.subject, problem.message),
            );
        }
    }
}

fn line(out: &mut String, text: &str) {
    // Writing into a string does not fail.
    let _ = writeln!(out, "{text}");
}

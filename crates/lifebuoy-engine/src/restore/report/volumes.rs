//! What a report says of the data of volumes, which comes after the objects.

use std::collections::BTreeMap;

use lifebuoy_api::{MAX_PROBLEMS, Problem, Reason};

use super::{Outcome, Report, message};
use crate::restore::Key;

/// What became of the data of one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeEnd {
    /// The claim is bound to a volume with its data.
    Filled,
    /// The data on the volume of the claim, which exists, was replaced by its own.
    Overwritten,
    /// It is filled when a pod asks for it.
    Waits,
    /// It was not filled, or not with everything.
    Failed(Reason, String),
    /// The restore was cancelled before it was filled.
    Cancelled,
}

const WAITS: &str = "its class waits for the first pod: its data comes when one mounts it";
const OVERWRITTEN: &str = "it exists, and the data on its volume was replaced by the saved data";
const STAYS: &str = "it exists, and what is on its volume stays: the saved data is not restored";

impl Report {
    /// Whether a claim of the target was created by this restore.
    #[must_use]
    pub fn created_claims(&self) -> Vec<Key> {
        let claims = self.outcomes.iter().filter(|outcome| {
            matches!(outcome.reason, Reason::Created | Reason::Replaced) && self.is_claim(outcome)
        });
        claims.map(|outcome| outcome.target.clone()).collect()
    }

    fn is_claim(&self, outcome: &Outcome) -> bool {
        let of = self.types.get(outcome.kind as usize);
        of.is_some_and(|of| of == "persistentvolumeclaims")
    }

    /// Takes in what became of the data of claims, by their names in the target.
    pub fn add_volumes(&mut self, ended: &BTreeMap<Key, VolumeEnd>) {
        let mut problems = Vec::new();
        for at in 0..self.outcomes.len() {
            let outcome = &self.outcomes[at];
            if !self.is_claim(outcome) {
                continue;
            }
            let Some(end) = ended.get(&outcome.target) else {
                continue;
            };
            let subject = self.subject(outcome);
            let there = matches!(outcome.reason, Reason::Created | Reason::Replaced);
            problems.extend(self.add_volume(at, there, end, &subject));
        }
        self.add_problems(problems);
    }

    /// Takes in what became of the volumes of claims that exist, by their names in the target.
    pub fn add_overwritten(&mut self, ended: &BTreeMap<Key, VolumeEnd>) {
        let mut problems = Vec::new();
        for at in 0..self.outcomes.len() {
            let outcome = &self.outcomes[at];
            if let Some(end) = ended
                .get(&outcome.target)
                .filter(|_| self.is_claim(outcome))
            {
                let subject = self.subject(outcome);
                problems.extend(self.add_one_overwritten(at, end, &subject));
            }
        }
        self.add_problems(problems);
    }

    fn add_one_overwritten(
        &mut self,
        at: usize,
        end: &VolumeEnd,
        subject: &str,
    ) -> Option<Problem> {
        let outcome = self.outcomes.get_mut(at)?;
        match end {
            VolumeEnd::Overwritten => {
                outcome.reason = Reason::Overwritten;
                outcome.message = message(OVERWRITTEN);
                None
            }
            VolumeEnd::Failed(reason, words) => {
                self.counts.skipped -= 1;
                self.counts.failed += 1;
                outcome.reason = *reason;
                outcome.message = message(words);
                Some(Problem::error(*reason, subject, words))
            }
            VolumeEnd::Cancelled | VolumeEnd::Filled | VolumeEnd::Waits => {
                self.cancelled = true;
                let words = "the restore was cancelled before its volume was overwritten";
                outcome.message = message(words);
                None
            }
        }
    }

    fn add_problems(&mut self, mut problems: Vec<Problem>) {
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        problems.truncate(MAX_PROBLEMS);
        self.problems.extend(problems);
    }

    fn add_volume(
        &mut self,
        at: usize,
        created: bool,
        end: &VolumeEnd,
        subject: &str,
    ) -> Option<Problem> {
        let outcome = self.outcomes.get_mut(at)?;
        if !created {
            let stays = matches!(outcome.reason, Reason::SkippedExisting | Reason::Merged);
            return stays.then(|| {
                outcome.message = joined(&outcome.message, STAYS);
                Problem::warning(outcome.reason, subject, STAYS)
            });
        }
        match end {
            VolumeEnd::Filled | VolumeEnd::Overwritten => None,
            VolumeEnd::Waits => {
                outcome.message = joined(&outcome.message, WAITS);
                Some(Problem::warning(Reason::WaitingForPod, subject, WAITS))
            }
            VolumeEnd::Cancelled => {
                self.cancelled = true;
                let words = "the restore was cancelled before it was filled";
                outcome.message = joined(&outcome.message, words);
                None
            }
            VolumeEnd::Failed(reason, words) => {
                if outcome.reason == Reason::Created {
                    self.counts.created -= 1;
                } else {
                    self.counts.replaced -= 1;
                }
                self.counts.failed += 1;
                outcome.reason = *reason;
                outcome.message = message(words);
                Some(Problem::error(*reason, subject, words))
            }
        }
    }
}

fn joined(before: &str, words: &str) -> Box<str> {
    if before.is_empty() {
        message(words)
    } else {
        message(&format!("{before}; {words}"))
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::{RestoreCounts, Severity};

    use super::*;

    fn report(reasons: &[Reason]) -> Report {
        let outcomes = reasons.iter().enumerate().map(|(at, reason)| Outcome {
            kind: 1,
            source: Key::new("shop", &at.to_string()),
            target: Key::new("store", &at.to_string()),
            reason: *reason,
            message: "".into(),
        });
        Report {
            snapshot: String::new(),
            plan_digest: String::new(),
            cancelled: false,
            counts: RestoreCounts {
                created: 4,
                ..RestoreCounts::default()
            },
            types: vec!["configmaps".to_owned(), "persistentvolumeclaims".to_owned()],
            outcomes: outcomes.collect(),
            problems: Vec::new(),
            timings: Vec::new(),
        }
    }

    #[test]
    fn a_claim_without_its_data_is_not_called_created() {
        let mut report = report(&[
            Reason::Created,
            Reason::Created,
            Reason::Created,
            Reason::SkippedExisting,
            Reason::Refused,
        ]);
        assert_eq!(report.created_claims().len(), 3);
        let failed = VolumeEnd::Failed(Reason::VolumeNotFilled, "no room".to_owned());
        let ended = [
            VolumeEnd::Filled,
            VolumeEnd::Waits,
            failed.clone(),
            failed.clone(),
            failed,
        ];
        let ended = ended.into_iter().enumerate();
        report.add_volumes(
            &ended
                .map(|(at, end)| (Key::new("store", &at.to_string()), end))
                .collect(),
        );
        let said: Vec<String> = report
            .outcomes
            .iter()
            .map(|outcome| format!("{} {}", outcome.reason, outcome.message))
            .collect();
        insta::assert_snapshot!(said.join("\n"), @"
        Created 
        Created its class waits for the first pod: its data comes when one mounts it
        VolumeNotFilled no room
        SkippedExisting it exists, and what is on its volume stays: the saved data is not restored
        Refused 
        ");
        assert_eq!((report.counts.created, report.counts.failed), (3, 1));
        let errors = report
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Error);
        assert_eq!((errors.count(), report.problems.len()), (1, 3));
    }

    #[test]
    fn a_volume_that_was_not_overwritten_is_a_failure() {
        let mut report = report(&[Reason::SkippedExisting; 3]);
        report.counts.skipped = 3;
        let failed = VolumeEnd::Failed(Reason::VolumeInUse, "the pod `x` mounts it".to_owned());
        let ended = [VolumeEnd::Overwritten, failed, VolumeEnd::Cancelled];
        let key = |at: usize| Key::new("store", &at.to_string());
        let ended = ended.into_iter().enumerate();
        report.add_overwritten(&ended.map(|(at, end)| (key(at), end)).collect());
        let reasons = report.outcomes.iter().map(|outcome| outcome.reason);
        assert_eq!(
            reasons.collect::<Vec<_>>(),
            [
                Reason::Overwritten,
                Reason::VolumeInUse,
                Reason::SkippedExisting
            ]
        );
        assert_eq!((report.counts.skipped, report.counts.failed), (2, 1));
        assert_eq!(report.failures().count(), 1);
        assert!(report.cancelled);
    }
}

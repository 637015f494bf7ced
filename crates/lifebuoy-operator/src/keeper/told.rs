//! What rounds of care found, in the words of the status. Pure.

use chrono::{DateTime, Utc};
use lifebuoy_api::{
    ConditionType, Reason, RepositoryCheck, RepositoryCollection, RepositoryStatus,
    RepositoryStorage, bounded, condition, time::to_kube, upsert,
};
use lifebuoy_repo::{Error as RepoError, Operation};

const MESSAGE_BYTES_MAX: usize = 1024;

/// What is told of the care of one repository. What is missing stays as it is in
/// the status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) keeper: Option<String>,
    pub(crate) storage: Option<RepositoryStorage>,
    pub(crate) collection: Option<RepositoryCollection>,
    pub(crate) check: Option<RepositoryCheck>,
    /// Whether another cluster cares.
    pub(super) elsewhere: bool,
}

impl Told {
    /// Another cluster keeps the repository.
    pub(super) fn kept_by(keeper: Option<String>) -> Self {
        Self {
            keeper,
            elsewhere: true,
            ..Self::default()
        }
    }

    /// This cluster cannot keep the repository.
    pub(super) fn refused(error: &RepoError, now: DateTime<Utc>) -> Self {
        Self {
            collection: Some(RepositoryCollection {
                time: to_kube(now),
                generation: None,
                outcome: reason_of(error).as_str().to_owned(),
                message: message_of(error),
                deleted_bytes: 0,
                deleted_objects: 0,
                snapshots_forgotten: 0,
                duration_seconds: 0,
            }),
            ..Self::default()
        }
    }

    /// One line for the log.
    pub(super) fn summary(&self) -> String {
        let collected = self.collection.as_ref().map(|c| &*c.message);
        let checked = self.check.as_ref().map(|c| &*c.message);
        let told: Vec<&str> = [collected, checked].into_iter().flatten().collect();
        told.join("; ")
    }

    pub(super) fn add_to(
        &self,
        status: &mut RepositoryStatus,
        generation: Option<i64>,
        now: DateTime<Utc>,
    ) {
        let Self {
            keeper,
            storage,
            collection,
            check,
            elsewhere,
        } = self;
        if keeper.is_some() {
            status.keeper.clone_from(keeper);
        }
        if storage.is_some() {
            status.storage.clone_from(storage);
        }
        if collection.is_some() {
            status.last_collection.clone_from(collection);
        }
        if check.is_some() {
            status.last_check.clone_from(check);
        }
        let (is, reason, message) = match collection {
            _ if *elsewhere => (
                true,
                Reason::NotKeeper,
                "another cluster keeps the repository".to_owned(),
            ),
            None => return,
            Some(collection) => {
                let reason = Reason::ALL
                    .iter()
                    .find(|reason| reason.as_str() == collection.outcome);
                let reason = reason.copied().unwrap_or(Reason::CollectionFailed);
                let good = matches!(reason, Reason::Collected | Reason::Reported);
                (good, reason, collection.message.clone())
            }
        };
        let message = bounded(&message, MESSAGE_BYTES_MAX);
        let kind = ConditionType::Maintained;
        upsert(
            &mut status.conditions,
            condition(kind, is, reason, message, generation, now),
        );
    }
}

/// The word for why a round stopped.
pub(super) fn reason_of(error: &RepoError) -> Reason {
    match error {
        RepoError::Refused { .. } | RepoError::Vanished { .. } => Reason::CollectionRefused,
        RepoError::UpgradeNeeded { .. } => Reason::UpgradeNeeded,
        // A writer's credentials fail at the keeper's own records already.
        RepoError::Denied {
            operation: Operation::Write | Operation::Delete,
            ..
        } => Reason::DeleteDenied,
        _ => Reason::CollectionFailed,
    }
}

pub(super) fn message_of(error: &RepoError) -> String {
    let message = crate::error::sentence(error, error.hint());
    bounded(&message, MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_before_stays_and_the_condition_says_how_it_is() {
        let now = DateTime::UNIX_EPOCH;
        let mut status = RepositoryStatus {
            keeper: Some("frankfurt".to_owned()),
            ..RepositoryStatus::default()
        };
        let refused = RepoError::Refused {
            reason: "too much would go".to_owned(),
        };
        Told::refused(&refused, now).add_to(&mut status, Some(1), now);
        assert_eq!(status.keeper.as_deref(), Some("frankfurt"));
        let told = |status: &RepositoryStatus| {
            let maintained = status.conditions.iter().find(|c| c.type_ == "Maintained");
            let maintained = maintained.cloned();
            maintained.map(|c| format!("{} {}", c.status, c.reason))
        };
        assert_eq!(told(&status).as_deref(), Some("False CollectionRefused"));
        Told::kept_by(None).add_to(&mut status, Some(1), now);
        assert_eq!(told(&status).as_deref(), Some("True NotKeeper"));
        assert!(status.last_collection.is_some());
    }
}

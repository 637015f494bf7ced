//! What can go wrong in the engine: one enum, each variant says what failed and
//! on what. Advice is in [`Error::hint`], the machine-readable word in
//! [`Error::reason`].

use lifebuoy_api::Reason;

/// Why a capture, a read of an archive, or a restore failed as a whole.
/// What concerns one type or one object is a
/// [`Problem`](lifebuoy_api::Problem) instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository could not do what was asked of it.
    #[error(transparent)]
    Repo(#[from] lifebuoy_repo::Error),

    /// A request to the API server failed.
    #[error("cannot {what}")]
    Kube {
        /// What was to be done, as in "list the served types".
        what: String,
        /// The client's own words.
        #[source]
        source: Box<kube::Error>,
    },

    /// The API server answered with an error.
    #[error("cannot {what}: {message}")]
    Api {
        /// What was to be done, as in "list namespaces".
        what: String,
        /// The server's own words, bounded.
        message: String,
    },

    /// A field of a spec does not parse.
    #[error("{path}: {message}")]
    InvalidField {
        /// The path of the field, such as `spec.selection.namespaces[2]`.
        path: String,
        /// What is wrong with it, and the way out.
        message: String,
    },

    /// The work was cancelled before it ended.
    #[error("cancelled")]
    Cancelled,

    /// No recovery point fits the request.
    #[error("there is no complete recovery point of cluster `{cluster}`{}", of_schedule(.schedule.as_deref()))]
    NoPoint {
        /// The cluster's name.
        cluster: String,
        /// The schedule, if one was named.
        schedule: Option<String>,
    },

    /// Several clusters in the repository carry the name that was asked for.
    #[error("{} clusters in the repository are named `{cluster}`: {}", .uids.len(), .uids.join(", "))]
    AmbiguousCluster {
        /// The cluster's name.
        cluster: String,
        /// The uids of their `kube-system` namespaces.
        uids: Vec<String>,
    },

    /// Something in the repository was written by a newer version.
    #[error("{what} is of version {found}; this program reads up to version {known}")]
    TooNew {
        /// What it is, as in "the manifest of snapshot …".
        what: String,
        /// The version that was found.
        found: u32,
        /// The newest version that is understood.
        known: u32,
    },

    /// Something in the repository opened, but makes no sense.
    #[error("{what} is damaged: {message}")]
    Damaged {
        /// What it is.
        what: String,
        /// What is wrong with it.
        message: String,
    },

    /// A plan says of itself that nothing of it may be carried out.
    #[error("nothing was restored: {message}")]
    PlanRefused {
        /// What stands against it, and the way out.
        message: String,
    },

    /// A part of the engine came to a state that its own rules exclude.
    #[error("internal error: {0}")]
    Internal(String),
}

fn of_schedule(schedule: Option<&str>) -> String {
    schedule.map_or_else(String::new, |name| format!(" and schedule `{name}`"))
}

impl Error {
    /// A failed request of a `kube` client; `what` completes "cannot …".
    pub fn kube(what: impl Into<String>, source: kube::Error) -> Self {
        Self::Kube {
            what: what.into(),
            source: Box::new(source),
        }
    }

    /// A field that does not parse.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidField {
            path: path.into(),
            message: message.into(),
        }
    }

    /// Something that opened and makes no sense.
    pub fn damaged(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Damaged {
            what: what.into(),
            message: message.into(),
        }
    }

    /// What a person can do about it, as one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Repo(error) => error.hint().map(Into::into),
            Self::Kube { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 401 || status.code == 403 => Some(
                    "check that the account may do this: `kubectl auth can-i --list --as …`"
                        .to_owned(),
                ),
                _ => Some("check that the API server can be reached".to_owned()),
            },
            Self::NoPoint { .. } => Some(
                "`lifebuoy recoverypoint list` shows what the repository holds, partial points included"
                    .to_owned(),
            ),
            Self::AmbiguousCluster { .. } => {
                Some("name the snapshot instead of the cluster".to_owned())
            }
            Self::TooNew { .. } => Some("update lifebuoy".to_owned()),
            Self::Damaged { .. } => {
                Some("take another recovery point, and check the repository".to_owned())
            }
            Self::Api { .. }
            | Self::InvalidField { .. }
            | Self::Cancelled
            | Self::PlanRefused { .. }
            | Self::Internal(_) => None,
        }
    }

    /// The word for conditions, Events and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Repo(error) => repo_reason(error),
            Self::InvalidField { .. } => Reason::InvalidSpec,
            Self::Cancelled => Reason::Cancelled,
            Self::PlanRefused { .. } => Reason::PlanRefused,
            Self::NoPoint { .. } | Self::AmbiguousCluster { .. } => Reason::RecoveryPointNotFound,
            Self::TooNew { .. } => Reason::RecoveryPointTooNew,
            Self::Damaged { .. } => Reason::RepositoryDamaged,
            Self::Kube { .. } | Self::Api { .. } | Self::Internal(_) => Reason::InternalError,
        }
    }
}

fn repo_reason(error: &lifebuoy_repo::Error) -> Reason {
    use lifebuoy_repo::{Error as Repo, Operation};
    match error {
        Repo::Location { .. } | Repo::EmptyPassphrase => Reason::InvalidSpec,
        Repo::Denied { operation, .. } => match operation {
            Operation::List => Reason::ListDenied,
            Operation::Write => Reason::ReadOnlyCredentials,
            Operation::Delete => Reason::DeleteDenied,
            Operation::Read => Reason::AccessDenied,
        },
        Repo::Unauthenticated { .. } | Repo::Archived { .. } => Reason::AccessDenied,
        Repo::BucketMissing { .. } => Reason::BucketNotFound,
        Repo::Unreachable { .. } | Repo::Throttled { .. } | Repo::Store { .. } => {
            Reason::StoreUnreachable
        }
        Repo::Full { .. } => Reason::StoreFull,
        Repo::NotInitialized => Reason::NotInitialized,
        Repo::Foreign { .. } => Reason::ForeignBucket,
        Repo::WrongPassphrase => Reason::WrongPassphrase,
        Repo::NewerFormat { .. } | Repo::UnknownFeatures { .. } => Reason::FormatTooNew,
        Repo::ReadOnly { .. } => Reason::RepositoryNotReady,
        Repo::UpgradeNeeded { .. } => Reason::UpgradeNeeded,
        Repo::Refused { .. } => Reason::CollectionRefused,
        Repo::Missing { .. }
        | Repo::Corrupt { .. }
        | Repo::Vanished { .. }
        | Repo::ChunkMissing { .. }
        | Repo::Node { .. } => Reason::RepositoryDamaged,
        Repo::Fenced { .. } => Reason::Interrupted,
        Repo::NotFound { .. } => Reason::RecoveryPointNotFound,
        Repo::Forgotten { .. } => Reason::RecoveryPointForgotten,
        Repo::NeverEnded { .. } => Reason::RecoveryPointNeverEnded,
        _ => Reason::InternalError,
    }
}

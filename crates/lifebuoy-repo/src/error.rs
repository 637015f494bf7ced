//! What can go wrong with a repository, each with a way out. Messages never
//! hold credentials, URLs with queries, or contents.

use crate::{
    ids::{ChunkId, SessionId},
    store::{Cause, Operation},
    wire::Damage,
};

/// An error of the repository. [`Error::hint`] says what a person can do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A part of the location or of the credentials is invalid.
    #[error("{field}: {problem}")]
    Location {
        /// The field as it is spelled in a Repository.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The passphrase is empty.
    #[error("the passphrase is empty")]
    EmptyPassphrase,

    /// The store refuses an operation to these credentials.
    #[error("the credentials are not permitted to {operation} {key:?}")]
    Denied {
        /// What was refused.
        operation: Operation,
        /// The object or prefix, relative to the repository.
        key: String,
        /// The store's answer.
        #[source]
        source: Cause,
    },
    /// The store does not accept the credentials at all.
    #[error("the store does not accept the credentials")]
    Unauthenticated {
        /// The store's answer.
        #[source]
        source: Cause,
    },
    /// The bucket or directory does not exist (any more).
    #[error("the bucket or directory does not exist")]
    BucketMissing {
        /// The store's answer.
        #[source]
        source: Cause,
    },
    /// No connection to the store, or no answer in time.
    #[error("the store cannot be reached to {operation} {key:?}")]
    Unreachable {
        /// What was tried.
        operation: Operation,
        /// The object or prefix, relative to the repository.
        key: String,
        /// What the connection said.
        #[source]
        source: Cause,
    },
    /// The store asks to slow down, for longer than we retry.
    #[error("the store is overloaded and refused to {operation} {key:?}")]
    Throttled {
        /// What was tried.
        operation: Operation,
        /// The object or prefix, relative to the repository.
        key: String,
        /// The store's answer.
        #[source]
        source: Cause,
    },
    /// No space left, or a quota is used up.
    #[error("the store is full: {key:?} was not written")]
    Full {
        /// The object, relative to the repository.
        key: String,
        /// The store's answer.
        #[source]
        source: Cause,
    },
    /// An object that must be there is not.
    #[error("{key:?} is missing from the repository")]
    Missing {
        /// The object, relative to the repository.
        key: String,
    },
    /// The store has moved an object to where it cannot be read at once.
    #[error("{key:?} was moved to an archive class, from which it cannot be read")]
    Archived {
        /// The object, relative to the repository.
        key: String,
    },
    /// Any other failure of the store.
    #[error("the store failed to {operation} {key:?}")]
    Store {
        /// What was tried.
        operation: Operation,
        /// The object or prefix, relative to the repository.
        key: String,
        /// The store's answer.
        #[source]
        source: Cause,
    },
    /// Another object is where a new one was to be created.
    #[error("{key:?} exists already with other contents")]
    Occupied {
        /// The object, relative to the repository.
        key: String,
    },

    /// There is no repository at this location.
    #[error("there is no repository here: the location is empty")]
    NotInitialized,
    /// There is a repository at this location already.
    #[error("there is a repository here already")]
    AlreadyInitialized,
    /// The location holds objects, but no repository.
    #[error("the location holds other objects (such as {example:?}) and no repository")]
    Foreign {
        /// The key of one of them.
        example: String,
    },
    /// No key slot opens with this passphrase.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The repository has a newer format than this program knows.
    #[error("the repository has format {found}; this program knows {known}")]
    NewerFormat {
        /// The format of the repository.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// The repository uses features that one must know to read it.
    #[error("the repository uses features unknown to this program (bits {bits:#x})")]
    UnknownFeatures {
        /// The unknown bits.
        bits: u64,
    },
    /// The repository may be read but not written.
    #[error("the repository is read-only for this program: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// The format of the repository is too old for what is asked.
    #[error("the repository has format {found}; {what} needs {needed}")]
    UpgradeNeeded {
        /// What was asked for.
        what: &'static str,
        /// The format of the repository.
        found: u32,
        /// The format that is needed.
        needed: u32,
    },
    /// A collection was refused before it deleted anything.
    #[error("nothing was deleted: {reason}")]
    Refused {
        /// What does not fit.
        reason: String,
    },
    /// An object is damaged or forged.
    #[error("{key:?} is damaged: {damage}")]
    Corrupt {
        /// The object, relative to the repository.
        key: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Objects that were there before are gone, though nothing deletes here.
    #[error("{count} objects that were in the repository are gone (such as {example:?})")]
    Vanished {
        /// How many.
        count: usize,
        /// The key of one of them.
        example: String,
    },

    /// A session with this id was begun before.
    #[error("session {session} was begun before")]
    SessionExists {
        /// The session.
        session: SessionId,
    },
    /// Somebody ended this session before it could commit.
    #[error("session {session} was fenced: it can commit nothing any more")]
    Fenced {
        /// The session.
        session: SessionId,
    },
    /// A collection began while the session did; its id is used up.
    #[error("a garbage collection began at the same moment as session {session}")]
    Outdated {
        /// The session.
        session: SessionId,
    },
    /// There is no snapshot of this session, and never was a session.
    #[error("there is no snapshot {session} in this repository")]
    NotFound {
        /// The session.
        session: SessionId,
    },
    /// The snapshot was forgotten.
    #[error("snapshot {session} was forgotten")]
    Forgotten {
        /// The session.
        session: SessionId,
    },
    /// The session began and did not commit.
    #[error("session {session} {}", if *.fenced { "was given up: it committed nothing" } else { "has not ended yet" })]
    NeverEnded {
        /// The session.
        session: SessionId,
        /// True if it can never commit any more.
        fenced: bool,
    },
    /// A chunk that leads to others makes no sense.
    #[error("chunk {chunk} makes no sense: {what}")]
    Node {
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong with it.
        what: String,
    },
    /// A chunk that no committed session holds.
    #[error("chunk {chunk} is not in the repository{}", if *.incomplete == 0 { String::new() } else { format!("; the index of {incomplete} sessions is missing or unreadable") })]
    ChunkMissing {
        /// The chunk.
        chunk: ChunkId,
        /// Committed sessions whose index is not there or cannot be read.
        incomplete: usize,
    },
    /// More than fits: a chunk, a label, a summary, a session.
    #[error("{what} is {actual} bytes or items long, at most {limit} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        actual: usize,
        /// How large it may be.
        limit: usize,
    },
    /// An internal step failed; nothing was committed.
    #[error("{what} failed")]
    Internal {
        /// The step.
        what: &'static str,
    },
}

impl Error {
    pub(crate) fn corrupt(key: &str, damage: Damage) -> Self {
        Self::Corrupt {
            key: key.to_owned(),
            damage,
        }
    }

    /// True if the same call may succeed later with nothing changed by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Throttled { .. }
                | Self::Store { .. }
                | Self::Outdated { .. }
        )
    }

    /// True if only what was asked for cannot be read: it is missing, damaged or out of
    /// reach by itself, and the rest of the repository may be as it should.
    #[must_use]
    pub fn is_of_one_object(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::Archived { .. }
                | Self::Corrupt { .. }
                | Self::Node { .. }
                | Self::ChunkMissing { .. }
                | Self::TooLarge { .. }
        )
    }

    /// What a person can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Location { .. } => {
                "correct the field; locations look like s3://bucket/prefix, gs://bucket/prefix, \
                 az://container/prefix or file:///directory"
            }
            Self::EmptyPassphrase => "give the passphrase that the repository was made with",
            Self::Denied { operation, .. } => match operation {
                Operation::List => "grant the credentials listing on the bucket below the prefix",
                Operation::Read => "grant the credentials reading of objects below the prefix",
                Operation::Delete => {
                    "give the keeper of the repository a credential that may delete; see \
                     docs/credentials.md"
                }
                Operation::Write => {
                    "grant the credentials creation of objects below the prefix, \
                     or use this repository for restoring only"
                }
            },
            Self::Unauthenticated { .. } => {
                "check the access key, the secret key and the clock of this machine"
            }
            Self::BucketMissing { .. } => {
                "check the URL, or create the bucket or directory; a directory may be a file \
                 system that is not mounted"
            }
            Self::Unreachable { .. } => "check the endpoint, the proxy, the CA and the network",
            Self::Throttled { .. } => "try again later, or raise the request limits of the store",
            Self::Full { .. } => "make room or raise the quota; nothing was committed",
            Self::Missing { .. } | Self::Vanished { .. } => {
                "check the URL and prefix, and whether somebody or a lifecycle rule deletes \
                 objects; if the bucket is versioned, restore the deleted versions"
            }
            Self::Archived { .. } => {
                "bring the objects below the prefix back to a class that can be read at once, and \
                 keep lifecycle rules away from them"
            }
            Self::Store { .. } => "try again; if it persists, look into the logs of the store",
            Self::Occupied { .. } => {
                "this should not happen: the store may break create-if-absent; run a probe"
            }
            Self::NotInitialized => "check the URL and prefix, or run `lifebuoy repo init`",
            Self::AlreadyInitialized => "use the repository as it is, or choose another prefix",
            Self::Foreign { .. } => "choose a prefix of its own for the repository",
            Self::WrongPassphrase => {
                "give the passphrase that the repository was made with; without it the data \
                 cannot be read by anybody"
            }
            Self::NewerFormat { .. } | Self::UnknownFeatures { .. } => {
                "use a newer lifebuoy for this repository"
            }
            Self::ReadOnly { .. } => "restore works; to write, use a newer lifebuoy",
            Self::UpgradeNeeded { .. } => {
                "when every cluster runs a lifebuoy that knows the newer format, run \
                 `lifebuoy repo upgrade`"
            }
            Self::Refused { .. } => {
                "run `lifebuoy repo check`; if what would go is really meant to go, raise the \
                 limit that is named"
            }
            Self::Corrupt { .. } => {
                "restore the object from a replica or an older version of it; other snapshots \
                 are not affected unless they share this object"
            }
            Self::SessionExists { .. } | Self::Outdated { .. } => {
                "begin again with a new session id"
            }
            Self::Fenced { .. } => "start a new backup",
            Self::NotFound { .. } => "list the snapshots of the repository",
            Self::Forgotten { .. } => "choose another snapshot",
            Self::NeverEnded { fenced: true, .. } => "choose another snapshot",
            Self::NeverEnded { fenced: false, .. } => "wait until the backup has finished",
            Self::ChunkMissing { .. } => {
                "if the bucket is a replica, wait until everything has arrived; otherwise choose \
                 another snapshot"
            }
            Self::Node { .. } => {
                "a newer lifebuoy may have written it: use that one; otherwise run \
                 `lifebuoy repo check`"
            }
            Self::TooLarge { .. } | Self::Internal { .. } => return None,
        })
    }
}

/// The result of a call to the repository.
pub type Result<T, E = Error> = std::result::Result<T, E>;

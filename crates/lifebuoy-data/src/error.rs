//! What can go wrong with files, devices and their snapshots.

use std::{io, path::PathBuf};

use lifebuoy_repo::ChunkId;

use crate::path::TreePath;

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes that the format does not allow, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

/// What went wrong, on what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] lifebuoy_repo::Error),
    /// A chunk of the snapshot makes no sense.
    #[error("the snapshot is damaged: chunk {chunk}: {what}")]
    Damaged {
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong.
        what: Malformed,
    },
    /// The snapshot's summary or manifest makes no sense, or is of a newer program.
    #[error("this snapshot cannot be read: {what}")]
    NotOurs {
        /// What is wrong with it.
        what: String,
    },
    /// What was to be saved, or the place to restore to.
    #[error("cannot {what} {path:?}")]
    Place {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The place to restore to holds something.
    #[error("{path:?} is not empty")]
    NotEmpty {
        /// The place.
        path: PathBuf,
    },
    /// The snapshot holds no such path.
    #[error("the snapshot holds no {path:?}")]
    NotThere {
        /// The path.
        path: TreePath,
    },
    /// The path is of something that has no contents of its own.
    #[error("{path:?} is not a file in the snapshot")]
    NotAFile {
        /// The path.
        path: TreePath,
    },
    /// A thread ended before its work was done.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl Error {
    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Damaged { .. } => Some("run `lifebuoy repo check --level all`"),
            Self::NotOurs { .. } => Some("upgrade lifebuoy, or choose a snapshot of files"),
            Self::NotEmpty { .. } => Some("restore to an empty place, or go on with --resume"),
            Self::NotThere { .. } | Self::NotAFile { .. } => {
                Some("see what there is: `lifebuoy repo ls <snapshot>`")
            }
            _ => None,
        }
    }

    /// Whether this part of the snapshot is bad or out of reach, and others may be good.
    pub(crate) fn is_of_one_part(&self) -> bool {
        match self {
            Self::Repository(error) => error.is_of_one_object(),
            Self::Damaged { .. } | Self::NotOurs { .. } => true,
            _ => false,
        }
    }

    /// Whether what was read is bad and stays so, rather than out of reach for now.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Repository(error) => !error.is_transient(),
            Self::Damaged { .. } | Self::NotOurs { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn place(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Place { what, path, source }
    }
}

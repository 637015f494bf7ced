//! Why a mover did not do its work. In words that may stand in a status: no secrets.

use std::time::Duration;

/// Why a mover did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoverError {
    /// It was told to stop. Unless the operator ends, its pods are gone.
    #[error("cancelled")]
    Cancelled,
    /// Its pod does not start, and somebody has to do something about that.
    #[error("the mover does not start: {0}")]
    CannotStart(String),
    /// It did not do it, however often it was tried.
    #[error("{0}")]
    Failed(String),
    /// It was to overwrite a volume, and no try has touched it.
    #[error("{0}")]
    Untouched(String),
    /// Its pods do not go.
    #[error("the pod `{pod}` of the mover is still there after {} s", waited.as_secs())]
    StillThere {
        /// One of them.
        pod: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The repository that it is for cannot be used.
    #[error("{message}")]
    Repository {
        /// Why.
        message: String,
        /// Whether it may be a little later.
        transient: bool,
    },
    /// The API server said no, or nothing.
    #[error("cannot {what}")]
    Kube {
        /// What was to be done.
        what: &'static str,
        /// The client's words.
        #[source]
        source: Box<kube::Error>,
    },
}

impl MoverError {
    pub(super) fn kube(what: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kube {
            what,
            source: Box::new(source),
        }
    }

    /// Whether the same request may be answered a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Repository { transient, .. } => *transient,
            Self::Kube { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => status.code == 429 || status.code >= 500,
                _ => true,
            },
            _ => false,
        }
    }

    /// The whole sentence, for a status.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::CannotStart(_) => format!(
                "{self}; see \"When a mover does not start\" in the documentation of operations"
            ),
            _ => crate::error::sentence(self, None),
        }
    }
}

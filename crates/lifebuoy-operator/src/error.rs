//! What can go wrong in a reconciler or ends the operator. What concerns one
//! request ends up in its conditions instead.

use lifebuoy_api::Reason;

/// Why the operator, or one step of a reconciler, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request to the API server failed.
    #[error("cannot {what}")]
    Kube {
        /// What was to be done, as in "list RecoveryPoints".
        what: String,
        /// The client's own words.
        #[source]
        source: Box<kube::Error>,
    },

    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] lifebuoy_engine::Error),

    /// The address for health and metrics cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },

    /// Another replica took over, or the Lease could not be renewed in time.
    #[error("the lease {lease} was lost")]
    LeaseLost {
        /// The name of the Lease.
        lease: String,
    },

    /// A part of the operator that never ends has ended.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),

    /// The configuration contradicts itself.
    #[error("{field}: {message}")]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },

    /// Something came out that has no JSON form, or another own rule broke.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// A failed request of a `kube` client; `what` completes "cannot …".
    pub(crate) fn kube(what: impl Into<String>, source: kube::Error) -> Self {
        Self::Kube {
            what: what.into(),
            source: Box::new(source),
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kube { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 403 => Some(
                    "the operator's account lacks a right that the chart grants: upgrade the chart"
                        .to_owned(),
                ),
                _ => Some("check that the API server can be reached".to_owned()),
            },
            Self::Engine(error) => error.hint(),
            Self::Listen { .. } => Some("choose another address with --listen".to_owned()),
            Self::LeaseLost { .. } => {
                Some("the process starts again and stands by; nothing is lost".to_owned())
            }
            Self::Config { .. } | Self::Ended(_) | Self::Internal(_) => None,
        }
    }

    /// The word for metrics and Events.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Engine(error) => error.reason(),
            _ => Reason::InternalError,
        }
    }
}

/// An error with all its causes on one line, and the way out.
pub(crate) fn sentence(error: &dyn std::error::Error, hint: Option<&str>) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    if let Some(hint) = hint {
        text.push_str("; ");
        text.push_str(hint);
    }
    text
}

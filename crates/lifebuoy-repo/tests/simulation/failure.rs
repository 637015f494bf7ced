//! Failures in the words of the real stores and their client, so that the
//! library has to tell them apart as it must in earnest.

use std::{fmt, io};

use object_store::{
    Error, Result,
    client::{HttpError, HttpErrorKind},
};

const STORE: &str = "Simulated";

/// How a call fails, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection.
    Unreachable,
    /// The connection broke.
    Reset,
    /// No answer in time.
    TimedOut,
    /// 500 of the server.
    Internal,
    /// 503 with the code that S3 gives.
    SlowDown,
    /// 429, as GCS and Azure give.
    TooManyRequests,
    /// 409 for a create that met another one: nothing need be there.
    Conflict,
    /// 412 as a client of S3 hands it on for a create: the object exists.
    Exists,
    /// 412 as it is.
    Precondition,
    /// The object is locked against deletion.
    Locked,
    /// The object is not there, as GCS and Azure answer a delete.
    Gone,
}

impl Failure {
    pub(crate) fn error<T>(self, key: &str) -> Result<T> {
        let path = key.to_owned();
        Err(match self {
            Self::Unreachable => generic(http(
                HttpErrorKind::Connect,
                io::ErrorKind::ConnectionRefused,
            )),
            Self::Reset => generic(http(
                HttpErrorKind::Interrupted,
                io::ErrorKind::ConnectionReset,
            )),
            Self::TimedOut => generic(http(HttpErrorKind::Timeout, io::ErrorKind::TimedOut)),
            Self::Internal => generic(Answer {
                status: "500 Internal Server Error",
                code: "InternalError",
                message: "We encountered an internal error. Please try again.",
            }),
            Self::SlowDown => generic(Answer {
                status: "503 Service Unavailable",
                code: "SlowDown",
                message: "Please reduce your request rate.",
            }),
            Self::TooManyRequests => generic(Answer {
                status: "429 Too Many Requests",
                code: "TooManyRequests",
                message: "The rate of requests exceeds the limit.",
            }),
            Self::Conflict => {
                let source = Answer {
                    status: "409 Conflict",
                    code: "ConditionalRequestConflict",
                    message: "A conflicting conditional operation is under way.",
                };
                let source = source.into();
                Error::AlreadyExists { path, source }
            }
            Self::Exists => {
                let source = Box::new(precondition(key));
                Error::AlreadyExists { path, source }
            }
            Self::Precondition => precondition(key),
            Self::Locked => {
                let source = Answer {
                    status: "403 Forbidden",
                    code: "AccessDenied",
                    message: "Access Denied because object protected by object lock.",
                };
                let source = source.into();
                Error::PermissionDenied { path, source }
            }
            Self::Gone => {
                let source = Answer {
                    status: "404 Not Found",
                    code: "NoSuchKey",
                    message: "The specified key does not exist.",
                };
                let source = source.into();
                Error::NotFound { path, source }
            }
        })
    }
}

fn precondition(key: &str) -> Error {
    let source = Answer {
        status: "412 Precondition Failed",
        code: "PreconditionFailed",
        message: "At least one of the pre-conditions you specified did not hold",
    };
    Error::Precondition {
        path: key.to_owned(),
        source: source.into(),
    }
}

fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic {
        store: STORE,
        source: source.into(),
    }
}

fn http(kind: HttpErrorKind, cause: io::ErrorKind) -> HttpError {
    HttpError::new(kind, io::Error::from(cause))
}

/// An answer that is not 2xx, as the client prints it.
#[derive(Debug)]
struct Answer {
    status: &'static str,
    code: &'static str,
    message: &'static str,
}

impl std::error::Error for Answer {}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            code,
            message,
        } = self;
        write!(
            f,
            "Server returned non-2xx status code: {status}: <?xml version=\"1.0\"?>\n\
             <Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
    }
}

//! The object store as the repository sees it: create once, read, list, and for
//! the collector delete. Every failure is sorted into the repository's errors here
//! and nowhere else. Never overwrites, never prints what a server echoes of
//! credentials.

use std::{error::Error as StdError, fmt, io, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    client::{HttpError, HttpErrorKind},
    path::Path,
};

use crate::error::{Error, Result};

/// What was asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// List a prefix.
    List,
    /// Read an object.
    Read,
    /// Create an object.
    Write,
    /// Delete an object.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        })
    }
}

/// What the store or the connection said, in one line without URLs or credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

/// How often a create is tried when its outcome is unknown. Creating is
/// idempotent here, because an existing object is compared with ours.
const CREATE_ATTEMPTS: u32 = 4;
const CREATE_BACKOFF: Duration = Duration::from_millis(150);
/// No attempt begins later than this after the first: the store's client has
/// retried on its own what it knows to be harmless.
const CREATE_TIME_MAX: Duration = Duration::from_secs(15);
/// Longest text of a server that is passed on.
const CAUSE_CHARS_MAX: usize = 200;

/// The outcome of a create.
#[derive(Debug)]
pub(crate) enum Created {
    /// The object is there, and it is ours.
    Ours,
    /// Somebody else's object is there, with these bytes.
    Theirs(Bytes),
}

/// An object as a listing shows it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) created: chrono::DateTime<chrono::Utc>,
}

/// A store, scoped to one repository.
#[derive(Clone)]
pub(crate) struct Objects {
    inner: Arc<dyn ObjectStore>,
}

impl Objects {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner }
    }

    /// Creates an object unless it exists. A lost acknowledgement is recognised
    /// by comparing what is there with `bytes`, so calling it again is harmless.
    pub(crate) async fn create(&self, key: &str, bytes: Bytes) -> Result<Created> {
        let mut attempt = 0;
        let begun = tokio::time::Instant::now();
        loop {
            attempt += 1;
            let error = match self.create_once(key, bytes.clone()).await {
                Ok(()) => return Ok(Created::Ours),
                Err(object_store::Error::AlreadyExists { .. }) => match self.get(key).await {
                    Ok(found) if found == bytes => return Ok(Created::Ours),
                    Ok(found) => return Ok(Created::Theirs(found)),
                    // A conflict with a create that then failed: nothing is there yet.
                    Err(missing @ Error::Missing { .. }) => missing,
                    Err(error) => return Err(error),
                },
                Err(error) => classify(Operation::Write, key, &error),
            };
            let again = error.is_transient() || matches!(error, Error::Missing { .. });
            if !again || attempt == CREATE_ATTEMPTS || begun.elapsed() > CREATE_TIME_MAX {
                return Err(error);
            }
            tokio::time::sleep(CREATE_BACKOFF * attempt).await;
        }
    }

    async fn create_once(&self, key: &str, bytes: Bytes) -> object_store::Result<()> {
        let path = Path::from(key);
        let options = PutOptions::from(PutMode::Create);
        let put = self.inner.put_opts(&path, PutPayload::from(bytes), options);
        match put.await {
            Ok(_) => Ok(()),
            // Some stores look first whether the credentials may replace what is
            // there. To those that may only create, an object that exists is denied.
            Err(denied @ object_store::Error::PermissionDenied { .. })
                if self.inner.head(&path).await.is_ok() =>
            {
                Err(object_store::Error::AlreadyExists {
                    path: key.to_owned(),
                    source: Box::new(denied),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// One create without retries: for the probe, whose racers must not be
    /// mistaken for each other. `Ok(false)`: it exists.
    pub(crate) async fn try_create(&self, key: &str, bytes: Bytes) -> Result<bool> {
        match self.create_once(key, bytes).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(classify(Operation::Write, key, &error)),
        }
    }

    /// An entire object. Missing is an error.
    pub(crate) async fn get(&self, key: &str) -> Result<Bytes> {
        let read = async { self.inner.get(&Path::from(key)).await?.bytes().await };
        read.await
            .map_err(|error| classify(Operation::Read, key, &error))
    }

    /// An object of at most `limit` bytes; a longer one is not read.
    pub(crate) async fn get_bounded(&self, key: &str, limit: usize) -> Result<Bytes> {
        let read = async {
            let found = self.inner.get(&Path::from(key)).await?;
            if usize::try_from(found.meta.size).is_ok_and(|size| size <= limit) {
                found.bytes().await.map(Some)
            } else {
                Ok(None)
            }
        };
        match read.await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Error::corrupt(key, crate::wire::Damage::TooLong)),
            Err(error) => Err(classify(Operation::Read, key, &error)),
        }
    }

    /// A part of an object. Fewer bytes than asked for are an error.
    pub(crate) async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end - range.start;
        let options = GetOptions::default().with_range(Some(GetRange::Bounded(range)));
        let read = async {
            let found = self.inner.get_opts(&Path::from(key), options).await?;
            found.bytes().await
        };
        let bytes = read.await.map_err(|error| classify_range(key, &error))?;
        if u64::try_from(bytes.len()) != Ok(wanted) {
            return Err(Error::corrupt(key, crate::wire::Damage::Truncated));
        }
        Ok(bytes)
    }

    /// All keys below a prefix (without the slash at its end), sorted.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut keys: Vec<String> = self
            .inner
            .list(Some(&Path::from(prefix)))
            .map_ok(|found| String::from(found.location))
            .try_collect()
            .await
            .map_err(|error| classify(Operation::List, &format!("{prefix}/"), &error))?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// All objects below a prefix with their sizes and the store's own time of
    /// their creation.
    pub(crate) async fn list_sized(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.inner
            .list(Some(&Path::from(prefix)))
            .map_ok(|found| Listed {
                key: found.location.into(),
                size: found.size,
                created: found.last_modified,
            })
            .try_collect()
            .await
            .map_err(|error| classify(Operation::List, &format!("{prefix}/"), &error))
    }

    /// All objects below a prefix with their sizes, one at a time; of the entire
    /// repository if the prefix is empty.
    pub(crate) fn each_sized(&self, prefix: &str) -> impl Stream<Item = Result<(String, u64)>> {
        let key = prefix.to_owned();
        let path = Path::from(prefix);
        self.inner
            .list((!prefix.is_empty()).then_some(&path))
            .map_ok(|found| (String::from(found.location), found.size))
            .map_err(move |error| classify(Operation::List, &format!("{key}/"), &error))
    }

    /// How long an object is; `None` if there is none.
    pub(crate) async fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.inner.head(&Path::from(key)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(error) => match classify(Operation::Read, key, &error) {
                Error::Missing { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Deletes objects. One that is gone already is as good as deleted.
    pub(crate) async fn delete(&self, keys: Vec<String>) -> Result<()> {
        let paths = keys.into_iter().map(|key| Ok(Path::from(key)));
        let mut deleted = self.inner.delete_stream(stream::iter(paths).boxed());
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    let key = match &error {
                        object_store::Error::PermissionDenied { path, .. } => path.clone(),
                        _ => String::new(),
                    };
                    return Err(classify(Operation::Delete, &key, &error));
                }
            }
        }
        Ok(())
    }

    /// The first key for which `wanted` is true, among the first `limit` keys.
    pub(crate) async fn find(
        &self,
        limit: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<String>> {
        let mut listing = self.inner.list(None);
        for _ in 0..limit {
            let next = listing.try_next().await;
            match next.map_err(|error| classify(Operation::List, "", &error))? {
                Some(found) if wanted(found.location.as_ref()) => {
                    return Ok(Some(found.location.into()));
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

/// A range that begins behind the end of the object means that it was cut off.
fn classify_range(key: &str, error: &object_store::Error) -> Error {
    let text = innermost(error).to_string();
    let status = status_of(&text);
    if status == Some(416) || text.contains("Range") || text.contains("range") {
        return Error::corrupt(key, crate::wire::Damage::Truncated);
    }
    classify(Operation::Read, key, error)
}

/// Sorts a failure of the store into our errors.
pub(crate) fn classify(operation: Operation, key: &str, error: &object_store::Error) -> Error {
    let key = key.to_owned();
    let source = cause(error);
    if let Some(io) = find::<io::Error>(error)
        && let Some(sorted) = classify_io(operation, &key, io)
    {
        return sorted;
    }
    let text = innermost(error).to_string();
    if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") {
        return Error::BucketMissing { source };
    }
    if text.contains("InvalidAccessKeyId")
        || text.contains("XAdminUserNotFound")
        || text.contains("SignatureDoesNotMatch")
        || text.contains("RequestTimeTooSkewed")
        || text.contains("ExpiredToken")
        // Azure says 403 of a signature that has expired.
        || text.contains("AuthenticationFailed")
    {
        return Error::Unauthenticated { source };
    }
    // S3, and Azure.
    if text.contains("InvalidObjectState") || text.contains("BlobArchived") {
        return Error::Archived { key };
    }
    match error {
        object_store::Error::NotFound { .. } if operation == Operation::Read => {
            return Error::Missing { key };
        }
        object_store::Error::NotFound { .. } => return Error::BucketMissing { source },
        object_store::Error::PermissionDenied { .. } => {
            return Error::Denied {
                operation,
                key,
                source,
            };
        }
        object_store::Error::Unauthenticated { .. } => return Error::Unauthenticated { source },
        object_store::Error::AlreadyExists { .. } => return Error::Occupied { key },
        _ => {}
    }
    if let Some(http) = find::<HttpError>(error)
        && http.kind() != HttpErrorKind::Decode
    {
        return Error::Unreachable {
            operation,
            key,
            source,
        };
    }
    match status_of(&text) {
        Some(403) => Error::Denied {
            operation,
            key,
            source,
        },
        Some(401) => Error::Unauthenticated { source },
        Some(429 | 503) => Error::Throttled {
            operation,
            key,
            source,
        },
        Some(507) => Error::Full { key, source },
        _ if text.contains("SlowDown") => Error::Throttled {
            operation,
            key,
            source,
        },
        _ if text.contains("StorageFull") || text.contains("QuotaExceeded") => {
            Error::Full { key, source }
        }
        _ => Error::Store {
            operation,
            key,
            source,
        },
    }
}

fn classify_io(operation: Operation, key: &str, error: &io::Error) -> Option<Error> {
    let key = key.to_owned();
    let source = Cause(error.kind().to_string());
    Some(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { key, source },
        io::ErrorKind::PermissionDenied => Error::Denied {
            operation,
            key,
            source,
        },
        io::ErrorKind::ReadOnlyFilesystem => Error::Denied {
            operation,
            key,
            source,
        },
        io::ErrorKind::NotFound if operation == Operation::Read => Error::Missing { key },
        io::ErrorKind::NotFound => Error::BucketMissing { source },
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::TimedOut
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Error::Unreachable {
            operation,
            key,
            source,
        },
        _ => return None,
    })
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        (*error).source()
    })
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| {
        error.downcast_ref::<E>().or_else(|| {
            // io::Error hides the error it wraps from source(): it *is* that error.
            error
                .downcast_ref::<io::Error>()?
                .get_ref()?
                .downcast_ref::<E>()
        })
    })
}

fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    chain(error).last().unwrap_or(error)
}

/// The HTTP status in "… status code: 503 Service Unavailable: …": the type
/// that holds it is private to `object_store`.
fn status_of(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The innermost error in one line. Of a server's XML only code and message
/// are kept: some answers echo access keys and the string that was signed.
fn cause(error: &object_store::Error) -> Cause {
    let text = innermost(error).to_string();
    let status = status_of(&text).map(|status| format!("status {status}"));
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    let parts: Vec<String> = [status, element("Code"), element("Message")]
        .into_iter()
        .flatten()
        .collect();
    let line = if parts.is_empty() {
        text.lines().next().unwrap_or_default().to_owned()
    } else {
        parts.join(": ")
    };
    Cause(line.chars().take(CAUSE_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a store says with the status 403.
    fn refused(answer: &str) -> Error {
        let error = object_store::Error::PermissionDenied {
            path: "packs/x".to_owned(),
            source: format!("status code: 403 Forbidden: <Code>{answer}</Code>").into(),
        };
        classify(Operation::Read, "packs/x", &error)
    }

    #[test]
    fn what_was_archived_or_has_expired_is_not_taken_for_denied() {
        for answer in ["InvalidObjectState", "BlobArchived"] {
            let error = refused(answer);
            assert!(matches!(error, Error::Archived { .. }), "{error:?}");
            assert!(error.is_of_one_object());
        }
        for answer in ["ExpiredToken", "AuthenticationFailed"] {
            let error = refused(answer);
            assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
            assert!(!error.is_of_one_object());
        }
        let error = refused("AccessDenied");
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    }
}

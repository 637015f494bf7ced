//! Reads single pages to their end, and decides when to try again. Pure in what
//! it decides, and the only place of the capture that waits.

use std::time::Duration;

use futures::TryStreamExt;
use serde::Deserialize;

use super::{
    lister::{ListError, ListRequest, Lister},
    splitter::{ListMeta, ListSplitter, SplitError},
};

/// How long all waiting for a throttling server may take, in tries.
const THROTTLED_TRIES_MAX: u32 = 30;
/// The longest single wait, whatever the server asks for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The wait when the server names none, and the shortest one after a failure.
const WAIT_THROTTLED: Duration = Duration::from_secs(1);
const WAIT_FAILED: Duration = Duration::from_millis(200);
/// Tries while there is no connection: about half a minute, enough for an API
/// server that is started anew.
const TRANSPORT_TRIES_MAX: u32 = 10;
const TRANSPORT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Tries of a server that fails: a webhook that is down stays down.
const FAILED_TRIES_MAX: u32 = 3;

/// How long to wait before the same request is made again; none when that is
/// useless. `tries` is how often it was made.
pub(super) fn wait_before_retry(error: &ListError, tries: u32) -> Option<Duration> {
    let doubled = |first: Duration| first * 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
    match error {
        ListError::Throttled { after, .. } => {
            (tries < THROTTLED_TRIES_MAX).then(|| after.unwrap_or(WAIT_THROTTLED).min(WAIT_MAX))
        }
        ListError::Transport { .. } => {
            (tries < TRANSPORT_TRIES_MAX).then(|| doubled(WAIT_FAILED).min(TRANSPORT_WAIT_MAX))
        }
        ListError::Failed { .. } => (tries < FAILED_TRIES_MAX).then(|| doubled(WAIT_FAILED)),
        ListError::Expired { .. }
        | ListError::TooNew { .. }
        | ListError::NotFound { .. }
        | ListError::Denied { .. }
        | ListError::Refused { .. }
        | ListError::Malformed { .. } => None,
    }
}

/// A list that was asked for its metadata only.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Glimpse {
    pub(super) meta: ListMeta,
    /// Objects in all, as far as the server says.
    pub(super) objects: u64,
    /// The uid of the first object.
    pub(super) first_uid: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    metadata: Identity,
}

#[derive(Deserialize)]
struct Identity {
    uid: String,
}

/// Reads a small list; tries again where that may help.
pub(super) async fn glimpse(
    lister: &dyn Lister,
    request: &ListRequest,
) -> Result<Glimpse, ListError> {
    let mut tries = 0;
    loop {
        let error = match glimpse_once(lister, request).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        tries += 1;
        match wait_before_retry(&error, tries) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(error),
        }
    }
}

async fn glimpse_once(lister: &dyn Lister, request: &ListRequest) -> Result<Glimpse, ListError> {
    let mut body = lister.page(request.clone()).await?;
    let mut splitter = ListSplitter::new();
    let mut found = Glimpse::default();
    while let Some(bytes) = body.try_next().await? {
        splitter.feed(&bytes);
        while let Some(item) = splitter.next_item().map_err(|e| malformed(&e))? {
            if found.first_uid.is_none() {
                let first: Option<Named> = serde_json::from_slice(item).ok();
                found.first_uid = first.map(|object| object.metadata.uid);
            }
            found.objects += 1;
        }
    }
    found.meta = splitter.finish().map_err(|e| malformed(&e))?;
    found.objects += found.meta.remaining_item_count.unwrap_or(0);
    Ok(found)
}

/// A body that is no list. One that ends in the middle is a broken connection.
pub(super) fn malformed(error: &SplitError) -> ListError {
    let message = error.to_string();
    match error {
        SplitError::Truncated => ListError::Transport { message },
        _ => ListError::Malformed { message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_end_and_the_server_is_heard_within_reason() {
        let message = String::new;
        let throttled = |after| ListError::Throttled {
            after,
            message: message(),
        };
        assert_eq!(wait_before_retry(&throttled(None), 1), Some(WAIT_THROTTLED));
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(wait_before_retry(&throttled(hour), 1), Some(WAIT_MAX));
        assert_eq!(
            wait_before_retry(&throttled(None), THROTTLED_TRIES_MAX),
            None
        );
        let broken = ListError::Transport { message: message() };
        assert_eq!(wait_before_retry(&broken, 2), Some(WAIT_FAILED * 2));
        assert_eq!(wait_before_retry(&broken, 9), Some(TRANSPORT_WAIT_MAX));
        assert_eq!(wait_before_retry(&broken, TRANSPORT_TRIES_MAX), None);
        let denied = ListError::Denied { message: message() };
        assert_eq!(wait_before_retry(&denied, 1), None);
    }
}

//! Where lists come from: one page of one list at a time, as a stream of bytes.
//! Knows requests and errors of the API; decides nothing about them.

use std::time::Duration;

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

use crate::{Error, discovery::Discovered};

/// Items in a page. A page of this size costs the API server few seats, and the
/// round trips of smaller ones would show.
pub(crate) const PAGE_ITEMS: u32 = 500;

/// One page of one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListRequest {
    /// The path of the list, without a query.
    pub(crate) path: String,
    /// How many items at most.
    pub(crate) limit: u32,
    /// Of which moment.
    pub(crate) at: At,
    /// A field selector, such as `metadata.name=kube-system`.
    pub(crate) field_selector: Option<String>,
    /// Without the bodies of the objects, where the server can.
    pub(crate) metadata_only: bool,
}

impl ListRequest {
    /// The first item of a list, as of now: for its metadata.
    pub(crate) fn first_of(path: String) -> Self {
        Self {
            path,
            limit: 1,
            at: At::Latest,
            field_selector: None,
            metadata_only: true,
        }
    }

    /// A page of whole objects.
    pub(crate) fn page(path: String, at: At) -> Self {
        Self {
            path,
            limit: PAGE_ITEMS,
            at,
            field_selector: None,
            metadata_only: false,
        }
    }
}

/// The moment that a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Now; the server confirms that nothing newer exists.
    Latest,
    /// Exactly this revision.
    Exact(String),
    /// Where the previous page ended.
    Continue(String),
}

/// Why a page did not come, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    /// The revision was compacted. With the token the list goes on from there,
    /// at another revision.
    #[error("{message}")]
    Expired {
        continue_token: Option<String>,
        message: String,
    },
    /// The revision is in this type's future: it lives in another store.
    #[error("{message}")]
    TooNew { message: String },
    /// Asked to slow down.
    #[error("{message}")]
    Throttled {
        after: Option<Duration>,
        message: String,
    },
    /// There is no such list.
    #[error("{message}")]
    NotFound { message: String },
    /// Not permitted.
    #[error("{message}")]
    Denied { message: String },
    /// The server failed; again might help.
    #[error("{message}")]
    Failed { message: String },
    /// The server refused, and would again.
    #[error("{message}")]
    Refused { message: String },
    /// The connection broke, or nothing came for too long.
    #[error("{message}")]
    Transport { message: String },
    /// What came is no list.
    #[error("{message}")]
    Malformed { message: String },
}

/// The body of a page.
pub(crate) type PageBody = BoxStream<'static, Result<Bytes, ListError>>;

/// A place that lists come from.
pub(crate) trait Lister: Send + Sync + 'static {
    /// Asks for a page. The body comes as it arrives.
    fn page(&self, request: ListRequest) -> BoxFuture<'_, Result<PageBody, ListError>>;

    /// What is served now.
    fn served(&self) -> BoxFuture<'_, Result<Discovered, Error>>;
}

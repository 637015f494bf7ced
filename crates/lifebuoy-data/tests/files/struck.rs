//! A store that is struck at one of its requests.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What happens at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It fails and has done nothing.
    Fails,
    /// It is done, and the answer is lost.
    IsLost,
    /// So for it and all that follow: the network is gone.
    GoesDown,
    /// So for it and all that follow: the credentials are no longer good.
    IsDenied,
    /// This process dies before it is sent.
    DiesBefore,
    /// This process dies when it is done.
    DiesAfter,
}

/// A store that is struck.
#[derive(Debug)]
pub(crate) struct Struck {
    inner: Arc<dyn ObjectStore>,
    blow: Blow,
    at: AtomicUsize,
    requests: AtomicUsize,
}

/// What is to become of one request.
enum Fate {
    Lives,
    FailsBefore,
    IsDenied,
    FailsAfter,
    DiesAfter,
}

impl Struck {
    /// One that will be.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, blow: Blow) -> Arc<Self> {
        Arc::new(Self {
            inner,
            blow,
            at: AtomicUsize::new(usize::MAX),
            requests: AtomicUsize::new(0),
        })
    }

    /// Says at which request from now on it is struck, from 0.
    pub(crate) fn strike_at(&self, number: usize) {
        self.at.store(self.requests() + number, Ordering::SeqCst);
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Whether it was struck.
    pub(crate) fn was_struck(&self) -> bool {
        self.requests() > self.at.load(Ordering::SeqCst)
    }

    fn fate(&self) -> Fate {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let at = self.at.load(Ordering::SeqCst);
        match self.blow {
            Blow::GoesDown if number >= at => Fate::FailsBefore,
            Blow::IsDenied if number >= at => Fate::IsDenied,
            _ if number != at => Fate::Lives,
            Blow::Fails | Blow::GoesDown => Fate::FailsBefore,
            Blow::IsDenied => Fate::IsDenied,
            Blow::IsLost => Fate::FailsAfter,
            Blow::DiesBefore => std::process::abort(),
            Blow::DiesAfter => Fate::DiesAfter,
        }
    }
}

impl Fate {
    /// The answer to a request, which is sent or not.
    async fn of<T>(self, request: impl Future<Output = Result<T>>) -> Result<T> {
        match self {
            Self::Lives => request.await,
            Self::FailsBefore => Err(lost()),
            Self::IsDenied => Err(object_store::Error::PermissionDenied {
                path: "some/key".into(),
                source: "expired".into(),
            }),
            Self::FailsAfter => request.await.and(Err(lost())),
            Self::DiesAfter => {
                drop(request.await);
                std::process::abort()
            }
        }
    }

    /// As [`Fate::of`], for an answer of many parts.
    fn of_stream<T: Send + 'static>(
        self,
        answer: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        match self {
            Self::Lives => answer,
            fate => stream::once(fate.of(async move {
                let all: Vec<_> = answer.collect().await;
                drop(all);
                Err(lost())
            }))
            .boxed(),
        }
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic {
        store: "Struck",
        source: "the connection broke".into(),
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Struck")
    }
}

#[async_trait]
impl ObjectStore for Struck {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, options);
        self.fate().of(put).await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("the repository uses no multipart uploads")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = self.inner.get_opts(location, options);
        self.fate().of(get).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.fate().of_stream(self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.fate().of_stream(self.inner.list(prefix))
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        panic!("the repository lists whole prefixes")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("the repository copies nothing")
    }
}

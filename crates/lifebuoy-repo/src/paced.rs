//! A store that sends and receives no faster than it may: all requests together. What
//! is received is paced piece by piece, so that the connection itself slows down. What
//! is sent waits for its turn as a whole here; where it goes over a network, it is paced
//! by `sending` instead.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use crate::rate::{Rate, Throttle};

/// What is received goes on in pieces of at most this.
const PIECE_BYTES: usize = 64 * 1024;
/// What is sent and no larger does not wait, but counts: a session's signs of life must
/// not queue behind its packs.
pub(crate) const SMALL_BYTES: usize = 64 * 1024;
/// What one process sends and asks for at one time, at most.
const REQUESTED_BYTES_MAX: u64 = 64 << 20;

/// How fast bytes may go to and from a store. By default, as fast as they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// To the store.
    pub upload: Option<Rate>,
    /// From the store.
    pub download: Option<Rate>,
}

impl Limits {
    /// The store, with these limits on all requests together.
    #[must_use]
    pub fn on(self, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        if self == Self::default() {
            return store;
        }
        Arc::new(Paced {
            inner: store,
            upload: self.upload.map(Throttle::new),
            download: self.download.map(|rate| Arc::new(Throttle::new(rate))),
        })
    }

    /// How much longer a request may take than without limits.
    pub(crate) fn delay_max(self) -> Duration {
        let slowest = self.upload.into_iter().chain(self.download).min();
        slowest
            .map(|rate| rate.time_of(REQUESTED_BYTES_MAX))
            .unwrap_or_default()
    }
}

#[derive(Debug)]
struct Paced {
    inner: Arc<dyn ObjectStore>,
    upload: Option<Throttle>,
    download: Option<Arc<Throttle>>,
}

impl fmt::Display for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Paced({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Paced {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if let Some(upload) = &self.upload {
            let length = payload.content_length();
            if length <= SMALL_BYTES {
                upload.count(length as u64);
            } else {
                upload.pass(length as u64).await;
            }
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // Nothing here uses it: it cannot create what must not exist.
        Err(object_store::Error::NotImplemented {
            operation: "put_multipart_opts".to_owned(),
            implementer: self.to_string(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.inner.get_opts(location, options).await?;
        let Some(download) = &self.download else {
            return Ok(found);
        };
        let (meta, range) = (found.meta.clone(), found.range.clone());
        let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
        Ok(GetResult {
            payload: GetResultPayload::Stream(paced(found.into_stream(), Arc::clone(download))),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(download) = &self.download {
            let bytes = ranges.iter().map(|range| range.end - range.start).sum();
            download.pass(bytes).await;
        }
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn paced(
    body: BoxStream<'static, Result<Bytes>>,
    throttle: Arc<Throttle>,
) -> BoxStream<'static, Result<Bytes>> {
    body.map_ok(|bytes| stream::iter(pieces(bytes)).map(Ok))
        .try_flatten()
        .and_then(move |piece: Bytes| {
            let throttle = Arc::clone(&throttle);
            async move {
                throttle.pass(piece.len() as u64).await;
                Ok(piece)
            }
        })
        .boxed()
}

pub(crate) fn pieces(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let length = bytes.len().min(PIECE_BYTES);
        (length > 0).then(|| bytes.split_to(length))
    })
}

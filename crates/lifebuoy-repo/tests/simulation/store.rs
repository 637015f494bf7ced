//! One process's handle on the store of a world, and what its requests do there.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, path::Path,
};

use crate::{
    failure::Failure,
    faults::{Answer, Damage, Fate, Op},
    listing,
    world::{Deleted, Done, Request, World},
};

/// Deletes that one call of `delete_stream` has under way.
const DELETES: usize = 4;

/// The store as one process sees it.
#[derive(Debug)]
pub(crate) struct SimStore {
    world: Arc<World>,
    process: Arc<str>,
}

impl SimStore {
    pub(crate) fn new(world: Arc<World>, process: Arc<str>) -> Self {
        Self { world, process }
    }

    fn request(&self, op: Op, key: &Path) -> Request {
        Request {
            process: Arc::clone(&self.process),
            op,
            key: key.to_string(),
        }
    }

    fn unsupported<T>(&self, operation: &str) -> Result<T> {
        Err(Error::NotImplemented {
            operation: operation.to_owned(),
            implementer: self.to_string(),
        })
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.process)
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let path = location.clone();
        let effect = |world: Arc<World>, _| put(world, path, payload, options).boxed();
        self.world
            .call(self.request(Op::Put, location), effect)
            .await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.unsupported("a multipart upload")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = location.clone();
        let effect = |world: Arc<World>, fate| get(world, fate, path, options).boxed();
        self.world
            .call(self.request(Op::Get, location), effect)
            .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (world, process) = (Arc::clone(&self.world), Arc::clone(&self.process));
        let store = Self { world, process };
        let store = Arc::new(store);
        let delete = move |location: Result<Path>| {
            let store = Arc::clone(&store);
            async move {
                let path = location?;
                let request = store.request(Op::Delete, &path);
                let effect = |world: Arc<World>, _| delete(world, path).boxed();
                store.world.call(request, effect).await
            }
        };
        locations.map(delete).buffered(DELETES).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let request = self.request(Op::List, &prefix);
        listing::pages(Arc::clone(&self.world), request, prefix)
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        self.unsupported("a listing of one level")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        self.unsupported("a copy")
    }
}

async fn put(
    world: Arc<World>,
    path: Path,
    payload: PutPayload,
    mut options: PutOptions,
) -> Done<PutResult> {
    let len = payload.content_length();
    if world.faults().overwrites {
        options.mode = PutMode::Overwrite;
    }
    let existed = world.inner().head(&path).await.is_ok();
    let done = world.inner().put_opts(&path, payload, options).await;
    let mut state_word = "done";
    if done.is_ok() {
        let now = world.now_ms();
        let mut state = world.state();
        state.created_ms.insert(path.clone(), now);
        if existed {
            state.overwritten.push(path);
            state_word = "overwritten";
        }
    } else {
        state_word = "exists";
    }
    (done, format!("{len} bytes, {state_word}"))
}

async fn delete(world: Arc<World>, path: Path) -> Done<Path> {
    let Ok(meta) = world.inner().head(&path).await else {
        let done = match world.faults().delete_needs_object {
            true => Failure::Gone.error(path.as_ref()),
            false => Ok(path),
        };
        return (done, "is not there".to_owned());
    };
    let now = world.now_ms();
    let created_ms = world.state().created_ms.get(&path).copied().unwrap_or(0);
    if now < created_ms + world.faults().lock_ms {
        return (Failure::Locked.error(path.as_ref()), "locked".to_owned());
    }
    let done = world.inner().delete(&path).await.map(|()| path.clone());
    let mut state = world.state();
    state.created_ms.remove(&path);
    state.deleted.push(Deleted {
        meta,
        created_ms,
        deleted_ms: now,
    });
    (done, "done".to_owned())
}

async fn get(world: Arc<World>, fate: Fate, path: Path, options: GetOptions) -> Done<GetResult> {
    let found = match world.inner().get_opts(&path, options).await {
        Ok(found) => found,
        Err(error) => {
            let missing = matches!(error, Error::NotFound { .. });
            let word = if missing { "missing" } else { "refused" };
            return (Err(error), word.to_owned());
        }
    };
    let GetResult {
        payload,
        meta,
        range,
        attributes,
        extensions,
    } = found;
    let stored = match payload {
        GetResultPayload::Stream(mut body) => body.next().await,
        GetResultPayload::File(..) => None,
    };
    let stored = stored.and_then(Result::ok).unwrap_or_default();
    let word = format!("{} bytes", stored.len());
    let body = body(stored, fate, path.as_ref());
    let result = GetResult {
        payload: GetResultPayload::Stream(stream::iter(body).boxed()),
        meta: anonymous(meta),
        range,
        attributes,
        extensions,
    };
    (Ok(result), word)
}

/// The body as it arrives: whole, damaged, or broken off with an error.
fn body(stored: Bytes, fate: Fate, key: &str) -> Vec<Result<Bytes>> {
    let at = |len: usize| usize::try_from((fate.dice >> 8) % len.max(1) as u64).unwrap();
    if fate.answer == Answer::Broken {
        let half = stored.slice(..stored.len() / 2);
        return vec![Ok(half), Failure::Reset.error(key)];
    }
    vec![Ok(match fate.damage {
        None => stored,
        Some(Damage::Truncated) => stored.slice(..at(stored.len())),
        Some(Damage::Flipped) => {
            let mut bytes = stored.to_vec();
            let position = at(bytes.len());
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= 1 << ((fate.dice >> 4) % 8);
            }
            bytes.into()
        }
    })]
}

/// Without the time of the last change: nothing may depend on it.
pub(crate) fn anonymous(meta: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        last_modified: Default::default(),
        ..meta
    }
}

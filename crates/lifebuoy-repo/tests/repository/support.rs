//! A store that counts its calls and fails from a chosen one on, before or after
//! the effect.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use lifebuoy_repo::{
    ChunkId, ChunkKind, ClusterKey, CollectOptions, Contents, Error, KdfCost, Link, Passphrase,
    Purpose, Repository, Role, SessionId, SessionRequest, Snapshot,
};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, memory::InMemory,
    path::Path,
};
use rand::{SeedableRng, rngs::StdRng};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// It fails and does nothing.
    Before,
    /// It does its work and the answer is lost.
    After,
    /// The store says that permission is denied.
    Denied,
}

/// Which calls a fault hits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Calls {
    None,
    /// This one and all later ones: the process or the network died.
    From(usize),
    /// This one only.
    Only(usize),
    Puts,
    Lists,
    Gets,
}

#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<InMemory>,
    calls: AtomicUsize,
    puts: AtomicUsize,
    denies_replacing: AtomicBool,
    plan: Mutex<(Calls, Fault)>,
    put_error: Mutex<Option<object_store::Error>>,
    after_list: Mutex<Option<Vec<(String, Bytes)>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Put,
    Get,
    List,
    Delete,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<InMemory>) -> Arc<Self> {
        let plan = Mutex::new((Calls::None, Fault::Before));
        let put_error = Mutex::new(None);
        Arc::new(Self {
            inner,
            calls: 0.into(),
            puts: 0.into(),
            denies_replacing: false.into(),
            plan,
            put_error,
            after_list: Mutex::default(),
        })
    }

    /// Sets the plan and starts counting at 0.
    pub(crate) fn plan(&self, calls: Calls, fault: Fault) {
        *self.plan.lock().unwrap() = (calls, fault);
        self.calls.store(0, Ordering::SeqCst);
        self.puts.store(0, Ordering::SeqCst);
    }

    /// The next put fails with this error.
    pub(crate) fn fail_puts_with(&self, error: object_store::Error) {
        *self.put_error.lock().unwrap() = Some(error);
    }

    /// From now on the store says that permission is denied to put an object that
    /// is there, whatever the put asks for.
    pub(crate) fn deny_replacing(&self) {
        self.denies_replacing.store(true, Ordering::SeqCst);
    }

    /// As soon as the next listing was made, somebody else puts these objects.
    pub(crate) fn put_after_list(&self, objects: Vec<(String, Bytes)>) {
        *self.after_list.lock().unwrap() = Some(objects);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn puts(&self) -> usize {
        self.puts.load(Ordering::SeqCst)
    }

    fn fault(&self, kind: Kind) -> Option<Fault> {
        let n = self.calls.fetch_add(1, Ordering::SeqCst);
        if kind == Kind::Put {
            self.puts.fetch_add(1, Ordering::SeqCst);
        }
        let (calls, fault) = *self.plan.lock().unwrap();
        let hit = match calls {
            Calls::None => false,
            Calls::From(first) => n >= first,
            Calls::Only(only) => n == only,
            Calls::Puts => kind == Kind::Put,
            Calls::Lists => kind == Kind::List,
            Calls::Gets => kind == Kind::Get,
        };
        hit.then_some(fault)
    }
}

fn error(fault: Fault) -> object_store::Error {
    match fault {
        Fault::Before | Fault::After => object_store::Error::Generic {
            store: "Faulty",
            source: "injected".into(),
        },
        Fault::Denied => object_store::Error::PermissionDenied {
            path: "some/path".into(),
            source: "Server returned non-2xx status code: 403 Forbidden: \
                     <Error><Code>AccessDenied</Code><Message>no</Message>\
                     <AWSAccessKeyId>AKIDSECRET</AWSAccessKeyId></Error>"
                .into(),
        },
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if let Some(error) = self.put_error.lock().unwrap().take() {
            return Err(error);
        }
        let denies = self.denies_replacing.load(Ordering::SeqCst);
        if denies && self.inner.head(location).await.is_ok() {
            return Err(error(Fault::Denied));
        }
        match self.fault(Kind::Put) {
            None => self.inner.put_opts(location, payload, options).await,
            Some(Fault::After) => {
                let _ = self.inner.put_opts(location, payload, options).await;
                Err(error(Fault::After))
            }
            Some(fault) => Err(error(fault)),
        }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        panic!("the repository uses no multipart uploads")
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        match self.fault(Kind::Get) {
            None => self.inner.get_opts(location, options).await,
            Some(fault) => Err(error(fault)),
        }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        match self.fault(Kind::Delete) {
            None => self.inner.delete_stream(paths),
            Some(Fault::After) => {
                let inner = Arc::clone(&self.inner);
                let deleted = async move {
                    let _: Vec<_> = inner.delete_stream(paths).collect().await;
                    Err(error(Fault::After))
                };
                stream::once(deleted).boxed()
            }
            Some(fault) => stream::once(async move { Err(error(fault)) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.fault(Kind::List) {
            None => match self.after_list.lock().unwrap().take() {
                None => self.inner.list(prefix),
                Some(objects) => list_then_put(Arc::clone(&self.inner), prefix, objects),
            },
            Some(fault) => stream::once(async move { Err(error(fault)) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> object_store::Result<ListResult> {
        panic!("the repository lists whole prefixes")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> object_store::Result<()> {
        panic!("the repository copies nothing")
    }
}

fn list_then_put(
    inner: Arc<InMemory>,
    prefix: Option<&Path>,
    objects: Vec<(String, Bytes)>,
) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
    let prefix = prefix.cloned();
    let listed = async move {
        let listed: Vec<_> = inner.list(prefix.as_ref()).collect().await;
        for (key, bytes) in objects {
            inner.put(&Path::from(key), bytes.into()).await.unwrap();
        }
        stream::iter(listed)
    };
    stream::once(listed).flatten().boxed()
}

pub(crate) fn passphrase() -> Passphrase {
    Passphrase::new("correct horse battery staple").unwrap()
}

pub(crate) async fn init(store: Arc<dyn ObjectStore>) -> Repository {
    Repository::init(store, &passphrase(), KdfCost::cheapest())
        .await
        .unwrap()
}

pub(crate) async fn open(store: Arc<dyn ObjectStore>) -> Result<Repository, Error> {
    Repository::open(store, &passphrase()).await
}

pub(crate) fn session(seed: u64) -> SessionId {
    SessionId::random(&mut StdRng::seed_from_u64(seed))
}

pub(crate) fn cluster(repository: &Repository) -> ClusterKey {
    repository.cluster_key("test")
}

pub(crate) fn request(repository: &Repository, seed: u64) -> SessionRequest {
    SessionRequest {
        id: session(seed),
        cluster: cluster(repository),
        purpose: Purpose::Backup,
        label: Bytes::from_static(b"label"),
    }
}

/// A small backup: `chunks` data chunks of some kilobytes, and a root that names them.
pub(crate) async fn backup(
    repository: &Repository,
    seed: u64,
    chunks: std::ops::Range<u64>,
) -> Result<Snapshot, Error> {
    let writer = repository.begin(request(repository, seed)).await?;
    let mut names = format!("root {seed}\n");
    for n in chunks {
        let id = writer.put(ChunkKind::Data, contents(n)).await?;
        names.push_str(&format!("{id}\n"));
    }
    let root = writer.put(ChunkKind::Metadata, names.into()).await?;
    writer.commit(root, Bytes::from_static(b"{}")).await
}

pub(crate) fn contents(n: u64) -> Bytes {
    format!("chunk {n} ").repeat(100 + n as usize * 10).into()
}

/// Reads all chunks that a root of [`backup`] names.
pub(crate) async fn restore(
    repository: &Repository,
    snapshot: &Snapshot,
) -> Result<Vec<Bytes>, Error> {
    let reader = repository.reader().await?;
    let root = reader.get(&snapshot.root).await?;
    let text = String::from_utf8(root.to_vec()).unwrap();
    let ids: Vec<ChunkId> = text.lines().skip(1).map(|id| id.parse().unwrap()).collect();
    let mut chunks = Vec::new();
    let mut read = std::pin::pin!(reader.get_ordered(ids));
    while let Some(chunk) = read.next().await {
        chunks.push(chunk?.1);
    }
    Ok(chunks)
}

/// What the roots of [`backup`] lead to.
pub(crate) struct Listing;

impl Contents for Listing {
    fn links(&self, _: Role, plain: &[u8]) -> Result<Vec<Link>, String> {
        let text = std::str::from_utf8(plain).map_err(|error| error.to_string())?;
        let ids = text
            .lines()
            .skip(1)
            .map(|id| id.parse().map(Link::Contents));
        ids.collect::<Result<_, _>>()
            .map_err(|error| format!("{error}"))
    }

    fn lineage(&self, _: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    fn is_complete(&self, _: &[u8]) -> bool {
        true
    }
}

/// Options of a collection that waits for nobody and honours everything.
pub(crate) fn at_once() -> CollectOptions {
    CollectOptions {
        delete: true,
        grace: Duration::ZERO,
        keep_at_least: 0,
        delete_percent_max: 100,
        stall: Duration::ZERO,
        poll: Duration::from_millis(1),
        objects_max: 1,
        bytes_min: 1,
    }
}

/// All objects of a store.
pub(crate) async fn objects(store: &InMemory) -> Vec<(String, Bytes)> {
    let mut found = Vec::new();
    let mut listing = store.list(None);
    while let Some(meta) = listing.next().await {
        let path = meta.unwrap().location;
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        found.push((path.to_string(), bytes));
    }
    found.sort();
    found
}

/// A store that holds these objects.
pub(crate) async fn store_of<'a>(
    objects: impl IntoIterator<Item = (&'a str, Bytes)>,
) -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    for (key, bytes) in objects {
        store.put(&Path::from(key), bytes.into()).await.unwrap();
    }
    store
}

//! A repository: making one, opening it, upgrading it, and what its handle
//! remembers of objects that never change. Never deletes, never overwrites.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread::available_parallelism,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::ObjectStore;
use rand::Rng;
use tokio::sync::Semaphore;

use crate::{
    buffers::Buffers,
    compress::Coders,
    crypto::{Keys, MasterKey},
    error::{Error, Result},
    format::{Access, FORMAT_BYTES, Features, Format, encode, newer},
    generation::RunBody,
    header::{FORMAT_VERSION, LAYOUT},
    ids::{ChunkId, ClusterKey, RepositoryId, SessionId},
    index::Index,
    keyslot::{KdfCost, Passphrase, SLOT_BYTES, Slot, wrap},
    names::{FORMAT, KEYS, Name, PROBE},
    probe::{Probe, StoreAbilities, probe},
    protocol::Generation,
    random::Randomness,
    record::{EndBody, Records},
    refresh::READS,
    store::{Created, Objects},
    wire::Damage,
};

/// Slots that are tried for one passphrase, each at the cost of one derivation.
const SLOTS_MAX: usize = 16;
/// Slots that are read. Some may be left over from initialisations that lost a race.
const SLOTS_READ_MAX: usize = 64;
/// Objects that are looked at to tell an empty location from a foreign one.
const FOREIGN_SCAN_MAX: usize = 1024;
/// Chunks that are compressed at one time, however many cores there are.
const CODERS_MAX: usize = 4;
/// Packs that are in upload at one time, over all writers of one handle.
const UPLOADS: usize = 4;

/// An open repository. Clones share one handle, with one index and one bound
/// on memory.
#[derive(Clone)]
pub struct Repository {
    pub(crate) shared: Arc<Shared>,
}

/// What all clones, writers and readers of a handle share.
pub(crate) struct Shared {
    pub(crate) objects: Objects,
    pub(crate) keys: Arc<Keys>,
    pub(crate) id: RepositoryId,
    pub(crate) format: u16,
    access: Access,
    pub(crate) coders: Coders,
    pub(crate) buffers: Buffers,
    pub(crate) coding: Semaphore,
    pub(crate) uploading: Arc<Semaphore>,
    index: RwLock<Index>,
    /// The newest run that was seen, and its head.
    pub(crate) head: RwLock<(Generation, Arc<RunBody>)>,
    ends: RwLock<BTreeMap<(ClusterKey, SessionId), EndBody>>,
    pub(crate) randomness: Randomness,
}

impl Repository {
    /// Makes a repository in an empty location.
    ///
    /// # Errors
    /// [`Error::AlreadyInitialized`] if there is one, also if it was made at the
    /// same moment; [`Error::Foreign`] if there is anything else.
    pub async fn init(
        store: Arc<dyn ObjectStore>,
        passphrase: &Passphrase,
        cost: KdfCost,
    ) -> Result<Self> {
        let objects = Objects::new(store);
        match read_format(&objects).await {
            Ok(_) => return Err(Error::AlreadyInitialized),
            Err(Error::NotInitialized) => {}
            Err(error) => return Err(error),
        }
        let mut random = [0; 64];
        rand::rng().fill_bytes(&mut random);
        let (master, rest) = random.split_at(32);
        let mut key = [0; 32];
        key.copy_from_slice(master);
        let key = MasterKey::new(key);
        let mut ids = [[0; 16]; 2];
        for (id, bytes) in ids.iter_mut().zip(rest.chunks_exact(16)) {
            id.copy_from_slice(bytes);
        }
        let id = RepositoryId::from_bytes(ids[0]);
        let slot_key = Name::Slot(ids[1]).key();

        let wrapped = {
            let (name, master, passphrase) = (slot_key.clone(), key.clone(), passphrase.clone());
            blocking(move || wrap(&name, id, &master, &passphrase, cost, &mut rand::rng()))
                .await??
        };
        if let Created::Theirs(_) = objects.create(&slot_key, wrapped.into()).await? {
            return Err(Error::Occupied { key: slot_key });
        }
        let keys = Keys::derive(&key, id);
        // The first format decides who has made the repository, also against
        // programs that know no other; then it is upgraded like any.
        let format = |n: u16| {
            encode(
                &Name::Format(n.into()).key(),
                n,
                id,
                Features::default(),
                &keys,
            )
        };
        let first = Name::Format(LAYOUT.into()).key();
        if let Created::Theirs(_) = objects.create(&first, format(LAYOUT).into()).await? {
            return Err(Error::AlreadyInitialized);
        }
        let made = Self::new(objects, Arc::new(keys), id, LAYOUT, Access::ReadWrite);
        made.upgrade().await
    }

    /// Upgrades the repository to the newest format, and returns a handle on it.
    /// Programs that know only older formats can then open it no more; what they
    /// have open goes on safely. Harmless if it is of the newest format already.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], or one of the store.
    pub async fn upgrade(&self) -> Result<Self> {
        let shared = &self.shared;
        shared.check_writable()?;
        let Shared {
            objects, keys, id, ..
        } = shared.as_ref();
        let key = Name::Format(FORMAT_VERSION.into()).key();
        let bytes = encode(&key, FORMAT_VERSION, *id, Features::default(), keys);
        if let Created::Theirs(bytes) = objects.create(&key, bytes.into()).await? {
            let found = Format::parse(&key, &bytes)?;
            found.check_mac(&key, &bytes, keys)?;
        }
        Ok(Self::new(
            objects.clone(),
            Arc::clone(keys),
            *id,
            FORMAT_VERSION,
            shared.access.clone(),
        ))
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// [`Error::NotInitialized`], [`Error::Foreign`], [`Error::WrongPassphrase`],
    /// [`Error::NewerFormat`], [`Error::UnknownFeatures`], [`Error::Corrupt`], or
    /// one of the store.
    pub async fn open(store: Arc<dyn ObjectStore>, passphrase: &Passphrase) -> Result<Self> {
        let objects = Objects::new(store);
        let (format, slots) = tokio::join!(read_format(&objects), read_slots(&objects));
        let (format_key, bytes) = format?;
        let format = Format::parse(&format_key, &bytes)?;
        let access = format.check_features()?;
        let master = unlock(slots?, format.repository, passphrase).await?;
        let keys = Keys::derive(&master, format.repository);
        format.check_mac(&format_key, &bytes, &keys)?;
        let Format {
            version,
            repository,
            ..
        } = format;
        Ok(Self::new(
            objects,
            Arc::new(keys),
            repository,
            version,
            access,
        ))
    }

    pub(crate) fn new(
        objects: Objects,
        keys: Arc<Keys>,
        id: RepositoryId,
        format: u16,
        access: Access,
    ) -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            shared: Arc::new(Shared {
                objects,
                keys,
                id,
                format,
                access,
                coders: Coders::default(),
                buffers: Buffers::default(),
                coding: Semaphore::new(cores.min(CODERS_MAX)),
                uploading: Arc::new(Semaphore::new(UPLOADS)),
                index: RwLock::default(),
                head: RwLock::default(),
                ends: RwLock::default(),
                randomness: Randomness::default(),
            }),
        }
    }

    /// The repository's id: the same wherever it is copied to.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.shared.id
    }

    /// The version of the repository's format.
    #[must_use]
    pub fn format_version(&self) -> u32 {
        self.shared.format.into()
    }

    /// Whether this program may write here.
    #[must_use]
    pub fn access(&self) -> Access {
        self.shared.access.clone()
    }

    /// The key under which a cluster's sessions are. `identity` never changes
    /// for a cluster and is shared by no other.
    #[must_use]
    pub fn cluster_key(&self, identity: &str) -> ClusterKey {
        self.shared.keys.cluster_key(identity)
    }

    /// The id that these bytes have as a chunk. Stores nothing.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        self.shared.keys.chunk_id(plain)
    }

    /// Tries what the store and the credentials can do. It writes one object
    /// below `probe/` that stays, by 16 requests: once in a while, not each time.
    ///
    /// # Errors
    /// Those of the store, except a denied create or list, which is an answer.
    pub async fn probe(&self) -> Result<StoreAbilities> {
        let drawn = Probe::draw(&mut self.shared.randomness.rng());
        probe(&self.shared.objects, drawn).await
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn records(&self) -> Records<'_> {
        Records {
            keys: &self.keys,
            repository: self.id,
        }
    }

    pub(crate) fn format_key(&self) -> String {
        Name::Format(self.format.into()).key()
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        match &self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly(reason) => Err(Error::ReadOnly {
                reason: reason.clone(),
            }),
        }
    }

    // A poisoned lock means that a thread panicked between two inserts: what is
    // there is still true.
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ends(&self) -> RwLockReadGuard<'_, BTreeMap<(ClusterKey, SessionId), EndBody>> {
        self.ends.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ends_mut(
        &self,
    ) -> RwLockWriteGuard<'_, BTreeMap<(ClusterKey, SessionId), EndBody>> {
        self.ends.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember_end(&self, cluster: ClusterKey, session: SessionId, end: EndBody) {
        self.ends_mut().insert((cluster, session), end);
    }
}

/// Runs what takes the CPU for long where it does not hold up I/O.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Internal {
            what: "a worker thread",
        })
}

/// The newest format object. Tells an empty location from a foreign one.
async fn read_format(objects: &Objects) -> Result<(String, Bytes)> {
    let n = match newest_format(objects).await? {
        Some(n) => n,
        None => {
            let ours = |key: &str| key.starts_with(KEYS) || key.starts_with(PROBE);
            let example = objects.find(FOREIGN_SCAN_MAX, |key| !ours(key)).await?;
            let example = example.ok_or(Error::NotInitialized)?;
            // Somebody may have made the repository between the two listings.
            let made = newest_format(objects).await?;
            made.ok_or(Error::Foreign { example })?
        }
    };
    let key = Name::Format(n).key();
    if n > u32::from(FORMAT_VERSION) {
        return Err(newer(n));
    }
    let bytes = objects.get_bounded(&key, FORMAT_BYTES).await?;
    Ok((key, bytes))
}

async fn newest_format(objects: &Objects) -> Result<Option<u32>> {
    let listed = objects.list(FORMAT).await?;
    let numbers = listed.iter().filter_map(|key| match Name::parse(key) {
        Some(Name::Format(n)) => Some(n),
        _ => None,
    });
    Ok(numbers.max())
}

/// The key slots, in the order of their names.
async fn read_slots(objects: &Objects) -> Result<Vec<(String, Result<Bytes>)>> {
    let mut keys = objects.list(KEYS).await?;
    keys.retain(|key| matches!(Name::parse(key), Some(Name::Slot(_))));
    keys.sort_unstable();
    keys.truncate(SLOTS_READ_MAX);
    let reads = stream::iter(keys).map(|key| async {
        let read = objects.get_bounded(&key, SLOT_BYTES).await;
        (key, read)
    });
    Ok(reads.buffered(READS).collect().await)
}

async fn unlock(
    slots: Vec<(String, Result<Bytes>)>,
    repository: RepositoryId,
    passphrase: &Passphrase,
) -> Result<MasterKey> {
    let mut damaged = None;
    let mut tried = 0;
    for (key, read) in slots {
        if tried == SLOTS_MAX {
            break;
        }
        let slot = match read {
            Ok(bytes) => Slot::parse(&key, &bytes).map_err(|damage| Error::corrupt(&key, damage)),
            Err(error @ Error::Corrupt { .. }) => Err(error),
            Err(error) => return Err(error),
        };
        let slot = match slot {
            Ok(slot) if slot.repository == repository => slot,
            Ok(_) => continue,
            Err(error) => {
                damaged.get_or_insert(error);
                continue;
            }
        };
        tried += 1;
        let passphrase = passphrase.clone();
        match blocking(move || slot.unwrap(&key, &passphrase)).await? {
            Ok(Some(master)) => return Ok(master),
            Ok(None) => {}
            Err(error) => {
                damaged.get_or_insert(error);
            }
        }
    }
    Err(match damaged {
        Some(error) => error,
        None if tried == 0 => Error::corrupt(KEYS, Damage::Field("no key slot of this repository")),
        None => Error::WrongPassphrase,
    })
}

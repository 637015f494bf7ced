//! Test support: what a store must do to hold a repository, as one suite that
//! runs on every store. Writes into the store and cleans nothing up.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use object_store::ObjectStore;

use crate::{
    Checked, ChunkKind, End, Error, KdfCost, Passphrase, Purpose, Repository, SessionId,
    SessionRequest, StoreAbilities,
    store::{Created, Objects},
};

/// Rounds of the race between commit and fence.
const RACES: usize = 8;
const CHUNKS: usize = 40;

/// A store does not do what a repository needs.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    what: String,
    #[source]
    source: Option<Error>,
}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        Self {
            what: "a call failed".to_owned(),
            source: Some(error),
        }
    }
}

fn ensure(holds: bool, what: impl fmt::Display) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation {
            what: what.to_string(),
            source: None,
        })
    }
}

/// Runs all of the contract on an empty store.
///
/// # Errors
/// The first violation.
pub async fn check_store(store: Arc<dyn ObjectStore>) -> Result<(), Violation> {
    create_read_list(&Objects::new(Arc::clone(&store))).await?;
    let store = object_store::prefix::PrefixStore::new(store, "repository");
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    let passphrase = Passphrase::new("the contract of a store")?;
    initialise_once(&store, &passphrase).await?;
    let repository = Repository::open(Arc::clone(&store), &passphrase).await?;
    let abilities = repository.probe().await?;
    let all = StoreAbilities {
        can_write: true,
        can_list: true,
        atomic_create: Some(true),
    };
    ensure(abilities == all, format!("the probe found {abilities:?}"))?;
    write_and_read(&repository).await?;
    for _ in 0..RACES {
        commit_or_fence(&repository).await?;
    }
    check_all(&store, &repository).await
}

async fn create_read_list(objects: &Objects) -> Result<(), Violation> {
    let first = Bytes::from_static(b"0123456789");
    let created = objects.create("raw/one", first.clone()).await?;
    ensure(
        matches!(created, Created::Ours),
        "a new object was not created",
    )?;
    let again = objects.create("raw/one", first.clone()).await?;
    ensure(
        matches!(again, Created::Ours),
        "an object is not equal to itself",
    )?;
    let other = objects
        .create("raw/one", Bytes::from_static(b"other"))
        .await?;
    ensure(
        matches!(other, Created::Theirs(b) if b == first),
        "an object was overwritten",
    )?;
    ensure(
        objects.get_range("raw/one", 2..5).await? == "234",
        "a range is wrong",
    )?;
    let behind = objects.get_range("raw/one", 8..12).await;
    ensure(
        matches!(behind, Err(Error::Corrupt { .. })),
        "a range behind the end was read",
    )?;
    let behind = objects.get_range("raw/one", 20..24).await;
    ensure(
        matches!(behind, Err(Error::Corrupt { .. })),
        "a range far behind the end was read",
    )?;
    let missing = objects.get("raw/none").await;
    ensure(
        matches!(missing, Err(Error::Missing { .. })),
        "a missing object was read",
    )?;
    ensure(
        objects.list("nothing").await?.is_empty(),
        "an empty prefix lists something",
    )?;

    // More than one page of a listing of S3.
    let names: Vec<String> = (0..1100).map(|n| format!("many/{n:04}")).collect();
    for some in names.chunks(64) {
        let creates = some
            .iter()
            .map(|name| objects.create(name, Bytes::from_static(b"x")));
        for created in join_all(creates).await {
            created?;
        }
    }
    ensure(
        objects.list("many").await? == names,
        "a long listing is not complete",
    )
}

async fn initialise_once(
    store: &Arc<dyn ObjectStore>,
    passphrase: &Passphrase,
) -> Result<(), Violation> {
    let init = || Repository::init(Arc::clone(store), passphrase, KdfCost::cheapest());
    let mut made = 0;
    for outcome in join_all((0..4).map(|_| init())).await {
        match outcome {
            Ok(_) => made += 1,
            Err(Error::AlreadyInitialized) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ensure(
        made == 1,
        format!("{made} repositories were made at one place"),
    )
}

fn request(repository: &Repository) -> SessionRequest {
    SessionRequest {
        id: SessionId::random(&mut rand::rng()),
        cluster: repository.cluster_key("contract"),
        purpose: Purpose::Backup,
        label: Bytes::from_static(b"contract"),
    }
}

/// Chunks of different sizes, compressible and not.
fn chunk(n: usize) -> Bytes {
    let mut bytes = vec![0; n * n * 257 % 100_000];
    let mut state = n as u64;
    for byte in bytes.iter_mut().step_by(1 + n % 3) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    bytes.into()
}

async fn write_and_read(repository: &Repository) -> Result<(), Violation> {
    let writer = repository.begin(request(repository)).await?;
    let mut ids = Vec::new();
    for n in 0..CHUNKS {
        let kind = if n % 5 == 0 {
            ChunkKind::Metadata
        } else {
            ChunkKind::Data
        };
        ids.push(writer.put(kind, chunk(n)).await?);
    }
    let root = ids[CHUNKS - 1];
    let snapshot = writer.commit(root, Bytes::from_static(b"summary")).await?;
    let listed = repository.snapshots().await?;
    ensure(listed.unreadable.is_empty(), "a record cannot be read")?;
    ensure(
        listed.snapshots.contains(&snapshot),
        "a commit is not listed",
    )?;

    let reader = repository.reader().await?;
    ids.reverse();
    let read: Vec<_> = reader.get_ordered(ids.clone()).collect().await;
    ensure(read.len() == ids.len(), "chunks are missing")?;
    for ((n, id), outcome) in (0..CHUNKS).rev().zip(ids).zip(read) {
        ensure(outcome? == (id, chunk(n)), format!("chunk {n} differs"))?;
    }
    Ok(())
}

async fn commit_or_fence(repository: &Repository) -> Result<(), Violation> {
    let request = request(repository);
    let (cluster, session) = (request.cluster, request.id);
    let writer = repository.begin(request).await?;
    let root = writer
        .put(ChunkKind::Metadata, Bytes::from(session.to_string()))
        .await?;
    let fences = join_all((0..3).map(|_| repository.fence(cluster, session)));
    let (committed, fenced) = tokio::join!(writer.commit(root, Bytes::new()), fences);
    let end = match committed {
        Ok(snapshot) => End::Committed(snapshot),
        Err(Error::Fenced { .. }) => End::Fenced,
        Err(error) => return Err(error.into()),
    };
    for seen in fenced {
        ensure(seen? == end, "commit and fence both won")?;
    }
    let seen = repository.session_end(cluster, session).await?;
    ensure(seen == Some(end), "the end of a session changed")
}

async fn check_all(store: &Arc<dyn ObjectStore>, repository: &Repository) -> Result<(), Violation> {
    let objects = Objects::new(Arc::clone(store));
    for prefix in ["format", "keys", "open", "end", "index", "packs", "probe"] {
        let keys = objects.list(prefix).await?;
        ensure(!keys.is_empty(), format!("nothing below {prefix:?}"))?;
        for key in keys {
            let checked = repository.check_object(&key).await?;
            let is_probe = prefix == "probe";
            ensure(
                (checked == Checked::Ignored) == is_probe,
                format!("{key:?} is strange"),
            )?;
        }
    }
    Ok(())
}

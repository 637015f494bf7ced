//! Random changes of stored objects. Each is noticed, with an error that names
//! the object, or harmless: nothing panics, nothing reads as other data, and no
//! snapshot is silently missing.
//!
//! `LIFEBUOY_MUTATIONS` sets how many; `LIFEBUOY_MUTATION=<seed>` runs the one
//! whose seed a failure printed.

mod change;

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use lifebuoy_repo::{ChunkId, ChunkKind, Error, Reader, Repository, SessionRequest, Snapshot};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use self::change::{Change, How, Stored, kind};
use crate::support::*;

const COUNT_VARIABLE: &str = "LIFEBUOY_MUTATIONS";
const SEED_VARIABLE: &str = "LIFEBUOY_MUTATION";
const COUNT: u64 = 100_000;
/// Pins of one snapshot that a change can make.
const PINS_MAX: u64 = 5;
/// After one change in so many, a backup is made as well: it takes longer.
const BACKUP_EVERY: u32 = 8;
/// From so many on, every way to change every kind must have come up.
const COUNT_COMPLETE: u64 = 10_000;

/// A repository as it was written, and what must be read from it.
struct World {
    store: InMemory,
    stored: Stored,
    snapshots: Vec<Snapshot>,
    chunks: Vec<(ChunkId, Bytes)>,
}

impl World {
    async fn write() -> Self {
        let store = Arc::new(InMemory::new());
        let repository = init(store.clone()).await;
        // Two that begin before either commits store the same chunks twice.
        let one = begin(&repository, 1, "prod").await.unwrap();
        let other = begin(&repository, 2, "staging").await.unwrap();
        let mut written = BTreeMap::new();
        written.insert(session(1), one.finish(&[0, 1, 2, 3]).await);
        written.insert(session(2), other.finish(&[2, 3]).await);
        let mut write = async |seed, cluster, contents: &[u64]| {
            let begun = begin(&repository, seed, cluster).await.unwrap();
            written.insert(session(seed), begun.finish(contents).await);
        };
        write(3, "prod", &[2, 3, 4, 5]).await;
        write(4, "prod", &[4]).await;
        // A collection that lets the last one go, and leaves its records.
        repository.forget(session(4), "old").await.unwrap();
        let collected = repository.collect(&Listing, &at_once()).await.unwrap();
        assert_eq!((collected.generation, collected.forgotten), (Some(1), 1));
        for (seed, cluster, contents) in [
            (10, "prod", &[0, 4, 6, 7][..]),
            (11, "prod", &[7][..]),
            (12, "staging", &[][..]),
        ] {
            write(seed, cluster, contents).await;
        }
        for seed in [2, 11] {
            repository.forget(session(seed), "old").await.unwrap();
        }
        for seed in [1, 12] {
            repository.pin(session(seed), "kept").await.unwrap();
        }
        repository.unpin(session(12), "no longer").await.unwrap();
        let prod = repository.cluster_key("prod");
        let term = repository.claim(None, prod).await.unwrap();
        repository.claim(Some(term), prod).await.unwrap();
        // One that is fenced, and two that never end and live on for two beats.
        repository.fence(prod, session(6)).await.unwrap();
        let unended = [
            begin(&repository, 7, "prod").await.unwrap(),
            begin(&repository, 8, "staging").await.unwrap(),
        ];
        tokio::time::sleep(Duration::from_secs(150)).await;
        drop(unended);

        let snapshots = repository.snapshots().await.unwrap().snapshots;
        let sessions: Vec<_> = snapshots.iter().map(|s| s.session).collect();
        written.retain(|session, _| sessions.contains(session));
        assert_eq!((sessions.len(), written.len()), (6, 6));
        let chunks: BTreeMap<ChunkId, Bytes> = written.into_values().flatten().collect();
        Self {
            stored: Stored::new(objects(&store).await),
            store: store.fork(),
            snapshots,
            chunks: chunks.into_iter().collect(),
        }
    }

    async fn changed(&self, change: &Change) -> Arc<InMemory> {
        let store = self.store.fork();
        for (key, bytes) in &change.objects {
            let path = Path::from(key.as_str());
            match bytes {
                Some(bytes) => drop(store.put(&path, bytes.clone().into()).await.unwrap()),
                None => store.delete(&path).await.unwrap(),
            }
        }
        Arc::new(store)
    }
}

struct Begun(lifebuoy_repo::Writer);

async fn begin(repository: &Repository, seed: u64, cluster: &str) -> Result<Begun, Error> {
    let request = SessionRequest {
        cluster: repository.cluster_key(cluster),
        ..request(repository, seed)
    };
    repository.begin(request).await.map(Begun)
}

impl Begun {
    /// Commits a snapshot, and returns the chunks that it leads to.
    async fn finish(self, numbers: &[u64]) -> Vec<(ChunkId, Bytes)> {
        let writer = self.0;
        let mut root = format!("root of {}\n", writer.session());
        let mut chunks = Vec::new();
        for number in numbers {
            let plain = small_contents(*number);
            let id = writer.put(ChunkKind::Data, plain.clone()).await.unwrap();
            root.push_str(&format!("{id}\n"));
            chunks.push((id, plain));
        }
        let root = Bytes::from(root);
        let id = writer.put(ChunkKind::Metadata, root.clone()).await.unwrap();
        chunks.push((id, root));
        writer.commit(id, Bytes::from_static(b"{}")).await.unwrap();
        chunks
    }
}

/// Every third chunk does not compress, and one is empty.
fn small_contents(number: u64) -> Bytes {
    match number % 3 {
        0 => {
            let mut noise = vec![0; 300];
            StdRng::seed_from_u64(number).fill_bytes(&mut noise);
            noise.into()
        }
        1 => format!("chunk {number} ").repeat(50).into(),
        _ if number == 2 => Bytes::new(),
        _ => contents(number),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// An error, or a report of what cannot be read.
    Noticed,
    /// Everything was read as it was written.
    Harmless,
}

impl World {
    /// Opens, lists, reads and checks. Panics if anything is not as it must be.
    async fn outcome(&self, change: &Change, rng: &mut StdRng) -> Outcome {
        let store = self.changed(change).await;
        let repository = match open(store).await {
            Ok(repository) => repository,
            Err(error) => {
                assert!(told_at_the_door(&error, change), "opening: {error:?}");
                return Outcome::Noticed;
            }
        };
        let noticed = [
            self.check(&repository, change).await,
            self.list(&repository, change).await,
            self.read(&repository, change, rng).await,
            rng.random_ratio(1, BACKUP_EVERY) && self.back_up(&repository, change).await,
        ];
        match noticed.contains(&true) {
            true => Outcome::Noticed,
            false => Outcome::Harmless,
        }
    }

    /// The check of single objects finds every change of every byte.
    async fn check(&self, repository: &Repository, change: &Change) -> bool {
        let mut noticed = false;
        for (key, bytes) in &change.objects {
            let same = self.stored.bytes.get(key) == bytes.as_ref();
            // Nothing depends on what a probe holds, and who owns a slot only its
            // passphrase tells: opening passes over one under another's name.
            let nobodys = match (kind(key), bytes) {
                ("probe", Some(bytes)) => bytes.len() == 32,
                ("keys", Some(bytes)) => self.stored.bytes.values().any(|slot| slot == bytes),
                _ => false,
            };
            match repository.check_object(key).await {
                Ok(_) => assert!(same || nobodys, "{key} passes the check"),
                Err(error) => {
                    let told = told_at_the_door(&error, change);
                    assert!(!same && told, "checking {key}: {error:?}");
                    noticed = true;
                }
            }
        }
        noticed
    }

    /// Every snapshot is listed as it was, or its end is said to be unreadable.
    async fn list(&self, repository: &Repository, change: &Change) -> bool {
        let listed = match repository.snapshots().await {
            Ok(listed) => listed,
            Err(error) => {
                assert!(names_or_misses(&error, change), "listing: {error:?}");
                return true;
            }
        };
        let mut rest = listed.snapshots;
        for original in &self.snapshots {
            let end = format!("end/{}/{}", original.cluster, original.session);
            let unreadable = listed.unreadable.iter().any(|(key, _)| *key == end);
            let expected = self.marked(original, change);
            match rest.iter().position(|snapshot| *snapshot == expected) {
                Some(at) => drop(rest.remove(at)),
                // A deleted end looks like a session that never ended, unless a run
                // lists it or this handle knew it: that is an error. For others,
                // `open` is there still, the sequence has a gap, and a collector
                // refuses to work on fewer snapshots than were last recorded.
                None => assert!(
                    unreadable || change.deletes("end") && change.touches(&end),
                    "{} is missing",
                    original.session
                ),
            }
            match repository.snapshot(original.session).await {
                Ok(found) => assert_eq!(found, expected),
                Err(Error::Forgotten { .. }) => assert!(expected.forgotten),
                Err(Error::NeverEnded { fenced: false, .. } | Error::NotFound { .. }) => {
                    assert!(change.deletes("end") && change.touches(&end));
                }
                Err(error) => assert!(names(&error, change), "{}: {error:?}", original.session),
            }
        }
        assert!(rest.is_empty(), "never committed: {rest:?}");
        for (key, error) in &listed.unreadable {
            assert!(
                change.touches(key) && names(error, change),
                "{key}: {error:?}"
            );
        }
        !listed.unreadable.is_empty()
    }

    /// A snapshot as it is listed. Forgetting and pinning are requests that count
    /// by their names; that a record is not what it should be, the check of single
    /// objects tells.
    fn marked(&self, original: &Snapshot, change: &Change) -> Snapshot {
        let exists = |key: &str| match change.objects.get(key) {
            Some(bytes) => bytes.is_some(),
            None => self.stored.bytes.contains_key(key),
        };
        let session = original.session;
        let pin = |n: &u64| exists(&format!("pin/{session}/{n}"));
        Snapshot {
            forgotten: exists(&format!("forget/{session}")),
            pinned: (1..=PINS_MAX).rfind(pin).unwrap_or(0) % 2 == 1,
            ..original.clone()
        }
    }

    /// Every chunk of every snapshot is as it was, or its reading fails.
    async fn read(&self, repository: &Repository, change: &Change, rng: &mut StdRng) -> bool {
        let reader = match repository.reader().await {
            Ok(reader) => reader,
            Err(error) => {
                assert!(names_or_misses(&error, change), "a reader: {error:?}");
                return true;
            }
        };
        for (key, error) in reader.problems() {
            assert!(names_or_misses(error, change), "{key}: {error:?}");
        }
        let mut noticed = !reader.problems().is_empty();
        let ids = self.chunks.iter().map(|(id, _)| *id).collect();
        let mut read = pin!(reader.get_ordered(ids));
        for (id, plain) in &self.chunks {
            match read.next().await.unwrap() {
                Ok(found) => assert_eq!(found, (*id, plain.clone())),
                Err(error) => {
                    assert!(told(&error, id, &reader, change), "reading {id}: {error:?}");
                    noticed = true;
                }
            }
        }
        assert!(read.next().await.is_none());
        let (id, plain) = &self.chunks[rng.random_range(0..self.chunks.len())];
        match reader.get(id).await {
            Ok(found) => assert_eq!(found, plain),
            Err(error) => assert!(told(&error, id, &reader, change), "reading {id}: {error:?}"),
        }
        noticed
    }
}

impl World {
    /// A backup of what is there already, and of something new, either fails or is
    /// as good as what it found: it never counts on what it cannot see.
    async fn back_up(&self, repository: &Repository, change: &Change) -> bool {
        let mut all = self.chunks.clone();
        all.push((ChunkId::from_bytes([0; 32]), Bytes::from_static(b"new")));
        let writer = match begin(repository, 9, "prod").await {
            Ok(begun) => begun.0,
            Err(error) => {
                let told = names_or_misses(&error, change);
                assert!(told, "beginning: {error:?}");
                return true;
            }
        };
        for (id, plain) in &mut all {
            *id = writer.put(ChunkKind::Data, plain.clone()).await.unwrap();
        }
        let root = all[all.len() - 1].0;
        let snapshot = writer.commit(root, Bytes::new()).await.unwrap();
        assert_eq!(repository.snapshot(session(9)).await.unwrap(), snapshot);
        let reader = repository.reader().await.unwrap();
        let mut noticed = false;
        for (id, plain) in &all {
            match reader.get(id).await {
                Ok(found) => assert_eq!(found, plain),
                Err(error) => {
                    assert!(names(&error, change), "after a backup: {error:?}");
                    noticed = true;
                }
            }
        }
        noticed
    }
}

/// Such an error, or one of a listing that lacks what a record says is there. With
/// the newest run, the deltas that it replaced seem to be missing.
fn names_or_misses(error: &Error, change: &Change) -> bool {
    match error {
        Error::Vanished { .. } => change.deletes("end"),
        Error::Missing { .. } if change.deletes("runs") => true,
        error => names(error, change),
    }
}

/// The error names an object that was changed.
fn names(error: &Error, change: &Change) -> bool {
    match error {
        Error::Corrupt { key, .. } | Error::Missing { key } => change.touches(key),
        _ => false,
    }
}

fn told_at_the_door(error: &Error, change: &Change) -> bool {
    match error {
        // The version is read before anything that would show that it is wrong.
        Error::NewerFormat { .. } => change.touches_kind("format"),
        Error::Corrupt { key, .. } if key == "keys" => change.deletes("keys"),
        error => names(error, change),
    }
}

fn told(error: &Error, id: &ChunkId, reader: &Reader, change: &Change) -> bool {
    match error {
        // The records that might have held it are among the reader's problems.
        Error::ChunkMissing { chunk, incomplete } => {
            chunk == id
                && *incomplete == reader.problems().len()
                && (*incomplete > 0 || change.deletes("end"))
        }
        error => names(error, change),
    }
}

/// Says how to come back, should the change that it holds fail.
struct Replay<'a>(u64, &'a Change);

#[allow(clippy::print_stderr, reason = "what a failed test says")]
impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self(seed, Change { how, objects, .. }) = self;
            let keys: Vec<_> = objects.keys().collect();
            eprintln!("{how:?} of {keys:?}; once more: {SEED_VARIABLE}={seed}");
        }
    }
}

/// How often each way to change each kind was noticed, and how often harmless.
type Tally = BTreeMap<(String, How), (u64, u64)>;

fn run(world: &World, next: &AtomicU64, end: u64) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread()
        // There is one core for it.
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let mut tally = Tally::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return tally;
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let change = Change::draw(&world.stored, &mut rng);
        let replay = Replay(seed, &change);
        let outcome = runtime.block_on(world.outcome(&change, &mut rng));
        if change.is_none(&world.stored) {
            assert_eq!(outcome, Outcome::Harmless, "nothing was changed");
        }
        drop(replay);
        let (noticed, harmless) = tally.entry((change.kind, change.how)).or_default();
        match outcome {
            Outcome::Noticed => *noticed += 1,
            Outcome::Harmless => *harmless += 1,
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

#[test]
fn every_random_change_is_noticed_or_harmless() {
    // The clock stands still but for waiting: beats come without a minute's wait.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let world = runtime.block_on(World::write());
    let (first, end) = match number(SEED_VARIABLE) {
        Some(seed) => (seed, seed + 1),
        None => (0, number(COUNT_VARIABLE).unwrap_or(COUNT)),
    };
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let work = || run(&world, &next, end);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    let mut tally = Tally::new();
    for ((kind, how), (noticed, harmless)) in tallies.into_iter().flatten() {
        let sum = tally.entry((kind, how)).or_default();
        *sum = (sum.0 + noticed, sum.1 + harmless);
    }
    for ((kind, how), (noticed, harmless)) in &tally {
        let how = format!("{how:?}");
        println!("{kind:6} {how:15} {noticed:6} noticed {harmless:6} harmless");
    }
    let (noticed, harmless) = tally
        .values()
        .fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
    println!(
        "{noticed} noticed, {harmless} harmless, in {:?}",
        begun.elapsed()
    );
    assert_eq!(noticed + harmless, end - first);
    if end - first >= COUNT_COMPLETE {
        let kinds = [
            "beat", "data", "end", "forget", "format", "gc", "index", "keeper", "keys", "meta",
            "open", "parts", "pin", "runs",
        ];
        for (kind, how) in kinds
            .iter()
            .flat_map(|kind| How::ALL.map(|how| (kind, how)))
        {
            // Of these there is but one: it cannot trade places.
            let single = how == How::Swap && ["keys", "runs"].contains(kind);
            let seen = tally
                .get(&((*kind).to_owned(), how))
                .is_some_and(|(n, _)| *n > 0);
            assert!(seen || single, "{how:?} of {kind} was never noticed");
        }
    }
}

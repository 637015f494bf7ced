//! A process with a repository of its own on the store of a world, and what it
//! can do with it. Holds every answer against the ledger.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use lifebuoy_repo::{
    ChunkId, ChunkKind, ClusterKey, CollectOptions, Contents, End, Error, Link, Purpose, Reader,
    Repository, Role, SessionId, SessionRequest, Snapshot, Writer,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::{
    ledger::{Entry, Forgetting, Ledger, Place, same_snapshot},
    pristine,
    world::World,
};

/// How often a process tries what must be done before it gives up.
const ATTEMPTS: usize = 12;

/// A world and what was promised in it.
pub(crate) struct Stage {
    pub(crate) world: Arc<World>,
    pub(crate) ledger: Ledger,
}

/// One process at work.
pub(crate) struct Process<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) name: String,
    pub(crate) cluster: ClusterKey,
    pub(crate) repository: Repository,
    pub(crate) rng: StdRng,
}

/// The number of the first contents of which no two fit into one pack.
pub(crate) const LARGE: u64 = 1_000_000;
const LARGE_BYTES: usize = 2_200_000;

/// What a backup saves and how it goes about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backup {
    /// Which contents, by number.
    pub(crate) chunks: Vec<u64>,
    /// Waits so long before each chunk, at most.
    pub(crate) pause_ms: u64,
    /// Its root is that of no other backup, even of the same chunks.
    pub(crate) own_root: bool,
    /// It gives up instead of committing.
    pub(crate) abandons: bool,
}

/// What a call may fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Collect,
}

impl Stage {
    /// A stage with an empty repository.
    pub(crate) async fn new(world: Arc<World>) -> Self {
        pristine::place(&world.inner()).await;
        let stage = Self {
            world,
            ledger: Ledger::default(),
        };
        stage.clean().await.upgrade().await.unwrap();
        stage
    }

    /// A repository without faults, that remembers nothing.
    pub(crate) async fn clean(&self) -> Repository {
        let opened = Repository::open(self.world.inner(), &pristine::passphrase()).await;
        opened.unwrap()
    }

    /// A new process. `None` if the store never let it open the repository.
    pub(crate) async fn enter(&self, name: &str, cluster: &str) -> Option<Process<'_>> {
        let store = self.world.process(name);
        let mut rng = self.world.fork_rng();
        for _ in 0..ATTEMPTS {
            match Repository::open(Arc::clone(&store), &pristine::passphrase()).await {
                Ok(repository) => {
                    repository.seed_randomness(rng.random());
                    return Some(Process {
                        stage: self,
                        name: name.to_owned(),
                        cluster: repository.cluster_key(cluster),
                        repository,
                        rng,
                    });
                }
                Err(error) => self.expect(&error, Call::Read),
            }
            let wait = rng.random_range(100..5_000);
            self.world.pause(Duration::from_millis(wait)).await;
        }
        None
    }

    /// Panics at an error that nothing in this world explains.
    pub(crate) fn expect(&self, error: &Error, call: Call) {
        let faults = self.world.faults();
        let internal = matches!(error, Error::Internal { .. } | Error::TooLarge { .. });
        let lied_to = faults.lie > 0 || faults.damage > 0;
        // A create that was told four times of a conflict with nobody.
        let conflict =
            faults.conflict > 0 && call != Call::Read && matches!(error, Error::Missing { .. });
        // The probe of a collector took such a conflict for a store that does not
        // create atomically; or somebody fenced the session that repacked.
        let refused = call == Call::Collect
            && match error {
                Error::Refused { .. } => faults.conflict > 0,
                Error::Fenced { .. } => true,
                Error::Denied { .. } => faults.lock_ms > 0,
                _ => false,
            };
        assert!(
            error.is_transient() || conflict || refused || (lied_to && !internal),
            "{call:?} failed with {error:?}"
        );
    }
}

impl Process<'_> {
    pub(crate) fn world(&self) -> &World {
        &self.stage.world
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.stage.ledger
    }

    pub(crate) async fn pause(&mut self, up_to_ms: u64) {
        let ms = self.rng.random_range(0..=up_to_ms);
        self.world().pause(Duration::from_millis(ms)).await;
    }

    pub(crate) fn say(&self, text: &str) {
        self.world().note(&self.name, text);
    }

    /// Writes down that a backup will be made.
    pub(crate) fn intend(&mut self, backup: &Backup) -> Place {
        let session = SessionId::random(&mut self.rng);
        let now = self.world().now_ms();
        self.ledger()
            .intend(session, self.cluster, backup.chunks.clone(), now)
    }

    /// Makes a backup that was intended, and if it is not clear how it ended,
    /// finds out.
    pub(crate) async fn backup(&self, place: Place, backup: &Backup) {
        let session = self.ledger().entry(place).session;
        self.say(&format!("begins {session}"));
        if backup.abandons {
            self.ledger().ask_to_fence(place);
        }
        let outcome = self.try_backup(place, session, backup).await;
        match outcome {
            Ok(Some(snapshot)) => self.told(place, End::Committed(snapshot)),
            Ok(None) => self.settle(place).await,
            Err(Error::Fenced { session: of }) => {
                assert_eq!(of, session);
                self.told(place, End::Fenced);
            }
            Err(error) => {
                self.say(&format!("{session} failed: {error}"));
                self.stage.expect(&error, Call::Write);
                self.settle(place).await;
            }
        }
    }

    fn told(&self, place: Place, end: End) {
        let entry = self.ledger().entry(place);
        let word = match &end {
            End::Committed(snapshot) => format!("committed as {}", snapshot.seq),
            End::Fenced => "fenced".to_owned(),
            End::CommittedOther => panic!("{} is no backup", entry.session),
        };
        self.say(&format!("knows that {} is {word}", entry.session));
        self.ledger().told(place, end, self.world().now_ms());
    }

    async fn try_backup(
        &self,
        place: Place,
        session: SessionId,
        backup: &Backup,
    ) -> Result<Option<Snapshot>, Error> {
        let Backup {
            chunks,
            pause_ms,
            own_root,
            abandons,
        } = backup;
        let writer = self.begin(session).await?;
        self.ledger().has_begun(place, self.world().now_ms());
        let mut root = String::new();
        if *own_root {
            root.push_str(&format!("# {session}\n"));
        }
        for n in chunks {
            if *pause_ms > 0 {
                self.world().pause(Duration::from_millis(*pause_ms)).await;
            }
            let id = writer.put(ChunkKind::Data, contents(*n)).await?;
            root.push_str(&format!("{id}\n"));
        }
        let root = writer.put(ChunkKind::Metadata, root.into()).await?;
        if *abandons {
            writer.abandon().await;
            return Ok(None);
        }
        writer.commit(root, summary(chunks)).await.map(Some)
    }

    /// Begins a session. To drop the writer is to leave it as it is.
    pub(crate) async fn begin(&self, session: SessionId) -> Result<Writer, Error> {
        let request = SessionRequest {
            id: session,
            cluster: self.cluster,
            purpose: Purpose::Backup,
            label: Bytes::from_static(b"simulated"),
        };
        self.repository.begin(request).await
    }

    /// Ends a session one way or the other, and learns which. Gives up at last.
    pub(crate) async fn settle(&self, place: Place) {
        let Entry {
            session, cluster, ..
        } = self.ledger().entry(place);
        self.ledger().ask_to_fence(place);
        for attempt in 1..=ATTEMPTS as u64 {
            match self.repository.fence(cluster, session).await {
                Ok(end) => return self.told(place, end),
                Err(error) => self.stage.expect(&error, Call::Write),
            }
            self.world().pause(Duration::from_secs(attempt)).await;
        }
        self.say(&format!("does not know how {session} ended"));
    }

    pub(crate) async fn forget(&self, place: Place) {
        let session = self.ledger().entry(place).session;
        self.ledger().forgetting(place, Forgetting::Asked);
        match self.repository.forget(session, "simulated").await {
            Ok(()) => {
                self.say(&format!("has forgotten {session}"));
                self.ledger().forgetting(place, Forgetting::Acknowledged);
            }
            Err(error) => self.stage.expect(&error, Call::Write),
        }
    }

    /// Reads a snapshot that was acknowledged. It may fail; it may not be wrong.
    pub(crate) async fn restore(&self, place: Place) {
        let entry = self.ledger().entry(place);
        let Some(snapshot) = entry.committed() else {
            return;
        };
        let read = async {
            let reader = self.repository.reader().await?;
            self.check_problems(&reader);
            read(&reader, snapshot).await
        };
        match read.await {
            Ok(found) => assert_read(&entry, &found),
            Err(error) => {
                let forgetting = self.ledger().entry(place).forgetting;
                if forgetting == Forgetting::No {
                    self.stage.expect(&error, Call::Read);
                }
            }
        }
    }

    fn check_problems(&self, reader: &Reader) {
        for (key, error) in reader.problems() {
            self.say(&format!("has a problem with {key}"));
            self.stage.expect(error, Call::Read);
        }
    }

    /// Lists all snapshots: what was acknowledged before must be there.
    pub(crate) async fn list(&self) {
        let before = self.ledger().entries();
        let listed = match self.repository.snapshots().await {
            Ok(listed) => listed,
            Err(error) => return self.stage.expect(&error, Call::Read),
        };
        for (_, error) in &listed.unreadable {
            self.stage.expect(error, Call::Read);
        }
        let faults = self.world().faults();
        if faults.lie > 0 || faults.damage > 0 {
            return;
        }
        let after = self.ledger().entries();
        for (before, after) in before.iter().zip(&after) {
            let Some(snapshot) = before.committed() else {
                continue;
            };
            let found = listed
                .snapshots
                .iter()
                .find(|s| s.session == before.session);
            // What is forgotten may be collected.
            let Some(found) = found else {
                assert!(after.forgetting != Forgetting::No, "not listed: {before:?}");
                continue;
            };
            assert!(same_snapshot(found, snapshot), "{found:?} {snapshot:?}");
            match (before.forgetting, after.forgetting) {
                (Forgetting::Acknowledged, _) => assert!(found.forgotten, "{before:?}"),
                (_, Forgetting::No) => assert!(!found.forgotten, "{before:?}"),
                _ => {}
            }
        }
    }

    /// Puts together what is left of packs.
    pub(crate) async fn repack(&self) {
        let repack = self.repository.repack(&Roots, self.cluster, 70, u64::MAX);
        match repack.await {
            Ok(report) => self.say(&format!("has repacked {}", report.packs)),
            Err(error) => {
                self.say(&format!("has not repacked: {error}"));
                self.stage.expect(&error, Call::Collect);
            }
        }
    }

    /// Collects what nobody needs.
    pub(crate) async fn collect(&self) {
        self.ledger().begin_to_collect();
        match self.repository.collect(&Roots, &eager()).await {
            Ok(report) => self.say(&format!(
                "has collected {:?}, {} packs",
                report.generation, report.deleted_packs
            )),
            Err(error) => {
                self.say(&format!("has not collected: {error}"));
                self.stage.expect(&error, Call::Collect);
            }
        }
    }

    /// The same process with a new handle, as if it had read nothing yet.
    pub(crate) async fn reopen(&mut self, cluster: &str) {
        let store = self.stage.world.process(&self.name);
        match Repository::open(store, &pristine::passphrase()).await {
            Ok(repository) => {
                assert_eq!(repository.cluster_key(cluster), self.cluster);
                repository.seed_randomness(self.rng.random());
                self.repository = repository;
            }
            Err(error) => self.stage.expect(&error, Call::Read),
        }
    }
}

/// A collection that honours everything at once, but for the newest of a cluster.
pub(crate) fn eager() -> CollectOptions {
    CollectOptions {
        delete: true,
        grace: Duration::ZERO,
        keep_at_least: 1,
        delete_percent_max: 100,
        stall: Duration::from_secs(180),
        poll: Duration::from_secs(20),
        objects_max: 3,
        bytes_min: 1,
    }
}

/// What roots lead to.
pub(crate) struct Roots;

impl Contents for Roots {
    fn links(&self, _: Role, plain: &[u8]) -> Result<Vec<Link>, String> {
        let text = std::str::from_utf8(plain).map_err(|error| error.to_string())?;
        let names = text.lines().filter(|line| !line.starts_with('#'));
        let ids = names.map(|id| id.parse().map(Link::Contents));
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

/// Reads the root of a snapshot and all that it names.
pub(crate) async fn read(reader: &Reader, snapshot: &Snapshot) -> Result<Vec<Bytes>, Error> {
    let root = reader.get(&snapshot.root).await?;
    let text = std::str::from_utf8(&root).expect("a root is text");
    let names = text.lines().filter(|line| !line.starts_with('#'));
    let ids: Vec<ChunkId> = names
        .map(|id| id.parse().expect("a root names chunks"))
        .collect();
    let mut found = Vec::new();
    let mut chunks = std::pin::pin!(reader.get_ordered(ids));
    while let Some(chunk) = chunks.next().await {
        found.push(chunk?.1);
    }
    Ok(found)
}

/// What was read is what was saved, bit for bit.
pub(crate) fn assert_read(entry: &Entry, found: &[Bytes]) {
    let saved = entry.chunks.iter().map(|n| contents(*n));
    assert!(saved.eq(found.iter().cloned()), "wrong data: {entry:?}");
}

/// Contents number n: up to 2 KiB, half of them incompressible. From [`LARGE`] on
/// they fill a pack each.
pub(crate) fn contents(n: u64) -> Bytes {
    let mut rng = StdRng::seed_from_u64(n);
    let size = rng.random_range(1..2048);
    if n >= LARGE {
        let mut bytes = vec![0; LARGE_BYTES + size];
        rng.fill_bytes(&mut bytes);
        return bytes.into();
    }
    let mut bytes = vec![0; size];
    if n.is_multiple_of(2) {
        rng.fill_bytes(&mut bytes);
    } else {
        bytes.fill(n as u8);
        bytes.splice(0..0, n.to_le_bytes());
    }
    bytes.into()
}

/// The summary of a backup of these contents.
pub(crate) fn summary(chunks: &[u64]) -> Bytes {
    format!("{} chunks", chunks.len()).into()
}

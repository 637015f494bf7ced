//! A blow at every request to the store while files or a device are saved or restored:
//! it fails, its answer is lost, all fail from then on, or the process dies. Whatever
//! happens, earlier snapshots stay, no part of a snapshot passes for one, and the same
//! again succeeds and leaves no garbage.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::{fs::FileExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use lifebuoy_data::{
    DataContents, Error, Excludes, Existing, RestoreDeviceRequest, RestoreRequest, Result,
    SaveDeviceRequest, SaveRequest, Saved, TreePath, What, restore, restore_device, save,
    save_device,
};
use lifebuoy_repo::{CheckLevel, CheckOptions, CollectOptions, KdfCost, Repository, Snapshot};
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, memory::InMemory};
use rustix::fs::{XattrFlags, lsetxattr};

use crate::{
    struck::{Blow, Struck},
    support::{at_once, noise, passphrase, seen, session, summary},
};

/// Requests of one save or restore at most: one that makes more does not end.
const REQUESTS_MAX: usize = 200;
/// What one that dies is told in its environment: what to do, in which folder, at which
/// request to die, and whether that is done by then.
const TOLD: &str = "LIFEBUOY_DATA_TEST_DIES";
/// The test whose process does that, if it is told something.
const PROGRAM: &str = "blows::one_who_restores_dies_and_another_goes_on";

type Store = Arc<dyn ObjectStore>;

async fn open(store: Store) -> lifebuoy_repo::Result<Repository> {
    Repository::open(store, &passphrase()).await
}

/// What a test is about: a directory, or the image of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Files,
    Device,
}

use Subject::{Device, Files};

impl Subject {
    /// More than one pack of data, with a map, a hard link and a hole.
    fn make(self, place: &Path) {
        if self == Device {
            let image = File::create(place).unwrap();
            image.set_len(20 << 20).unwrap();
            image.write_all_at(&noise(1, 3 << 20), 1 << 20).unwrap();
            return image.write_all_at(b"far", 18 << 20).unwrap();
        }
        fs::create_dir_all(place.join("deep/er")).unwrap();
        fs::write(place.join("large"), noise(1, 3 << 20)).unwrap();
        fs::hard_link(place.join("large"), place.join("linked")).unwrap();
        symlink("large", place.join("symbolic")).unwrap();
        // More than an entry holds: a chunk of its own.
        let (attribute, value) = ("user.large", noise(3, 2000));
        lsetxattr(place.join("deep"), attribute, &value, XattrFlags::empty()).unwrap();
        for n in 0..20 {
            let small = place.join(format!("deep/er/{n}"));
            fs::write(small, noise(n, n as usize * 100)).unwrap();
        }
        let islands = File::create(place.join("islands")).unwrap();
        islands.set_len(4 << 20).unwrap();
        for n in 0..40 {
            islands.write_all_at(b"island", n * 102_400).unwrap();
        }
    }

    fn change(self, place: &Path) {
        if self == Device {
            let image = File::options().write(true).open(place).unwrap();
            return image.write_all_at(&noise(2, 3 << 20), 6 << 20).unwrap();
        }
        fs::write(place.join("another"), noise(2, 3 << 20)).unwrap();
        fs::write(place.join("deep/er/7"), "changed").unwrap();
        fs::remove_file(place.join("deep/er/8")).unwrap();
    }

    async fn save(
        self,
        repository: &Repository,
        place: &Path,
        before: Option<Snapshot>,
    ) -> Result<Saved> {
        let place = place.to_owned();
        let session = session(repository);
        if self == Device {
            let changed = 6 << 20..9 << 20;
            let request = SaveDeviceRequest {
                place,
                summary: summary(What::Device),
                before: before.map(|before| (before.root, vec![changed])),
                parts_every: Duration::ZERO,
            };
            return save_device(repository, session, request, Arc::default()).await;
        }
        let request = SaveRequest {
            place,
            summary: summary(What::Files),
            excludes: Excludes::default(),
            one_file_system: false,
            before: before.map(|before| before.root),
            parts_every: Duration::ZERO,
        };
        save(repository, session, request, Arc::default()).await
    }

    /// Restores over what may be there already.
    async fn restore(
        self,
        repository: &Repository,
        snapshot: &Snapshot,
        place: &Path,
    ) -> Result<()> {
        let (root, place) = (snapshot.root, place.to_owned());
        let existing = Existing::Resume;
        let reader = Arc::new(repository.reader().await?);
        if self == Device {
            let request = RestoreDeviceRequest {
                root,
                place,
                existing,
            };
            return restore_device(reader, request, Arc::default())
                .await
                .map(drop);
        }
        let request = RestoreRequest {
            root,
            path: TreePath::default(),
            place,
            existing,
        };
        let progress = Arc::default();
        restore(reader, request, Arc::clone(&progress)).await?;
        assert_eq!(progress.problems_in_words(), []);
        Ok(())
    }

    fn assert_same(self, expected: &Path, found: &Path) {
        if self == Device {
            assert!(fs::read(expected).unwrap() == fs::read(found).unwrap());
        } else {
            assert!(seen(expected) == seen(found));
        }
    }
}

/// A folder with what was saved first, and what is to be saved now.
struct Scene {
    subject: Subject,
    folder: tempfile::TempDir,
    first: Snapshot,
}

impl Scene {
    async fn new(subject: Subject, store: Store) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (then, now) = (folder.path().join("then"), folder.path().join("now"));
        subject.make(&then);
        subject.make(&now);
        let repository = Repository::init(store, &passphrase(), KdfCost::cheapest())
            .await
            .unwrap();
        // Of what will change: both are one place to a save.
        let saved = subject.save(&repository, &now, None).await.unwrap();
        subject.change(&now);
        // It is what was saved, to the nanosecond.
        let first = saved.snapshot;
        remove(&then);
        subject.restore(&repository, &first, &then).await.unwrap();
        Self {
            subject,
            folder,
            first,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn save(&self, repository: &Repository) -> Result<Saved> {
        let before = Some(self.first.clone());
        self.subject.save(repository, &self.at("now"), before).await
    }

    /// That a snapshot holds what is at `name`.
    async fn assert_holds(&self, repository: &Repository, snapshot: &Snapshot, name: &str) {
        let to = self.at("restored");
        let restored = self.subject.restore(repository, snapshot, &to).await;
        restored.unwrap();
        self.subject.assert_same(&self.at(name), &to);
        remove(&to);
    }

    /// What has to hold after a blow at a save, whose result is known or not.
    async fn assert_sound(&self, store: &Store, saved: Option<Result<Saved>>) {
        let repository = open(Arc::clone(store)).await.unwrap();
        let found = repository.snapshots().await.unwrap();
        assert_eq!(found.unreadable.len(), 0, "{found:?}");
        let later: Vec<_> = found
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.session != self.first.session)
            .collect();
        assert_eq!(later.len() + 1, found.snapshots.len(), "the first is gone");
        match saved {
            Some(Ok(saved)) => assert_eq!(later, [&saved.snapshot]),
            // The answer to its last create may have been lost.
            _ => assert!(later.len() <= 1, "{later:?}"),
        }
        for snapshot in later {
            self.assert_holds(&repository, snapshot, "now").await;
        }
        let again = self.save(&repository).await.unwrap().snapshot;
        // The first may only end what the victim has left open.
        for _ in 0..2 {
            repository.collect(&DataContents, &at_once()).await.unwrap();
        }
        let repository = open(Arc::clone(store)).await.unwrap();
        let options = CheckOptions::new(CheckLevel::All);
        let report = repository.check(&DataContents, &options).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        self.assert_holds(&repository, &self.first, "then").await;
        self.assert_holds(&repository, &again, "now").await;
        let live = repository.snapshots().await.unwrap().snapshots;
        let live: BTreeSet<_> = live.iter().map(|one| one.session.to_string()).collect();
        for prefix in ["packs", "open", "end"] {
            let left = sessions(store, prefix).await;
            assert!(left.is_subset(&live), "{prefix}: {left:?}, {live:?}");
        }
    }
}

/// The sessions whose objects are below a prefix.
async fn sessions(store: &Store, prefix: &str) -> BTreeSet<String> {
    let listed = store.list(Some(&prefix.into()));
    let keys = listed.map(|meta| meta.unwrap().location);
    let of = |key: object_store::path::Path| {
        let name = key.filename().unwrap_or_default();
        let parts = name.split(['-', '.']);
        parts.max_by_key(|part| part.len()).unwrap().to_owned()
    };
    keys.map(of).collect().await
}

fn remove(place: &Path) {
    let removed = match place.is_dir() {
        true => fs::remove_dir_all(place),
        false => fs::remove_file(place),
    };
    removed.unwrap();
}

async fn copy(from: &Store) -> Store {
    let to: Store = Arc::new(InMemory::new());
    let mut listed = from.list(None);
    while let Some(meta) = listed.next().await {
        let path = meta.unwrap().location;
        let bytes = from.get(&path).await.unwrap().bytes().await.unwrap();
        to.put(&path, bytes.into()).await.unwrap();
    }
    to
}

async fn a_blow_at_every_request_of_a_save(subject: Subject, blow: Blow) {
    let base: Store = Arc::new(InMemory::new());
    let scene = Scene::new(subject, Arc::clone(&base)).await;
    for number in 0..REQUESTS_MAX {
        let store = copy(&base).await;
        let struck = Struck::new(Arc::clone(&store), blow);
        let repository = open(struck.clone()).await.unwrap();
        struck.strike_at(number);
        let saved = scene.save(&repository).await;
        if !struck.was_struck() {
            saved.unwrap();
            assert!(number >= 10, "it made {number} requests");
            return;
        }
        scene.assert_sound(&store, Some(saved)).await;
    }
    panic!("it makes {REQUESTS_MAX} requests and more");
}

async fn a_blow_at_every_request_of_a_restore(subject: Subject, blow: Blow) {
    let base: Store = Arc::new(InMemory::new());
    let scene = Scene::new(subject, Arc::clone(&base)).await;
    let repository = open(Arc::clone(&base)).await.unwrap();
    let to = scene.at("interrupted");
    for number in 0..REQUESTS_MAX {
        let struck = Struck::new(Arc::clone(&base), blow);
        let victim = open(struck.clone()).await.unwrap();
        struck.strike_at(number);
        let restored = subject.restore(&victim, &scene.first, &to).await;
        let was_struck = struck.was_struck();
        if restored.is_err() {
            assert!(was_struck, "{restored:?}");
            let again = subject.restore(&repository, &scene.first, &to).await;
            again.unwrap();
        }
        subject.assert_same(&scene.at("then"), &to);
        remove(&to);
        if !was_struck {
            assert!(number >= 2, "it made {number} requests");
            return;
        }
    }
    panic!("it makes {REQUESTS_MAX} requests and more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_saving_files_fails() {
    a_blow_at_every_request_of_a_save(Files, Blow::Fails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_saving_files_is_lost() {
    a_blow_at_every_request_of_a_save(Files, Blow::IsLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_expire_while_files_are_saved() {
    a_blow_at_every_request_of_a_save(Files, Blow::IsDenied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_saving_a_device_fails() {
    a_blow_at_every_request_of_a_save(Device, Blow::Fails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_saving_a_device_is_lost() {
    a_blow_at_every_request_of_a_save(Device, Blow::IsLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_expire_while_a_device_is_saved() {
    a_blow_at_every_request_of_a_save(Device, Blow::IsDenied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_failed_at_a_request_goes_on() {
    for subject in [Files, Device] {
        for blow in [Blow::Fails, Blow::GoesDown, Blow::IsDenied] {
            a_blow_at_every_request_of_a_restore(subject, blow).await;
        }
    }
}

// Processes that die

/// Runs this test's program again, to save or restore until it dies. Returns whether it
/// died; one that does not has done all.
fn run_and_die(what: &str, subject: Subject, folder: &Path, at: usize, blow: Blow) -> bool {
    let told = format!("{what} {subject:?} {at} {blow:?} {}", folder.display());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", PROGRAM])
        .env(TOLD, told)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    // Aborted, by a signal; a test that fails has a code.
    assert!(status.success() || status.code().is_none(), "{status}");
    !status.success()
}

/// The process that dies in the tests below.
async fn one_who_dies(told: &str) {
    let told: Vec<&str> = told.splitn(5, ' ').collect();
    let [what, subject, at, blow, folder] = told[..] else {
        panic!("{told:?}");
    };
    let subject = if subject == "Files" { Files } else { Device };
    let blow = match blow {
        "DiesBefore" => Blow::DiesBefore,
        _ => Blow::DiesAfter,
    };
    let folder = Path::new(folder);
    let struck = Struck::new(bucket(folder), blow);
    let repository = open(struck.clone()).await.unwrap();
    let first = repository.snapshots().await.unwrap().snapshots.remove(0);
    struck.strike_at(at.parse().unwrap());
    if what == "save" {
        let now = folder.join("now");
        let saved = subject.save(&repository, &now, Some(first)).await;
        saved.unwrap();
    } else {
        let to = folder.join("interrupted");
        subject.restore(&repository, &first, &to).await.unwrap();
    }
}

fn bucket(folder: &Path) -> Store {
    Arc::new(LocalFileSystem::new_with_prefix(folder.join("bucket")).unwrap())
}

async fn a_death_at_every_request_of_a_save(subject: Subject, blow: Blow) {
    let base: Store = Arc::new(InMemory::new());
    let scene = Scene::new(subject, Arc::clone(&base)).await;
    let folder = scene.folder.path();
    for number in 0..REQUESTS_MAX {
        fs::create_dir(folder.join("bucket")).unwrap();
        write_down(&base, &folder.join("bucket")).await;
        let died = run_and_die("save", subject, folder, number, blow);
        let store = copy(&bucket(folder)).await;
        remove(&folder.join("bucket"));
        if !died {
            assert!(number >= 10, "it made {number} requests");
            return;
        }
        scene.assert_sound(&store, None).await;
    }
    panic!("it makes {REQUESTS_MAX} requests and more");
}

async fn write_down(store: &Store, bucket: &Path) {
    let mut listed = store.list(None);
    while let Some(meta) = listed.next().await {
        let path = meta.unwrap().location;
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        let place = bucket.join(path.as_ref());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_saves_files_dies() {
    a_death_at_every_request_of_a_save(Files, Blow::DiesBefore).await;
    a_death_at_every_request_of_a_save(Files, Blow::DiesAfter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_saves_a_device_dies() {
    a_death_at_every_request_of_a_save(Device, Blow::DiesBefore).await;
    a_death_at_every_request_of_a_save(Device, Blow::DiesAfter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_restores_dies_and_another_goes_on() {
    if let Ok(told) = std::env::var(TOLD) {
        return one_who_dies(&told).await;
    }
    for subject in [Files, Device] {
        let base: Store = Arc::new(InMemory::new());
        let scene = Scene::new(subject, Arc::clone(&base)).await;
        let folder = scene.folder.path();
        fs::create_dir(folder.join("bucket")).unwrap();
        write_down(&base, &folder.join("bucket")).await;
        let repository = open(base).await.unwrap();
        let to = folder.join("interrupted");
        for number in 0..REQUESTS_MAX {
            let died = run_and_die("restore", subject, folder, number, Blow::DiesAfter);
            let again = subject.restore(&repository, &scene.first, &to).await;
            again.unwrap();
            subject.assert_same(&scene.at("then"), &to);
            remove(&to);
            if !died {
                assert!(number >= 2, "it made {number} requests");
                break;
            }
        }
    }
}

/// Several at one time, while what is forgotten is collected.
#[tokio::test(flavor = "multi_thread")]
async fn files_and_devices_are_saved_while_others_forget_and_collect() {
    let store: Store = Arc::new(InMemory::new());
    let scenes = [
        Scene::new(Files, Arc::clone(&store)).await,
        Scene::another(Device, &store).await,
        Scene::another(Files, &store).await,
    ];
    let savers = scenes.iter().map(|scene| {
        let store = Arc::clone(&store);
        async move {
            let mut before = scene.first.clone();
            for round in 0..4 {
                let repository = open(Arc::clone(&store)).await.unwrap();
                let saved = scene.save_until_done(&repository, &before).await;
                scene.assert_holds(&repository, &saved, "now").await;
                if round > 0 {
                    let forgotten = repository.forget(before.session, "a test").await;
                    forgotten.unwrap();
                }
                before = saved;
            }
            before
        }
    });
    let of_collector = Arc::clone(&store);
    let collector = tokio::spawn(async move {
        let repository = open(of_collector).await.unwrap();
        loop {
            let collected = repository.collect(&DataContents, &patient()).await;
            collected.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let last = futures::future::join_all(savers).await;
    assert!(!collector.is_finished(), "{:?}", collector.await);
    collector.abort();
    let repository = open(Arc::clone(&store)).await.unwrap();
    for (scene, last) in scenes.iter().zip(&last) {
        scene.assert_holds(&repository, &scene.first, "then").await;
        scene.assert_holds(&repository, last, "now").await;
    }
    let options = CheckOptions::new(CheckLevel::All);
    let report = repository.check(&DataContents, &options).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// A collection that waits for those at work.
fn patient() -> CollectOptions {
    CollectOptions {
        stall: Duration::from_secs(60),
        ..at_once()
    }
}

impl Scene {
    /// One more, in a repository that is there.
    async fn another(subject: Subject, store: &Store) -> Self {
        let apart: Store = Arc::new(InMemory::new());
        let scene = Self::new(subject, apart).await;
        let repository = open(Arc::clone(store)).await.unwrap();
        let saved = subject.save(&repository, &scene.at("then"), None).await;
        let first = saved.unwrap().snapshot;
        Self { first, ..scene }
    }

    /// Begins again when a collection begins at the same moment.
    async fn save_until_done(&self, repository: &Repository, before: &Snapshot) -> Snapshot {
        let now = self.at("now");
        loop {
            let before = Some(before.clone());
            let saved = self.subject.save(repository, &now, before);
            match saved.await {
                Ok(saved) => return saved.snapshot,
                Err(Error::Repository(lifebuoy_repo::Error::Outdated { .. })) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

//! Snapshots that no honest writer makes: whatever they say, nothing is written
//! outside the target, and nothing is exhausted.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use lifebuoy_repo::{
    ChunkId, ChunkKind, KdfCost, Passphrase, Purpose, Repository, SessionId, SessionRequest,
    Snapshot, Writer,
};
use object_store::memory::InMemory;

use crate::{
    entry::{Content, Entry, Extent, Kind, Meta},
    error::{Error, Result},
    excludes::Excludes,
    listing::Listing,
    manifest::{DataSummary, Manifest, What},
    node::{Child, MapNode, encode_inner, encode_leaf},
    parts::PARTS_EVERY,
    path::TreePath,
    progress::Progress,
    restore::{RestoreRequest, restore},
    save::{SaveRequest, save},
    target::Existing,
};

struct Forger {
    repository: Repository,
    writer: Writer,
}

impl Forger {
    async fn new() -> Self {
        let passphrase = Passphrase::new("x".to_owned()).unwrap();
        let store = Arc::new(InMemory::new());
        let repository = Repository::init(store, &passphrase, KdfCost::cheapest())
            .await
            .unwrap();
        let session = SessionRequest {
            id: SessionId::random(&mut rand::rng()),
            cluster: repository.cluster_key("forger"),
            purpose: Purpose::Backup,
            label: Bytes::new(),
        };
        let writer = repository.begin(session).await.unwrap();
        Self { repository, writer }
    }

    async fn put(&self, plain: Vec<u8>) -> ChunkId {
        self.writer
            .put(ChunkKind::Metadata, plain.into())
            .await
            .unwrap()
    }

    async fn leaf(&self, entries: &[Entry]) -> ChunkId {
        self.put(encode_leaf(entries)).await
    }

    /// Commits a snapshot of this tree that claims so many bytes.
    async fn commit(&self, tree: ChunkId, bytes: u64) -> Snapshot {
        let at = chrono::DateTime::from_timestamp(0, 0).unwrap();
        let mut summary = DataSummary::new(What::Files, "h".into(), "/".into(), at);
        summary.bytes = bytes;
        let manifest = Manifest {
            data: 1,
            summary: summary.clone(),
            tree: Some(tree),
            block_bytes: None,
            problems: Vec::new(),
        };
        let root = self.put(manifest.to_bytes().unwrap().to_vec()).await;
        let committed = self.writer.commit(root, summary.to_bytes().unwrap());
        committed.await.unwrap()
    }

    /// Commits a snapshot of this tree, and restores it.
    async fn restore(self, tree: ChunkId, bytes: u64, place: &Path) -> (Result<()>, Progress) {
        let snapshot = self.commit(tree, bytes).await;
        restored(&self.repository, snapshot, place).await
    }

    /// A tree of two leaves, of which one is lost.
    async fn half(&self, lost: usize) -> ChunkId {
        let leaves = [
            vec![top(), entry("a", Kind::Directory), entry("a/x", Kind::Fifo)],
            vec![entry("b", Kind::Directory), entry("b/x", Kind::Fifo)],
        ];
        let mut children = Vec::new();
        for (n, leaf) in leaves.iter().enumerate() {
            children.push(Child {
                first: leaf[0].path.clone(),
                entries: leaf.len() as u64,
                node: if n == lost {
                    ChunkId::from_bytes([9; 32])
                } else {
                    self.leaf(leaf).await
                },
            });
        }
        self.put(encode_inner(1, &children)).await
    }
}

async fn restored(
    repository: &Repository,
    snapshot: Snapshot,
    place: &Path,
) -> (Result<()>, Progress) {
    let request = RestoreRequest {
        root: snapshot.root,
        path: TreePath::default(),
        place: place.to_owned(),
        existing: Existing::Resume,
    };
    let progress = Arc::new(Progress::default());
    let done = restore(
        Arc::new(repository.reader().await.unwrap()),
        request,
        Arc::clone(&progress),
    )
    .await;
    let progress = Arc::into_inner(progress).unwrap();
    (done.map(|_| ()), progress)
}

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: TreePath::new(path.into()).unwrap(),
        meta: Meta {
            mode: 0o700,
            ..Meta::default()
        },
        kind,
    }
}

fn file(size: u64, content: Content) -> Kind {
    Kind::File { size, content }
}

fn top() -> Entry {
    entry("", Kind::Directory)
}

/// A place with something beside the target that must stay as it is.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("outside")).unwrap();
        fs::write(place.path().join("outside/precious"), "mine").unwrap();
        Self(place)
    }

    fn target(&self) -> std::path::PathBuf {
        self.0.path().join("target")
    }

    fn assert_untouched(&self) {
        let outside = self.0.path().join("outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read(outside.join("precious")).unwrap(), b"mine");
        let names = fs::read_dir(self.0.path()).unwrap();
        for name in names {
            let name = name.unwrap().file_name();
            assert!(name == "outside" || name == "target", "{name:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_elsewhere_is_not_followed() {
    let place = Place::new();
    let forger = Forger::new().await;
    // In order, as a hostile writer can: the link is made in an earlier window only
    // if it is in an earlier restore, so it is also put there by hand.
    let tree = forger
        .leaf(&[
            top(),
            entry("way", Kind::Symlink(b"../outside".to_vec())),
            entry("way/precious", file(0, Content::Nothing)),
            entry("way/sub", Kind::Directory),
            entry("way/sub/x", file(0, Content::Nothing)),
            entry(
                "way/y",
                Kind::HardLink(TreePath::new(b"way/precious".to_vec()).unwrap()),
            ),
        ])
        .await;
    fs::create_dir(place.target()).unwrap();
    std::os::unix::fs::symlink("../outside", place.target().join("way")).unwrap();
    let (done, progress) = forger.restore(tree, 0, &place.target()).await;
    done.unwrap();
    assert!(progress.done().problems >= 4);
    place.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaces_a_link_and_not_what_it_points_to() {
    let place = Place::new();
    let forger = Forger::new().await;
    let extents = Vec::new();
    let tree = forger
        .leaf(&[
            top(),
            entry("a", file(4, Content::Extents(extents))),
            entry("b", Kind::HardLink(TreePath::new(b"l".to_vec()).unwrap())),
            entry("d", Kind::Directory),
        ])
        .await;
    fs::create_dir(place.target()).unwrap();
    for (name, to) in [
        ("a", "../outside/precious"),
        ("d", "../outside"),
        ("l", "../outside/precious"),
    ] {
        std::os::unix::fs::symlink(to, place.target().join(name)).unwrap();
    }
    let (done, _) = forger.restore(tree, 4, &place.target()).await;
    done.unwrap();
    assert!(
        place
            .target()
            .join("a")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
    assert!(
        place
            .target()
            .join("d")
            .symlink_metadata()
            .unwrap()
            .is_dir()
    );
    place.assert_untouched();
    let names = std::os::unix::fs::MetadataExt::nlink(
        &fs::metadata(place.0.path().join("outside/precious")).unwrap(),
    );
    assert_eq!(names, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_there_many_times_is_refused() {
    let place = Place::new();
    let forger = Forger::new().await;
    let mut node = forger.leaf(&[top(), entry("a", Kind::Directory)]).await;
    let mut entries = 2;
    for level in 1..12 {
        let child = |first: &str| Child {
            first: TreePath::new(first.into()).unwrap(),
            entries,
            node,
        };
        node = forger
            .put(encode_inner(level, &[child(""), child("b")]))
            .await;
        entries *= 2;
    }
    let (done, _) = forger.restore(node, 0, &place.target()).await;
    assert!(matches!(done, Err(Error::Damaged { .. })), "{done:?}");
    place.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_larger_than_the_snapshot_says_are_refused() {
    let place = Place::new();
    let forger = Forger::new().await;
    let mut chunk = forger.put(vec![7; 4096]).await;
    let mut length = 4096;
    for level in 0..12 {
        let item = Extent {
            gap: 0,
            length,
            chunk,
        };
        let map = MapNode {
            level,
            items: vec![item; 64],
        };
        chunk = forger.put(map.encode()).await;
        let Some(longer) = length.checked_mul(64).filter(|longer| *longer < 1 << 56) else {
            break;
        };
        length = longer;
    }
    let tree = forger
        .leaf(&[top(), entry("bomb", file(1 << 62, Content::Map(chunk)))])
        .await;
    let (done, _) = forger.restore(tree, 1 << 20, &place.target()).await;
    assert!(matches!(done, Err(Error::Damaged { .. })), "{done:?}");
    place.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sizes_are_problems_and_the_rest_is_restored() {
    let place = Place::new();
    let forger = Forger::new().await;
    let chunk = forger.put(vec![7; 100]).await;
    let shared = |offset| Content::Shared {
        chunk,
        offset,
        hash: [0; 16],
    };
    let extents = |gap, length| Content::Extents(vec![Extent { gap, length, chunk }]);
    let maps = |length| {
        let items = vec![Extent {
            gap: 0,
            length,
            chunk,
        }];
        MapNode { level: 0, items }.encode()
    };
    let (short, long) = (forger.put(maps(99)).await, forger.put(maps(1000)).await);
    let tree = forger
        .leaf(&[
            top(),
            entry("a", file(101, shared(0))),
            entry("b", file(10, shared(95))),
            entry("c", file(1, shared(u32::MAX))),
            entry("d", file(200, extents(0, 99))),
            entry("e", file(99, Content::Map(short))),
            entry("f", file(10, Content::Map(long))),
            entry("g", file(9, Content::Map(chunk))),
            entry("good", file(100, shared(0))),
            entry("too", file(150, extents(50, 100))),
        ])
        .await;
    let (done, progress) = forger.restore(tree, 1000, &place.target()).await;
    done.unwrap();
    assert_eq!(
        progress.done().problems,
        7,
        "{:?}",
        progress.problems_in_words()
    );
    assert_eq!(fs::read(place.target().join("good")).unwrap(), [7; 100]);
    let too = fs::read(place.target().join("too")).unwrap();
    assert!(too[..50] == [0; 50] && too[50..] == [7; 100]);
    place.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_out_of_order_are_refused() {
    let place = Place::new();
    let forger = Forger::new().await;
    let tree = forger
        .leaf(&[top(), entry("b", Kind::Fifo), entry("a", Kind::Fifo)])
        .await;
    let (done, _) = forger.restore(tree, 0, &place.target()).await;
    assert!(matches!(done, Err(Error::Damaged { .. })), "{done:?}");
    assert!(!place.target().join("b").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_before_a_part_is_not_read_and_so_not_missed() {
    let forger = Forger::new().await;
    let tree = forger.half(0).await;
    let snapshot = forger.commit(tree, 0).await;
    let path = TreePath::new(b"b".to_vec()).unwrap();
    let mut listing = Listing::of(&forger.repository, &snapshot, path.clone())
        .await
        .unwrap();
    let mut found = Vec::new();
    while let Some(entry) = listing.next().await.unwrap() {
        found.push(entry.path.to_string());
    }
    assert_eq!(found, ["b", "b/x"]);
    let place = Place::new();
    let request = RestoreRequest {
        root: snapshot.root,
        path,
        place: place.target(),
        existing: Existing::Refuse,
    };
    restore(
        Arc::new(forger.repository.reader().await.unwrap()),
        request,
        Arc::default(),
    )
    .await
    .unwrap();
    assert!(place.target().join("x").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_snapshot_before_costs_time_and_not_the_save() {
    let forger = Forger::new().await;
    let tree = forger.half(1).await;
    let before = forger.commit(tree, 0).await;
    let place = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(place.path().join(name), name).unwrap();
    }
    let request = SaveRequest {
        place: place.path().to_owned(),
        summary: DataSummary::new(
            What::Files,
            "h".into(),
            "/".into(),
            chrono::DateTime::UNIX_EPOCH,
        ),
        excludes: Excludes::default(),
        one_file_system: false,
        before: Some(before.root),
        parts_every: PARTS_EVERY,
    };
    let session = SessionRequest {
        id: SessionId::random(&mut rand::rng()),
        cluster: forger.repository.cluster_key("forger"),
        purpose: Purpose::Backup,
        label: Bytes::new(),
    };
    let progress = Arc::new(Progress::default());
    let saved = save(&forger.repository, session, request, Arc::clone(&progress)).await;
    assert_eq!(saved.unwrap().summary.entries, 4);
    let warnings = progress.warnings();
    assert!(
        matches!(&warnings[..], [one] if one.starts_with("what follows b ")),
        "{warnings:?}"
    );
}

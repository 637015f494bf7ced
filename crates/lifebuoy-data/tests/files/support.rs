//! A repository in memory, and what is on disk as plain values.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use lifebuoy_data::{
    DataSummary, Done, Excludes, Existing, Problem, Progress, RestoreRequest, SaveRequest, Saved,
    TreePath, What, restore, save,
};
use lifebuoy_repo::{
    CollectOptions, KdfCost, Passphrase, Purpose, Repository, SessionId, SessionRequest, Snapshot,
};
use object_store::memory::InMemory;

pub(crate) fn passphrase() -> Passphrase {
    Passphrase::new("correct horse".to_owned()).unwrap()
}

pub(crate) async fn repository() -> Repository {
    Repository::init(
        Arc::new(InMemory::new()),
        &passphrase(),
        KdfCost::cheapest(),
    )
    .await
    .unwrap()
}

pub(crate) fn session(repository: &Repository) -> SessionRequest {
    SessionRequest {
        id: SessionId::random(&mut rand::rng()),
        cluster: repository.cluster_key("this machine"),
        purpose: Purpose::Backup,
        label: Bytes::new(),
    }
}

pub(crate) fn summary(kind: What) -> DataSummary {
    let at = chrono::DateTime::from_timestamp(1_795_478_400, 0).unwrap();
    DataSummary::new(kind, "machine".into(), "/data".into(), at)
}

/// A collection that waits for nobody and honours everything.
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

pub(crate) async fn save_all(
    repository: &Repository,
    place: &Path,
    before: Option<&Snapshot>,
) -> (Saved, Done, Vec<Problem>) {
    try_save_all(repository, place, before).await.unwrap()
}

pub(crate) async fn try_save_all(
    repository: &Repository,
    place: &Path,
    before: Option<&Snapshot>,
) -> lifebuoy_data::Result<(Saved, Done, Vec<Problem>)> {
    let request = SaveRequest {
        place: place.to_owned(),
        summary: summary(What::Files),
        excludes: Excludes::default(),
        one_file_system: false,
        before: before.map(|before| before.root),
        parts_every: Duration::ZERO,
    };
    let progress = Arc::new(Progress::default());
    let saved = save(
        repository,
        session(repository),
        request,
        Arc::clone(&progress),
    )
    .await?;
    Ok((saved, progress.done(), progress.problems_in_words()))
}

pub(crate) async fn restore_all(
    repository: &Repository,
    snapshot: &Snapshot,
    place: &Path,
    existing: Existing,
) -> (lifebuoy_data::Result<DataSummary>, Done, Vec<Problem>) {
    restore_part(repository, snapshot, "", place, existing).await
}

pub(crate) async fn restore_part(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &str,
    place: &Path,
    existing: Existing,
) -> (lifebuoy_data::Result<DataSummary>, Done, Vec<Problem>) {
    let request = RestoreRequest {
        root: snapshot.root,
        path: TreePath::new(path.into()).unwrap(),
        place: place.to_owned(),
        existing,
    };
    let progress = Arc::new(Progress::default());
    let reader = Arc::new(repository.reader().await.unwrap());
    let restored = restore(reader, request, Arc::clone(&progress)).await;
    (restored, progress.done(), progress.problems_in_words())
}

/// One thing on disk: everything that a restore has to bring back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    size: u64,
    names: u64,
    device: u64,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    contents: Vec<u8>,
    is_sparse: bool,
}

/// Everything below a place, by path.
pub(crate) fn seen(place: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    look(place, place, &mut found);
    found
}

fn look(top: &Path, place: &Path, found: &mut BTreeMap<Vec<u8>, Seen>) {
    let meta = fs::symlink_metadata(place).unwrap();
    let kind = meta.file_type();
    let contents = if kind.is_file() {
        fs::read(place).unwrap()
    } else if kind.is_symlink() {
        fs::read_link(place)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec()
    } else {
        Vec::new()
    };
    let path = place.strip_prefix(top).unwrap();
    let is_directory = kind.is_dir();
    let seen = Seen {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        // A file system's own business for a directory.
        size: if is_directory { 0 } else { meta.size() },
        names: if is_directory { 0 } else { meta.nlink() },
        device: meta.rdev(),
        attributes: attributes(place),
        contents,
        is_sparse: kind.is_file() && meta.blocks() * 512 < meta.size(),
    };
    found.insert(path.as_os_str().as_bytes().to_vec(), seen);
    if is_directory {
        for entry in fs::read_dir(place).unwrap() {
            look(top, &entry.unwrap().path(), found);
        }
    }
}

fn attributes(place: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = [0; 65536];
    let Ok(len) = rustix::fs::llistxattr(place, &mut list[..]) else {
        return Vec::new();
    };
    let names = list[..len].split(|byte| *byte == 0);
    let mut pairs: Vec<_> = names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = [0; 65536];
            let len = rustix::fs::lgetxattr(place, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect();
    pairs.sort();
    pairs
}

/// Bytes that compress badly, the same each time.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

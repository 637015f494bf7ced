//! A machine that saves a directory and the image of a device. What is in them is at
//! the edges of what the format holds; how it is stored is the program's business.

use std::fs;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chrono::DateTime;
use lifebuoy_data::{
    DataSummary, Excludes, PARTS_EVERY, Progress, SaveDeviceRequest, SaveRequest, Saved, What,
    save, save_device,
};
use lifebuoy_repo::{Purpose, Repository, SessionId, SessionRequest, Snapshot, Writer};
use lifebuoy_testkit::oddities;
use tempfile::TempDir;

const HOST: &str = "golden";
/// As docs/format-data.md has it.
const SECRET: &[u8] = b"lifebuoy data: secret of the boundaries, version 1";
/// How many zero bytes the hashes of some paths begin with, in order: so many that the
/// tree has nodes of level 2.
const RANKS: [usize; 6] = [1, 1, 1, 2, 1, 1];

/// The machine, and what it saved last.
pub(super) struct Machine {
    folder: TempDir,
    files: Option<Snapshot>,
    device: Option<Snapshot>,
    changed: Vec<Range<u64>>,
}

impl Machine {
    /// One with a directory and an image.
    pub(super) fn new(writer: &Writer) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("ranks"))?;
        for path in paths_of_rank(writer) {
            fs::write(tree.join(path), "begins a leaf")?;
        }
        oddities::make(&tree)?;
        oddities::make_image(&folder.path().join("image"))?;
        Ok(Self {
            folder,
            files: None,
            device: None,
            changed: Vec::new(),
        })
    }

    /// Some of both is another from now on.
    pub(super) fn change(&mut self) -> Result<()> {
        oddities::change(&self.folder.path().join("tree"))?;
        self.changed = oddities::change_image(&self.folder.path().join("image"))?;
        Ok(())
    }

    /// Saves both, each on top of what was saved before.
    pub(super) async fn save(&mut self, repo: &Repository) -> Result<()> {
        let progress = Arc::new(Progress::default());
        let before = self.files.take();
        let request = SaveRequest {
            place: self.folder.path().join("tree"),
            summary: summary(What::Files, "/golden/tree", before.is_some())?,
            excludes: Excludes::default(),
            one_file_system: false,
            before: before.map(|before| before.root),
            parts_every: PARTS_EVERY,
        };
        let Saved { snapshot, .. } =
            save(repo, session(repo, "files"), request, Arc::clone(&progress)).await?;
        self.files = Some(snapshot);

        let before = self.device.take();
        let request = SaveDeviceRequest {
            place: self.folder.path().join("image"),
            summary: summary(What::Device, "/golden/image", before.is_some())?,
            before: before.map(|before| (before.root, std::mem::take(&mut self.changed))),
            parts_every: PARTS_EVERY,
        };
        let session = session(repo, "device");
        let Saved { snapshot, .. } =
            save_device(repo, session, request, Arc::clone(&progress)).await?;
        self.device = Some(snapshot);
        ensure!(
            progress.done().problems == 0,
            "{:?}",
            progress.problems_in_words()
        );
        Ok(())
    }
}

fn summary(kind: What, path: &str, is_later: bool) -> Result<DataSummary> {
    let taken_at = 1_790_000_000 + i64::from(is_later) * 3600;
    let taken_at = DateTime::from_timestamp(taken_at, 0).context("not a time")?;
    Ok(DataSummary::new(
        kind,
        HOST.to_owned(),
        path.to_owned(),
        taken_at,
    ))
}

fn session(repo: &Repository, what: &str) -> SessionRequest {
    SessionRequest {
        id: SessionId::random(&mut rand::rng()),
        cluster: repo.cluster_key(&format!("machine {HOST}")),
        purpose: Purpose::Backup,
        label: Bytes::from(format!("golden {what}")),
    }
}

/// Paths that begin a leaf, and maybe more than that.
fn paths_of_rank(writer: &Writer) -> Vec<String> {
    let secret = writer.chunk_id(SECRET);
    let key = *blake3::keyed_hash(secret.as_bytes(), b"lifebuoy data: path").as_bytes();
    let rank = |path: &str| {
        let hash = blake3::keyed_hash(&key, path.as_bytes());
        let zeros = hash.as_bytes().iter().take_while(|byte| **byte == 0);
        zeros.count()
    };
    let of_rank = |(place, wanted): (usize, usize)| {
        let paths = (0_u64..).map(move |n| format!("ranks/{place}-{n}"));
        let mut fitting = paths.filter(|path| rank(path) == wanted);
        fitting.next()
    };
    RANKS.into_iter().enumerate().filter_map(of_rank).collect()
}

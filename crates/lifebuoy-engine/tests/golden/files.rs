//! Snapshots of files and devices in golden repositories.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use lifebuoy_data::{
    Attributes, Entry, Existing, Kind, Listing, RestoreDeviceRequest, TreePath, read_file,
    restore_device,
};
use lifebuoy_repo::{Repository, Snapshot};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::hex;

pub(crate) async fn check(repo: &Repository, mine: &Snapshot, expected: &Value) -> Result<()> {
    let held = match expected.get("device") {
        Some(_) => json!({"device": device(repo, mine).await?}),
        None => json!({"entries": entries(repo, mine).await?}),
    };
    for (what, held) in held.as_object().context("nothing")? {
        ensure!(expected[what] == *held, "other {what}: {held:#}");
    }
    Ok(())
}

async fn device(repo: &Repository, mine: &Snapshot) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("image");
    let request = RestoreDeviceRequest {
        root: mine.root,
        place: place.clone(),
        existing: Existing::Refuse,
    };
    let reader = std::sync::Arc::new(repo.reader().await?);
    restore_device(reader, request, std::sync::Arc::default()).await?;
    let image = fs::read(place)?;
    let manifest = repo.reader().await?.get(&mine.root).await?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    Ok(json!({
        "bytes": image.len(),
        "blockBytes": manifest["blockBytes"],
        "sha256": hex(&Sha256::digest(&image)),
    }))
}

async fn entries(repo: &Repository, mine: &Snapshot) -> Result<Value> {
    let mut listing = Listing::of(repo, mine, TreePath::default()).await?;
    let mut found = Map::new();
    while let Some(entry) = listing.next().await? {
        let told = tell(repo, mine, &entry).await?;
        found.insert(label(entry.path.as_bytes()), told);
    }
    Ok(found.into())
}

/// A hard link has nothing of its own but its name.
async fn tell(repo: &Repository, mine: &Snapshot, entry: &Entry) -> Result<Value> {
    if let Kind::HardLink(first) = &entry.kind {
        return Ok(json!({"kind": "hard link", "target": label(first.as_bytes())}));
    }
    let meta = &entry.meta;
    let mut told = json!({
        "mode": format!("{:04o}", meta.mode),
        "owner": format!("{}:{}", meta.uid, meta.gid),
        "modified": format!("{}+{}", meta.modified.seconds, meta.modified.nanoseconds),
    });
    match &meta.attributes {
        Attributes::None => {}
        Attributes::Inline(pairs) => {
            for (name, value) in pairs {
                told["attributes"][label(name)] = hex(value).into();
            }
        }
        Attributes::Chunk(_) => bail!("{}: nothing public reads these attributes", entry.path),
    }
    let (kind, more) = match &entry.kind {
        Kind::Directory => ("directory", None),
        Kind::File { size, .. } => {
            let mut hasher = Sha256::new();
            let mut read = |part: &[u8]| {
                hasher.update(part);
                Ok(())
            };
            read_file(repo, mine, &entry.path, &mut read).await?;
            told["sha256"] = hex(&hasher.finalize()).into();
            ("file", Some(("size", json!(size))))
        }
        Kind::Symlink(says) => ("symbolic link", Some(("target", json!(label(says))))),
        Kind::Fifo => ("FIFO", None),
        Kind::Socket => ("socket", None),
        Kind::CharDevice { major, minor } => ("character device", numbers(*major, *minor)),
        Kind::BlockDevice { major, minor } => ("block device", numbers(*major, *minor)),
        Kind::HardLink(_) => bail!("a hard link has no kind of its own"),
    };
    told["kind"] = kind.into();
    if let Some((field, value)) = more {
        told[field] = value;
    }
    Ok(told)
}

fn numbers(major: u32, minor: u32) -> Option<(&'static str, Value)> {
    Some(("device", json!(format!("{major}:{minor}"))))
}

/// A path as the independent reader writes it: as UTF-8, with `%` and bytes that are
/// none as %XX.
fn label(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    if text.is_empty() { ".".into() } else { text }
}

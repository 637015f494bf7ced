//! What old versions wrote is read for ever: every golden repository below
//! `tests/golden/` holds for this program what its `expected.json` says, which
//! an independent reader wrote, and still holds it after a collection by this
//! program.

mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use lifebuoy_data::DataSummary;
use lifebuoy_engine::AllContents;
use lifebuoy_engine::archive::{Archive, ArchivedObject};
use lifebuoy_repo::{
    CheckLevel, CheckOptions, CollectOptions, Credentials, End, Error as RepoError, Location,
    LocationOptions, Passphrase, Repository, Snapshot,
};
use lifebuoy_testkit::tools::workspace_root;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn golden() -> Result<Vec<PathBuf>> {
    let root = workspace_root().join("tests/golden");
    let mut folders = Vec::new();
    for entry in fs::read_dir(&root).with_context(|| format!("{}", root.display()))? {
        folders.push(entry?.path());
    }
    folders.retain(|path| path.is_dir());
    folders.sort();
    ensure!(!folders.is_empty(), "no golden repository");
    Ok(folders)
}

#[tokio::test]
async fn every_golden_repository_holds_what_it_is_known_to_hold() -> Result<()> {
    for folder in golden()? {
        check(&folder)
            .await
            .with_context(|| format!("{}", folder.display()))?;
    }
    Ok(())
}

#[tokio::test]
async fn every_golden_repository_can_be_upgraded_and_collected() -> Result<()> {
    for folder in golden()? {
        go_on(&folder)
            .await
            .with_context(|| format!("{}", folder.display()))?;
    }
    Ok(())
}

async fn open(folder: &Path, bucket: &Path) -> Result<Repository> {
    let url = format!("file://{}", bucket.display());
    let store = Location::parse(&url, LocationOptions::default())?.open(&Credentials::default())?;
    let passphrase = Passphrase::new(fs::read_to_string(folder.join("passphrase"))?)?;
    Ok(Repository::open(store, &passphrase).await?)
}

fn expectation(folder: &Path) -> Result<Value> {
    let bytes = fs::read(folder.join("expected.json"))?;
    Ok(serde_json::from_slice(&bytes)?)
}

async fn check(folder: &Path) -> Result<()> {
    let expected = expectation(folder)?;
    let repo = open(folder, &folder.join("bucket")).await?;
    ensure!(expected["repository"] == json!(repo.id().to_string()));

    let known: Vec<_> = list(&expected["snapshots"])?.iter().collect();
    check_snapshots(&repo, &known).await?;
    check_sessions(&repo, &expected).await?;
    let options = CheckOptions::new(CheckLevel::All);
    let report = repo.check(&AllContents, &options).await?;
    ensure!(report.is_clean(), "{report:?}");
    ensure!(report.packs_read == report.packs && report.packs > 0);
    match expected.get("collections") {
        None => ensure!(report.healed == 0, "{report:?}"),
        Some(collections) => {
            ensure!(report.healed == list(&collections["mended"])?.len() as u64);
            let term = repo.keeper().await?.context("no keeper")?;
            let keeper = json!({"term": term.number, "cluster": term.cluster.to_string()});
            ensure!(collections["keeper"] == keeper);
        }
    }
    Ok(())
}

/// In a copy, collects whatever may go: all snapshots that nobody asked to forget
/// must be as they were, and the others gone.
async fn go_on(folder: &Path) -> Result<()> {
    let copy = tempfile::tempdir()?;
    copy_folder(&folder.join("bucket"), copy.path())?;
    let repo = open(folder, copy.path()).await?.upgrade().await?;
    let options = CollectOptions {
        delete: true,
        grace: Duration::ZERO,
        keep_at_least: 0,
        delete_percent_max: 100,
        stall: Duration::ZERO,
        poll: Duration::from_millis(1),
        objects_max: 1,
        bytes_min: 1,
    };
    // The first may only finish what another one began.
    let begun = repo.collect(&AllContents, &options).await?;
    let done = repo.collect(&AllContents, &options).await?;
    let deleted = begun.deleted_packs + done.deleted_packs;
    ensure!(deleted > 0, "{begun:?} {done:?}");

    let repo = open(folder, copy.path()).await?;
    let expected = expectation(folder)?;
    let known = list(&expected["snapshots"])?.iter();
    let kept: Vec<_> = known
        .filter(|snapshot| snapshot["forgotten"] == json!(false))
        .collect();
    check_snapshots(&repo, &kept).await?;
    let report = repo
        .check(&AllContents, &CheckOptions::new(CheckLevel::All))
        .await?;
    ensure!(report.is_clean(), "{report:?}");
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The repository lists exactly these, each with what it holds.
async fn check_snapshots(repo: &Repository, known: &[&Value]) -> Result<()> {
    let found = repo.snapshots().await?;
    ensure!(found.unreadable.is_empty(), "{:?}", found.unreadable);
    ensure!(found.snapshots.len() == known.len(), "{found:?}");
    ensure!(!known.is_empty(), "nothing to compare with");
    for snapshot in known {
        let session = snapshot["session"].clone();
        let mine = found
            .snapshots
            .iter()
            .find(|mine| json!(mine.session.to_string()) == session)
            .with_context(|| format!("no snapshot {session}"))?;
        check_snapshot(repo, mine, snapshot)
            .await
            .with_context(|| format!("snapshot {session}"))?;
    }
    Ok(())
}

async fn check_snapshot(repo: &Repository, mine: &Snapshot, expected: &Value) -> Result<()> {
    ensure!(expected["cluster"] == json!(mine.cluster.to_string()));
    ensure!(expected["sequence"] == json!(mine.seq));
    ensure!(expected["forgotten"] == json!(mine.forgotten));
    ensure!(expected.get("pinned").is_some() == mine.pinned);
    ensure!(expected["summary"] == serde_json::from_slice::<Value>(&mine.summary)?);
    if DataSummary::is_one(&mine.summary) {
        return files::check(repo, mine, expected).await;
    }
    let archive = match Archive::open(repo, mine.session).await {
        Ok(archive) => archive,
        Err(lifebuoy_engine::Error::Repo(RepoError::Forgotten { .. })) if mine.is_leaving() => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    ensure!(!mine.is_leaving(), "a forgotten snapshot opens");
    ensure!(expected["summary"] == serde_json::to_value(&archive.manifest.summary)?);

    let mut digests: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for kind in &archive.manifest.types {
        let objects: Vec<ArchivedObject> = archive.objects(kind).try_collect().await?;
        let name = match kind.group.as_str() {
            "" => kind.resource.clone(),
            group => format!("{group}.{}", kind.resource),
        };
        for object in &objects {
            // One alone is found as well as all in a row.
            let alone = archive.get(kind, &object.key).await?;
            ensure!(alone.as_ref() == Some(object), "{}", object.key);
            let key = match object.key.namespace.as_str() {
                "" => object.key.name.clone(),
                namespace => format!("{namespace}/{}", object.key.name),
            };
            let of_type = digests.entry(name.clone()).or_default();
            of_type.insert(key, digest(object)?);
        }
    }
    ensure!(
        expected["objects"] == serde_json::to_value(&digests)?,
        "other objects: {digests:#?}"
    );
    Ok(())
}

async fn check_sessions(repo: &Repository, expected: &Value) -> Result<()> {
    for session in list(&expected["sessions"])? {
        let text = |field: &str| session[field].as_str().context("not a text");
        if text("state")? == "over" {
            // Its packs are all that is left of it.
            continue;
        }
        let (cluster, id) = (text("cluster")?.parse()?, text("session")?.parse()?);
        let state = match repo.session_end(cluster, id).await? {
            None => "open",
            Some(End::Fenced) => "fenced",
            Some(End::Committed(_)) => "committed",
            Some(End::CommittedOther) => "part or copies",
        };
        ensure!(state.contains(text("state")?), "{session} is {state}");
    }
    Ok(())
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value
        .as_array()
        .filter(|list| !list.is_empty())
        .context("nothing to compare with")
}

/// SHA-256 of the whole object's canonical JSON: no spaces, and the fields
/// ordered by the bytes of their names.
fn digest(object: &ArchivedObject) -> Result<String> {
    let mut whole = object.body()?;
    for (field, value) in object.volatile()? {
        let owner = match field.as_str() {
            "status" => &mut whole,
            _ => &mut whole["metadata"],
        };
        owner[field.as_str()] = value;
    }
    let mut text = String::new();
    canonical(&whole, &mut text)?;
    Ok(hex(&Sha256::digest(text.as_bytes())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn canonical(value: &Value, text: &mut String) -> Result<()> {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (n, (name, value)) in fields.into_iter().enumerate() {
                text.push_str(if n == 0 { "" } else { "," });
                text.push_str(&serde_json::to_string(name)?);
                text.push(':');
                canonical(value, text)?;
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (n, item) in items.iter().enumerate() {
                text.push_str(if n == 0 { "" } else { "," });
                canonical(item, text)?;
            }
            text.push(']');
        }
        other => text.push_str(&serde_json::to_string(other)?),
    }
    Ok(())
}

//! What old versions wrote is read for ever: every golden repository below
//! `tests/golden/` holds for this program what its `expected.json` says, which
//! an independent reader wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use lifebuoy_engine::archive::{Archive, ArchivedObject};
use lifebuoy_repo::{
    Credentials, End, Error as RepoError, Location, LocationOptions, Passphrase, Repository,
    Snapshot,
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

async fn check(folder: &Path) -> Result<()> {
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json"))?)?;
    let url = format!("file://{}", folder.join("bucket").display());
    let store = Location::parse(&url, LocationOptions::default())?.open(&Credentials::default())?;
    let passphrase = Passphrase::new(fs::read_to_string(folder.join("passphrase"))?)?;
    let repo = Repository::open(store, &passphrase).await?;
    ensure!(expected["repository"] == json!(repo.id().to_string()));

    let found = repo.snapshots().await?;
    ensure!(found.unreadable.is_empty(), "{:?}", found.unreadable);
    let known = list(&expected["snapshots"])?;
    ensure!(found.snapshots.len() == known.len());
    for snapshot in known {
        let session = snapshot["session"].clone();
        let mine = found
            .snapshots
            .iter()
            .find(|mine| json!(mine.session.to_string()) == session)
            .with_context(|| format!("no snapshot {session}"))?;
        check_snapshot(&repo, mine, snapshot)
            .await
            .with_context(|| format!("snapshot {session}"))?;
    }
    check_sessions(&repo, &expected).await
}

async fn check_snapshot(repo: &Repository, mine: &Snapshot, expected: &Value) -> Result<()> {
    ensure!(expected["cluster"] == json!(mine.cluster.to_string()));
    ensure!(expected["sequence"] == json!(mine.seq));
    ensure!(expected["forgotten"] == json!(mine.forgotten));
    ensure!(expected["summary"] == serde_json::from_slice::<Value>(&mine.summary)?);
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
        let (cluster, id) = (text("cluster")?.parse()?, text("session")?.parse()?);
        let state = match repo.session_end(cluster, id).await? {
            None => "open",
            Some(End::Fenced | End::CommittedOther) => "fenced",
            Some(End::Committed(_)) => "committed",
        };
        ensure!(text("state")? == state, "{session} is {state}");
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
    let hash = Sha256::digest(text.as_bytes());
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
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

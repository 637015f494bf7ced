//! What was saved of volumes, read straight from the store, and comparisons of what is on
//! disks by programs that know nothing of this one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Store, operator_binary};

/// Runs the `lifebuoy` command direct on a store and gives what it prints.
///
/// # Errors
/// When it ends with an error; the message has its words.
pub async fn on_store(store: &Store, args: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new(operator_binary()?)
        .args(args)
        .env("LIFEBUOY_ALLOW_HTTP", "true")
        .envs(store.environment())
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "lifebuoy {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Brings a volume of a recovery point, such as `shop/data`, to this machine.
///
/// # Errors
/// As [`on_store`].
pub async fn extract(store: &Store, snapshot: &str, volume: &str, target: &Path) -> Result<()> {
    let place = target.to_str().context("a path that is not UTF-8")?;
    let args = ["repo", "restore", snapshot, place, "--volume", volume];
    on_store(store, &args).await?;
    Ok(())
}

/// What a recovery point says of the volumes that were saved, by their names, such as
/// `shop/data`.
///
/// # Errors
/// As [`on_store`].
pub async fn saved_volumes(store: &Store, snapshot: &str) -> Result<BTreeMap<String, Value>> {
    let described = ["recoverypoint", "describe", snapshot, "-o", "json"];
    let described: Value = serde_json::from_str(&on_store(store, &described).await?)?;
    let volumes = described["manifest"]["volumesSaved"].as_array();
    let volumes = volumes.context("the point has no volumes")?.iter();
    let named = volumes.map(|volume| {
        let part = |name: &str| volume["claim"][name].as_str().unwrap_or_default();
        let name = format!("{}/{}", part("namespace"), part("name"));
        (name, volume.clone())
    });
    Ok(named.collect())
}

/// Fails unless two directories are the same, with all that rsync compares.
///
/// # Errors
/// The first differences.
pub fn same_files(one: &Path, other: &Path) -> Result<()> {
    let output = Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"])
        // With a slash, what is in them is compared.
        .args([one.join(""), other.join("")])
        .output()
        .context("cannot run rsync")?;
    let differences = String::from_utf8_lossy(&output.stdout);
    let differences: Vec<&str> = differences.lines().collect();
    ensure!(
        output.status.success() && differences.is_empty(),
        "{} and {} differ in {}: {:#?}\n{}",
        one.display(),
        other.display(),
        differences.len(),
        &differences[..differences.len().min(20)],
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Fails unless two files are the same, and hold something.
///
/// # Errors
/// The first difference.
pub fn same_bytes(one: &Path, other: &Path) -> Result<()> {
    ensure!(
        fs::metadata(one)?.blocks() > 0,
        "{} is empty",
        one.display()
    );
    let output = Command::new("cmp")
        .args([one, other])
        .output()
        .context("cannot run cmp")?;
    ensure!(
        output.status.success(),
        "they differ: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

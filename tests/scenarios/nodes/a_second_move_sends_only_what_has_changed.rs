//! A file tree and a block volume are moved, two of a hundred bytes of each are changed,
//! and they are moved again: of the files no others are read, of both little is sent, and
//! both points restore to what each was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifebuoy_api::{NameMapping, VolumePolicy};
use lifebuoy_scenarios::{
    Ended, NodeWorld, OPERATOR_NAMESPACE, OneNodeWorld, backup, copy_image_to_disk, from_snapshot,
    node_scenario, restore, run, same_bytes, same_files, saved_volumes, start_holder,
};
use lifebuoy_testkit::oddities::noise;
use serde_json::Value;

const NAMESPACE: &str = "files";
const HOLDER: &str = "deployment/holder";
const LARGE_FILES: u64 = 50;
const LARGE_BYTES: usize = 1 << 20;
const SMALL_FILES: u64 = 1000;
const SMALL_BYTES: usize = 1000;
const DISK_BYTES: usize = 32 << 20;
/// Two of a hundred, of each.
const CHANGED_LARGE_FILES: u64 = LARGE_FILES / 50;
const CHANGED_SMALL_FILES: u64 = SMALL_FILES / 50;
const CHANGED_DISK_BYTES: usize = DISK_BYTES / 50;
/// How much more than what has changed may be sent: whole chunks, and what leads to them.
const SENT_AT_MOST: u64 = 5;
/// How long saving or restoring may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// A recovery point, and a copy of what is in it.
struct Point {
    snapshot: String,
    /// The bytes in the store once it was there.
    in_store: u64,
    tree: PathBuf,
    disk: PathBuf,
}

#[test]
fn a_second_move_reads_and_sends_only_what_has_changed() {
    node_scenario(&NodeWorld::needs(&[]), async {
        let world = OneNodeWorld::start().await?;
        let told = tell(&world).await;
        world.a.recorded(told).await
    });
}

async fn tell(world: &OneNodeWorld) -> Result<()> {
    let a = &world.a;
    start_holder(a, NAMESPACE, "1Gi").await?;
    write(a, 0, LARGE_FILES, SMALL_FILES, DISK_BYTES).await?;
    let first = save(world, "first").await?;
    write(
        a,
        1,
        CHANGED_LARGE_FILES,
        CHANGED_SMALL_FILES,
        CHANGED_DISK_BYTES,
    )
    .await?;
    let second = save(world, "second").await?;

    let changed_files =
        CHANGED_LARGE_FILES * LARGE_BYTES as u64 + CHANGED_SMALL_FILES * SMALL_BYTES as u64;
    let changed = changed_files + CHANGED_DISK_BYTES as u64;
    // What the store has, not what the points say: of a Backup that was tried again, they
    // say what the last try has sent.
    let (first_sent, second_sent) = (first.in_store, second.in_store - first.in_store);
    println!("{first_sent} bytes were sent, then {second_sent} of {changed} that changed");
    // Noise does not compress: at least what is new was sent.
    ensure!(
        first_sent > 40 * changed && (changed..SENT_AT_MOST * changed).contains(&second_sent),
        "{first_sent} bytes were sent, then {second_sent} of {changed} that changed"
    );
    for point in [&first, &second] {
        let saved = saved_volumes(&world.store, &point.snapshot).await?;
        let names: Vec<&str> = saved.keys().map(String::as_str).collect();
        ensure!(names == ["files/disk", "files/tree"], "saved: {names:?}");
    }
    let read = bytes_read(a).await?;
    ensure!(
        read == changed_files,
        "{read} bytes of files were read, and {changed_files} have changed"
    );
    for (name, point) in [("again-1", first), ("again-2", second)] {
        bring_back(a, name, &point).await?;
    }
    a.nothing_is_left().await
}

/// Writes the first so many files, and so many bytes of the disk, anew.
async fn write(a: &NodeWorld, seed: u64, large: u64, small: u64, disk: usize) -> Result<()> {
    let tree = a.content(NAMESPACE, "tree").await?;
    let seed = seed << 32;
    for folder in ["large", "small"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    for file in 0..large {
        let path = tree.join(format!("large/{file}"));
        fs::write(path, noise(seed + file, LARGE_BYTES))?;
    }
    for file in 0..small {
        let path = tree.join(format!("small/{file}"));
        fs::write(path, noise(seed + LARGE_FILES + file, SMALL_BYTES))?;
    }
    let image = tree.join("image");
    fs::write(&image, noise(seed + u64::MAX / 2, disk))?;
    copy_image_to_disk(a, NAMESPACE).await?;
    Ok(fs::remove_file(image)?)
}

/// Saves both volumes, and copies what is in them.
async fn save(world: &OneNodeWorld, name: &str) -> Result<Point> {
    let a = &world.a;
    let mut request = backup(name, "main");
    request.spec.selection.namespaces = vec![NAMESPACE.to_owned()];
    request.spec.volumes = VolumePolicy::Save;
    let saved = run(&a.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(saved.complete(), "{}", saved.verdict());
    let snapshot = saved.status.and_then(|status| status.snapshot);
    let folder = a.node.folder().join(name);
    fs::create_dir_all(&folder)?;
    let point = Point {
        snapshot: snapshot.context("complete, and where?")?,
        in_store: bytes_below(&world.s3.bucket_directory())?,
        tree: folder.join("tree"),
        disk: folder.join("disk"),
    };
    copy(&a.content(NAMESPACE, "tree").await?, &point.tree)?;
    copy(&a.content(NAMESPACE, "disk").await?, &point.disk)?;
    Ok(point)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(copied.success(), "{} cannot be copied", from.display());
    Ok(())
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_below(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

/// How much the last save of the tree has read of its files, by the operator's log.
async fn bytes_read(a: &NodeWorld) -> Result<u64> {
    let log = ["logs", "-n", OPERATOR_NAMESPACE, "--tail=-1"];
    let log = a
        .kubectl(&[&log[..], &["deployment/lifebuoy-backup"]].concat())
        .await?;
    let lines = log.lines().rev();
    let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tree = format!("{NAMESPACE}/tree");
    let said = lines
        .find(|line| line["message"] == "a volume is saved" && line["volume"] == *tree)
        .context("the operator does not say that the tree was saved")?;
    let number = |name: &str| said[name].as_u64().context("not a number");
    Ok(number("bytes")? - number("unchanged")?)
}

/// Restores a point into a namespace of its own, and compares it with the copies.
async fn bring_back(a: &NodeWorld, namespace: &str, point: &Point) -> Result<()> {
    let mut request = restore(namespace, from_snapshot("main", &point.snapshot));
    request.spec.selection.namespaces = vec![NAMESPACE.to_owned()];
    request.spec.mapping.namespaces = vec![NameMapping {
        from: NAMESPACE.to_owned(),
        to: namespace.to_owned(),
    }];
    let restored = run(&a.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(restored.complete(), "{}", restored.verdict());
    a.rolled_out(namespace, HOLDER).await?;
    same_files(&point.tree, &a.content(namespace, "tree").await?)?;
    same_bytes(&point.disk, &a.content(namespace, "disk").await?)
}

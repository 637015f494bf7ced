//! Volumes are saved by snapshots that stay in the storage system. Their data is changed, their
//! namespace is deleted, and they come back in another one as they were. Nothing of them was
//! stored, and the snapshots go when the recovery point is forgotten and its grace has passed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifebuoy_api::{KEPT_FOR_LABEL, NameMapping, UNNEEDED_SINCE_ANNOTATION, VolumeWay};
use lifebuoy_scenarios::{
    Ended, NodeWorld, OPERATOR_NAMESPACE, OneNodeWorld, Store, backup_of_volumes,
    copy_image_to_disk, eventually, from_snapshot, node_scenario, operator_binary, restore, run,
    start_holder,
};
use lifebuoy_testkit::oddities::noise;

const NAMESPACE: &str = "files";
const ELSEWHERE: &str = "files-again";
/// What is in the volumes at least, and cannot be compressed.
const NOISE_BYTES: usize = 16 << 20;
/// What the objects of the namespace may need in the repository.
const STORED_BYTES_MAX: i64 = 4 << 20;
/// How long saving or restoring may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);
/// How long it may take until the operator has looked into the repository again.
const LOOKED_WITHIN: Duration = Duration::from_secs(300);

#[test]
fn a_kept_snapshot_brings_a_volume_back_and_goes_with_its_point() {
    node_scenario(&NodeWorld::needs(&[]), async {
        let OneNodeWorld { a, store, s3: _s3 } = OneNodeWorld::start().await?;
        a.recorded(story(&a, &store).await).await
    });
}

async fn story(a: &NodeWorld, store: &Store) -> Result<()> {
    start_holder(a, NAMESPACE, "1Gi").await?;
    let tree = a.content(NAMESPACE, "tree").await?;
    fs::write(tree.join("word"), "before")?;
    fs::write(tree.join("image"), noise(1, NOISE_BYTES))?;
    copy_image_to_disk(a, NAMESPACE).await?;
    let snapshot = save(a).await?;

    fs::write(tree.join("word"), "after")?;
    let delete = ["delete", "namespace", NAMESPACE, "--timeout=180s"];
    a.kubectl(&delete).await?;
    ensure!(a.storage.snapshots()?.len() == 2, "a snapshot has gone");
    refuses_single_files(store, &snapshot).await?;

    bring_back(a, &snapshot).await?;
    forget(a, store, &snapshot).await?;
    a.nothing_is_left().await
}

/// Keeps a snapshot of both volumes; gives the recovery point.
async fn save(a: &NodeWorld) -> Result<String> {
    let request = backup_of_volumes("kept", "main", NAMESPACE, VolumeWay::Snapshot);
    let saved = run(&a.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(saved.complete(), "{}", saved.verdict());
    let status = saved.status.context("it has ended without a status")?;
    let said = status.problems.iter();
    let said = said.filter(|problem| problem.reason == "VolumeInStorage");
    ensure!(said.count() == 2, "nobody was told: {:?}", status.problems);
    let stored = status.progress.bytes_stored;
    ensure!(
        stored < STORED_BYTES_MAX && status.progress.volume_bytes_stored == 0,
        "{stored} bytes were stored, data of the volumes among them"
    );
    only_the_kept_are_left(a).await?;
    status.snapshot.context("it has saved nothing")
}

/// Of the snapshots, only what stands for those that are kept, in no namespace.
async fn only_the_kept_are_left(a: &NodeWorld) -> Result<()> {
    eventually("only what is kept is left", LOOKED_WITHIN, async || {
        let snapshots = a.kubectl(&["get", "volumesnapshots", "-A", "-o", "name"]);
        let snapshots = snapshots.await?;
        let contents = names_of_contents(a, &[]).await?;
        let kept = names_of_contents(a, &["-l", KEPT_FOR_LABEL]).await?;
        let done = snapshots.trim().is_empty() && kept.len() == 2 && contents == kept;
        Ok(done.then_some(()))
    })
    .await
}

async fn names_of_contents(a: &NodeWorld, which: &[&str]) -> Result<Vec<String>> {
    let get = ["get", "volumesnapshotcontents", "-o", "name"];
    let listed = a.kubectl(&[&get[..], which].concat()).await?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Whoever wants a file of such a point is told where the data is.
async fn refuses_single_files(store: &Store, snapshot: &str) -> Result<()> {
    let volume = format!("{NAMESPACE}/tree");
    let listed = lifebuoy(store, &["repo", "ls", snapshot, "--volume", &volume]).await?;
    let said = String::from_utf8_lossy(&listed.stderr);
    ensure!(
        !listed.status.success() && said.contains("in the storage system as the snapshot"),
        "{said}"
    );
    Ok(())
}

async fn lifebuoy(store: &Store, words: &[&str]) -> Result<std::process::Output> {
    let program = tokio::process::Command::new(operator_binary()?)
        .args(words)
        .env("LIFEBUOY_ALLOW_HTTP", "true")
        .envs(store.environment())
        .output();
    Ok(program.await?)
}

async fn bring_back(a: &NodeWorld, snapshot: &str) -> Result<()> {
    let mut request = restore("kept", from_snapshot("main", snapshot));
    request.spec.selection.namespaces = vec![NAMESPACE.to_owned()];
    request.spec.mapping.namespaces = vec![NameMapping {
        from: NAMESPACE.to_owned(),
        to: ELSEWHERE.to_owned(),
    }];
    let restored = run(&a.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(restored.complete(), "{}", restored.verdict());
    a.rolled_out(ELSEWHERE, "deployment/holder").await?;
    let tree = a.content(ELSEWHERE, "tree").await?;
    let word = fs::read_to_string(tree.join("word"))?;
    ensure!(word == "before", "the volume is of another moment: {word}");
    has_noise(&tree.join("image"))?;
    has_noise(&a.content(ELSEWHERE, "disk").await?)?;
    // What was made for the restore is gone, and what the point keeps is not.
    only_the_kept_are_left(a).await
}

fn has_noise(place: &Path) -> Result<()> {
    let bytes = fs::read(place)?;
    ensure!(
        bytes.get(..NOISE_BYTES) == Some(&noise(1, NOISE_BYTES)[..]),
        "{} has other data",
        place.display()
    );
    Ok(())
}

/// Forgets the point; waits until the operator has noticed, and lets the grace pass.
async fn forget(a: &NodeWorld, store: &Store, snapshot: &str) -> Result<()> {
    let forgotten = lifebuoy(store, &["recoverypoint", "forget", snapshot]).await?;
    ensure!(
        forgotten.status.success(),
        "{}",
        String::from_utf8_lossy(&forgotten.stderr)
    );
    let since = UNNEEDED_SINCE_ANNOTATION.replace('.', "\\.");
    let noted = format!("-o=jsonpath={{.items[*].metadata.annotations.{since}}}");
    let what = "both snapshots are noted as not needed";
    eventually(what, LOOKED_WITHIN, async || {
        let get = ["get", "volumesnapshotcontents", &noted];
        let noted = a.kubectl(&get).await?;
        Ok((noted.split_whitespace().count() == 2).then_some(()))
    })
    .await?;
    ensure!(
        a.storage.snapshots()?.len() == 2,
        "a snapshot has gone before its time"
    );
    let long_ago = format!("{UNNEEDED_SINCE_ANNOTATION}=2020-01-01T00:00:00Z");
    let annotate = ["annotate", "volumesnapshotcontents", "--overwrite"];
    a.kubectl(&[&annotate[..], &["-l", KEPT_FOR_LABEL, &long_ago]].concat())
        .await?;
    let what = "the snapshots are gone from the storage system";
    eventually(what, LOOKED_WITHIN, async || {
        Ok(a.storage.snapshots()?.is_empty().then_some(()))
    })
    .await
}

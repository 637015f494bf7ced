//! A volume with everything in it that a file system can hold, and one that is a
//! block device, are equal in the other cluster.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lifebuoy_api::{NameMapping, VolumeWay};
use lifebuoy_scenarios::{
    Ended, NodeWorld, NodeWorlds, OPERATOR_NAMESPACE, backup_of_volumes, copy_image_to_disk,
    newest_of, node_scenario, restore, run, same_bytes, same_files, start_holder,
};
use lifebuoy_testkit::oddities;

const NAMESPACE: &str = "files";
/// Ordinary files beside the odd ones, in so many folders of so many.
const FOLDERS: usize = 200;
const FILES_IN_EACH: usize = 500;
/// How long saving or restoring may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

#[test]
fn volumes_are_equal_in_the_other_cluster() {
    node_scenario(&NodeWorld::needs(&[]), async {
        let NodeWorlds { a, b, s3: _s3 } = NodeWorlds::start(&[]).await?;
        a.recorded(save(&a).await).await?;
        b.recorded(bring_back(&a, &b).await).await
    });
}

/// Fills the volumes and saves them.
async fn save(a: &NodeWorld) -> Result<()> {
    start_holder(a, NAMESPACE, "4Gi").await?;
    let tree = a.content(NAMESPACE, "tree").await?;
    fill(&tree)?;
    copy_image_to_disk(a, NAMESPACE).await?;

    let request = backup_of_volumes("files", "main", NAMESPACE, VolumeWay::Move);
    let saved = run(&a.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(saved.complete(), "{}", saved.verdict());
    a.nothing_is_left().await
}

/// One of everything, many of the usual, and the image of a disk.
fn fill(tree: &Path) -> Result<()> {
    let odd = tree.join("odd");
    fs::create_dir(&odd)?;
    oddities::make(&odd)?;
    // As docs/install.md says of movers.
    oddities::remove_trusted(&odd)?;
    oddities::make_image(&tree.join("image"))?;
    for folder in 0..FOLDERS {
        let folder = tree.join(format!("many/{folder}"));
        fs::create_dir_all(&folder)?;
        for file in 0..FILES_IN_EACH {
            let path = folder.join(format!("{file}.txt"));
            File::create(&path)?.write_all(format!("{}\n", path.display()).as_bytes())?;
        }
        fs::hard_link(folder.join("0.txt"), folder.join("0 again.txt"))?;
    }
    Ok(())
}

/// Restores the volumes in the other cluster, and compares them with the first.
async fn bring_back(a: &NodeWorld, b: &NodeWorld) -> Result<()> {
    let mut request = restore("files", newest_of("main", "a"));
    request.spec.selection.namespaces = vec![NAMESPACE.to_owned()];
    request.spec.mapping.storage_classes = vec![NameMapping {
        from: "fast".to_owned(),
        to: "slow".to_owned(),
    }];
    let restored = run(&b.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(restored.complete(), "{}", restored.verdict());
    b.rolled_out(NAMESPACE, "deployment/holder").await?;

    let trees = [
        a.content(NAMESPACE, "tree").await?,
        b.content(NAMESPACE, "tree").await?,
    ];
    let disks = [
        a.content(NAMESPACE, "disk").await?,
        b.content(NAMESPACE, "disk").await?,
    ];
    let links = fs::metadata(trees[0].join("many/0/0.txt"))?.nlink();
    ensure!(links == 2, "the files to compare are not as they were");
    same_files(&trees[0], &trees[1])?;
    let odd = |tree: &Path| oddities::seen(&tree.join("odd"));
    ensure!(
        odd(&trees[0])? == odd(&trees[1])?,
        "rsync sees no difference, but there is one: in holes, times or attributes"
    );
    same_bytes(&disks[0], &disks[1])?;
    b.nothing_is_left().await
}

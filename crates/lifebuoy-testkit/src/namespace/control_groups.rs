//! The control groups of nodes, all of a run below one that is its slot's: in each
//! hierarchy, be it one (version 2), or one for each controller (version 1).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use super::leftovers::{GONE_LIMIT, GONE_POLL};
use super::slot;

const ROOT: &str = "/sys/fs/cgroup";
const OURS: &str = "lifebuoy-test-nodes";
/// Lists what a group may hand on to those below it (version 2).
const CONTROLLERS: &str = "cgroup.controllers";

/// The group below which the pods of a node of this run are.
///
/// # Errors
/// When this process is not inside of a run.
pub fn of_node(name: &str) -> Result<String> {
    Ok(format!("{}/{name}", of_slot(slot::inside()?)))
}

fn of_slot(slot: u8) -> String {
    format!("{OURS}-{slot}")
}

/// Makes the group of a node, which its kubelet wants to find.
pub(crate) fn make(name: &str) -> Result<()> {
    let groups = [of_slot(slot::inside()?), of_node(name)?];
    for hierarchy in hierarchies()? {
        for group in &groups {
            let group = hierarchy.join(group);
            fs::create_dir_all(&group).with_context(|| format!("cannot make {group:?}"))?;
            hand_on(&group)?;
        }
    }
    Ok(())
}

fn hand_on(group: &Path) -> Result<()> {
    let controllers = fs::read_to_string(group.join(CONTROLLERS)).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        fs::write(
            group.join("cgroup.subtree_control"),
            format!("+{controller}"),
        )
        .with_context(|| format!("{group:?} cannot hand on {controller}"))?;
    }
    Ok(())
}

/// Fails where this process may not make groups.
pub(super) fn try_out() -> Result<()> {
    let name = format!("{OURS}-trial-{}", std::process::id());
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(&name);
        let tried = fs::create_dir(&group).and_then(|()| fs::remove_dir(&group));
        tried.with_context(|| format!("cannot make {}", group.display()))?;
    }
    Ok(())
}

/// Removes all groups of all nodes of a slot.
pub(super) fn remove(slot: u8) -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_group(&hierarchy.join(of_slot(slot)))?;
    }
    Ok(())
}

/// Where hierarchies are mounted. Some are found twice, under the names of
/// several controllers.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join(CONTROLLERS).exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).context("cannot list the control groups")?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn remove_group(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path())?;
        }
    }
    let started = Instant::now();
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) if started.elapsed() < GONE_LIMIT => thread::sleep(GONE_POLL),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot remove {group:?}"));
            }
        }
    }
}

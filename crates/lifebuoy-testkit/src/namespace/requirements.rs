//! What a machine needs to run a node: root, programs, and a kernel that lets
//! root do what a node does. Never installs anything unless it is asked to.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use super::{command, control_groups};

/// Programs, by name or by path, and the Debian package that has each.
const PROGRAMS: [(&str, &str); 13] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/bin/busybox", "busybox-static"),
    ("debootstrap", "debootstrap"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("losetup", "mount"),
    ("mount", "mount"),
    ("rsync", "rsync"),
    ("cmp", "diffutils"),
];

/// What the kernel must let root do, and what tries it. Whatever a trial makes
/// goes with its namespaces.
const ABILITIES: [(&str, &str); 4] = [
    (
        "network, mount and process namespaces",
        "unshare --mount --net --pid --fork --mount-proc true",
    ),
    (
        "bridges and pairs of interfaces",
        "unshare --net sh -ec 'ip link add one type bridge; ip link add two type veth peer name three'",
    ),
    (
        "overlays",
        "unshare --mount sh -ec 'mount -t tmpfs none /tmp; cd /tmp; mkdir a b c d
         mount -t overlay -o lowerdir=a,upperdir=b,workdir=c none d'",
    ),
    (
        "loop devices and btrfs",
        "unshare --mount sh -ec 'mount -t tmpfs none /tmp; cd /tmp; mkdir a
         truncate --size=128M disk; mkfs.btrfs --quiet disk; mount -o loop disk a'",
    ),
];

/// Why this machine cannot run a node, in one line; `None` if it can. It is
/// found out once in the life of this process.
pub fn missing() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING.get_or_init(look).clone()
}

fn look() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a real node needs root, on Linux".to_owned());
    }
    let packages = packages_missing();
    if !packages.is_empty() {
        return Some(format!(
            "a real node needs programs that are not installed: apt-get install --no-install-recommends {}",
            packages.join(" ")
        ));
    }
    let denied = ABILITIES.iter().find_map(|(what, trial)| {
        let error = command("sh", ["-c", trial]).err()?;
        Some((*what, error))
    });
    let groups = || Some(("control groups", control_groups::try_out().err()?));
    denied.or_else(groups).map(|(what, error)| {
        let why = format!("{error:#}").replace('\n', " ");
        format!("a real node needs {what}, which root may not have on this machine: {why}")
    })
}

/// Installs what [`missing`] would name, where that can be: as root, with
/// apt-get. Anywhere else it does nothing. What it does goes to `progress`.
///
/// Not to be called after [`missing`], whose answer does not change.
///
/// # Errors
/// When a package cannot be installed.
pub fn install_missing(progress: &dyn Fn(&str)) -> Result<()> {
    let packages = packages_missing();
    let able = rustix::process::geteuid().is_root() && is_on_path("apt-get");
    if packages.is_empty() || !able {
        return Ok(());
    }
    let packages = packages.join(" ");
    progress(&format!("installing what a real node needs: {packages}"));
    let quiet = "apt-get --quiet --quiet --yes -o DPkg::Lock::Timeout=300";
    let script = format!(
        "export DEBIAN_FRONTEND=noninteractive
         {quiet} update && {quiet} install --no-install-recommends {packages}"
    );
    command("sh", ["-c", &script]).context("cannot install what a real node needs")?;
    Ok(())
}

fn packages_missing() -> Vec<&'static str> {
    packages_of_missing(&is_on_path)
}

fn packages_of_missing(is_there: &dyn Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    is_in(program, &path)
}

fn is_in(program: &str, path: &OsStr) -> bool {
    std::env::split_paths(path).any(|folder| folder.join(Path::new(program)).is_file())
}

/// Whether this is CI, where nothing is skipped.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// Says it past the test harness, which shows nothing of a test that passes.
pub(super) fn say_skipped(test: &str, missing: &str) {
    // Where nobody reads it, nobody misses it.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        let only_mount = |program: &str| program == "mount";
        let packages = packages_of_missing(&only_mount);
        assert_eq!(packages.len(), 11, "{packages:?}");
        assert_eq!(packages[0], "containerd");
        assert!(packages_of_missing(&|_| true).is_empty());
    }

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        let path = OsStr::new("/nowhere:/bin:/usr/bin");
        assert!(is_in("sh", path) && is_in("/bin/sh", path));
        assert!(!is_in("no such program", path));
    }
}

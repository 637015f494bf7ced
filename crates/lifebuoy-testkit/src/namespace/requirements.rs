//! What a machine needs to run a node.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Programs, by name or by path, and the Debian package that has each.
const PROGRAMS: [(&str, &str); 11] = [
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
];

/// Why this machine cannot run a node, in one line; `None` if it can.
pub fn missing() -> Option<String> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root {
        return Some("a real node needs root, on Linux".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let packages = missing_packages(&|program| is_there(program, &path));
    if packages.is_empty() {
        return None;
    }
    Some(format!(
        "a real node needs programs that are not installed: apt-get install --no-install-recommends {}",
        packages.join(" ")
    ))
}

fn missing_packages(is_there: &dyn Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

fn is_there(program: &str, path: &OsStr) -> bool {
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
        let packages = missing_packages(&only_mount);
        assert_eq!(packages.len(), 9, "{packages:?}");
        assert_eq!(packages[0], "containerd");
        assert!(missing_packages(&|_| true).is_empty());
    }
}

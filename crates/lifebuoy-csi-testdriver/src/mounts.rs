//! Mounts and loop devices of this mount namespace. Never decides when a
//! volume is published.

use std::fs::{self, File};
use std::path::Path;

use crate::command::run;
use crate::storage::{StorageError, at};

const MOUNTS: &str = "/proc/self/mountinfo";

/// One mount: where in its file system, and at which path here.
struct Mount {
    root: String,
    target: String,
}

fn all() -> Result<Vec<Mount>, StorageError> {
    let path = Path::new(MOUNTS);
    let text = fs::read_to_string(path).map_err(at(path))?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Reads a line of `mountinfo`: id, parent, device, root, target, …
fn parse(line: &str) -> Option<Mount> {
    let mut words = line.split(' ').skip(3).map(unescape);
    Some(Mount {
        root: words.next()?,
        target: words.next()?,
    })
}

/// Blanks and such stand there as octal numbers.
fn unescape(word: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(word.to_owned(), |word, (code, text)| {
        word.replace(code, text)
    })
}

/// Whether something is mounted at exactly this path.
pub(crate) fn is_mounted(path: &Path) -> Result<bool, StorageError> {
    let Ok(path) = path.canonicalize() else {
        return Ok(false);
    };
    Ok(all()?.iter().any(|mount| Path::new(&mount.target) == path))
}

/// Shows `from` at `to`, which must exist.
pub(crate) fn bind(from: &Path, to: &Path, readonly: bool) -> Result<(), StorageError> {
    let options = if readonly { "bind,ro" } else { "bind" };
    let words = ["-o".as_ref(), options.as_ref()];
    run(
        "mount",
        words.into_iter().chain([from.as_os_str(), to.as_os_str()]),
    )?;
    Ok(())
}

/// Ends what is mounted at this path, if something is.
pub(crate) fn unmount(path: &Path) -> Result<(), StorageError> {
    if is_mounted(path)? {
        run("umount", [path])?;
    }
    Ok(())
}

/// The loop device over a disk, attached if it is not yet.
pub(crate) fn attach(disk: &Path, readonly: bool) -> Result<String, StorageError> {
    if let Some(device) = attached(disk, readonly)? {
        return Ok(device);
    }
    let mut words = vec!["--find".as_ref(), "--show".as_ref()];
    if readonly {
        words.push("--read-only".as_ref());
    }
    words.push(disk.as_os_str());
    Ok(run("losetup", words)?.trim().to_owned())
}

fn attached(disk: &Path, readonly: bool) -> Result<Option<String>, StorageError> {
    let found = devices(disk)?;
    let found = found.into_iter().find(|device| device.readonly == readonly);
    Ok(found.map(|device| device.path))
}

/// Detaches the loop devices over a disk that no path shows any more.
pub(crate) fn detach_unused(disk: &Path) -> Result<(), StorageError> {
    let mounts = all()?;
    for device in devices(disk)? {
        let root = device.path.trim_start_matches("/dev");
        if !mounts.iter().any(|mount| mount.root == root) {
            run("losetup", ["--detach", &device.path])?;
        }
    }
    Ok(())
}

/// Writes what the kernel still holds of a disk into its file.
pub(crate) fn flush(disk: &Path) -> Result<(), StorageError> {
    for device in devices(disk)? {
        let device = Path::new(&device.path);
        let file = File::open(device).map_err(at(device))?;
        file.sync_all().map_err(at(device))?;
    }
    Ok(())
}

struct LoopDevice {
    path: String,
    readonly: bool,
}

fn devices(disk: &Path) -> Result<Vec<LoopDevice>, StorageError> {
    let words = ["--noheadings", "--output", "NAME,RO", "--associated"];
    let words = words.iter().map(AsRef::as_ref).chain([disk.as_os_str()]);
    let listed = run("losetup", words)?;
    let device = |line: &str| {
        let mut words = line.split_whitespace();
        Some(LoopDevice {
            path: words.next()?.to_owned(),
            readonly: words.next()? == "1",
        })
    };
    Ok(listed.lines().filter_map(device).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_blanks() {
        let line = "36 35 98:0 /loop3 /mnt/a\\040b rw,noatime master:1 - devtmpfs udev rw";
        let mount = parse(line).unwrap();
        assert_eq!(
            (mount.root.as_str(), mount.target.as_str()),
            ("/loop3", "/mnt/a b")
        );
    }
}

//! Removes what outlives the namespaces of a run: loop devices and control
//! groups. Called while no run has the slot: all that it finds of it is left over.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{command, control_groups};

/// How long processes that were killed may take to be gone.
pub(super) const GONE_LIMIT: Duration = Duration::from_secs(20);
pub(super) const GONE_POLL: Duration = Duration::from_millis(50);

/// The name of the disks of a run.
pub(super) fn disk_name(slot: u8) -> String {
    format!("lifebuoy-test-disk-{slot}")
}

/// Removes what runs have left in a slot.
pub(super) fn remove(slot: u8) -> Result<()> {
    let disk_name = disk_name(slot);
    control_groups::remove(slot)?;
    let started = Instant::now();
    loop {
        let left = over(&disk_name, &loop_devices()?);
        let Some(device) = left.first() else {
            return Ok(());
        };
        // One that is in use goes when its last user has: then this fails, and
        // the next look finds it gone.
        let detached = command("losetup", ["--detach", device]);
        if started.elapsed() > GONE_LIMIT {
            detached?;
            bail!("{device} is left over from an earlier run, and in use");
        }
        thread::sleep(GONE_POLL);
    }
}

/// A loop device, and what is below it.
#[derive(Debug, PartialEq, Eq)]
struct LoopDevice {
    path: String,
    /// The device that holds the file, and the file's number there.
    file: (String, u64),
    name: String,
    /// The same of its own node below `/dev`, which another may lie over.
    node: (String, u64),
}

fn loop_devices() -> Result<Vec<LoopDevice>> {
    let columns = "NAME,BACK-MAJ:MIN,BACK-INO,BACK-FILE";
    let words = ["--list", "--noheadings", "--output", columns];
    let listed = command("losetup", words)?;
    Ok(listed.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<LoopDevice> {
    let mut words = line.split_whitespace();
    let path = words.next()?.to_owned();
    let file = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let name = words.collect::<Vec<_>>().join(" ");
    let own = fs::metadata(&path).ok();
    let node = own.map_or_else(Default::default, |own| (device(own.dev()), own.ino()));
    Some(LoopDevice {
        path,
        file,
        name,
        node,
    })
}

fn device(number: u64) -> String {
    format!("{}:{}", libc::major(number), libc::minor(number))
}

/// The devices over disks of this name, and before each the one that a kubelet lays over
/// it to hold it.
fn over(disk_name: &str, devices: &[LoopDevice]) -> Vec<String> {
    let disks = |device: &&LoopDevice| device.name.contains(disk_name);
    let mut over = Vec::new();
    for disk in devices.iter().filter(disks) {
        let above = devices.iter().filter(|device| device.file == disk.node);
        over.extend(above.chain([disk]).map(|device| device.path.clone()));
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loop_device(number: u64, file: (&str, u64), name: &str) -> LoopDevice {
        LoopDevice {
            path: format!("/dev/loop{number}"),
            file: (file.0.to_owned(), file.1),
            name: name.to_owned(),
            node: ("0:6".to_owned(), 90 + number),
        }
    }

    #[test]
    fn only_the_devices_of_test_volumes_of_the_slot_are_left_over() {
        let disk = |slot| format!("/volumes/1/{} (deleted)", disk_name(slot));
        let devices = [
            loop_device(0, ("254:0", 7), "/home/somebody/disk.img"),
            loop_device(1, ("0:45", 260), &disk(1)),
            loop_device(2, ("0:6", 91), "/"),
            loop_device(3, ("0:6", 90), "/"),
            loop_device(4, ("0:45", 261), &disk(0)),
        ];
        assert_eq!(over(&disk_name(1), &devices), ["/dev/loop2", "/dev/loop1"]);
    }

    #[test]
    fn a_listed_device_is_read() {
        let parsed = parse("/dev/loop1048575        0:6         94 /a disk (deleted)").unwrap();
        assert_eq!(parsed.file, ("0:6".to_owned(), 94));
        assert_eq!(parsed.name, "/a disk (deleted)");
    }
}

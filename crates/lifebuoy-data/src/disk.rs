//! The file system that is saved: names in order, states, attributes. Works on open
//! directories and single names, so no link on the way leads elsewhere.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, lgetxattr, llistxattr,
    },
    io::Errno,
};

use crate::entry::{Kind, Meta, Pairs, Time};

/// Names that are held of one directory. A longer one is read again for each
/// further so many.
const NAMES_MAX: usize = 128 * 1024;

/// Opens a directory below another one.
pub(crate) fn open_directory(above: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(above, name, flags, Mode::empty())?)
}

/// Opens a file to read it. One that has become a pipe does not block.
pub(crate) fn open_file(directory: impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    Ok(file.into())
}

pub(crate) fn stat(directory: impl AsFd, name: &[u8]) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::statat(directory, name, flags)?)
}

/// The names in a directory, in order.
pub(crate) struct Names {
    /// The next ones, the last first.
    read: Vec<Box<[u8]>>,
    /// The names after this one have not been read.
    more_after: Option<Box<[u8]>>,
}

impl Names {
    pub(crate) fn of(directory: impl AsFd) -> io::Result<Self> {
        let mut names = Self {
            read: Vec::new(),
            more_after: None,
        };
        names.read_after(directory, None, NAMES_MAX)?;
        Ok(names)
    }

    /// The next name. `directory` is the same each time.
    pub(crate) fn next(&mut self, directory: impl AsFd) -> io::Result<Option<Box<[u8]>>> {
        if self.read.is_empty()
            && let Some(last) = self.more_after.take()
        {
            self.read_after(directory, Some(&last), NAMES_MAX)?;
        }
        Ok(self.read.pop())
    }

    /// Reads the first `max` names after `last`.
    fn read_after(
        &mut self,
        directory: impl AsFd,
        last: Option<&[u8]>,
        max: usize,
    ) -> io::Result<()> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let mut below: Option<Box<[u8]>> = None;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_out = last.is_some_and(|last| name <= last)
                || below.as_deref().is_some_and(|below| name > below);
            if is_out || name == b"." || name == b".." {
                continue;
            }
            names.push(name.into());
            if names.len() > 2 * max {
                names.select_nth_unstable(max - 1);
                names.truncate(max);
                below = names.last().cloned();
            }
        }
        names.sort_unstable();
        if below.is_some() || names.len() > max {
            names.truncate(max);
            self.more_after = names.last().cloned();
        }
        names.reverse();
        self.read = names;
        Ok(())
    }
}

/// What the state of a file says of it. Stamp and attributes are not in it.
pub(crate) fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: Time {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        },
        ..Meta::default()
    }
}

/// What it is; none for a directory, file or symbolic link, which say more, and for
/// what no snapshot holds.
pub(crate) fn special(stat: &Stat) -> Option<Kind> {
    let (major, minor) = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Some(Kind::Fifo),
        FileType::Socket => Some(Kind::Socket),
        FileType::CharacterDevice => Some(Kind::CharDevice { major, minor }),
        FileType::BlockDevice => Some(Kind::BlockDevice { major, minor }),
        _ => None,
    }
}

/// The attributes of an open file, in the order of their names.
pub(crate) fn attributes(file: impl AsFd) -> io::Result<Pairs> {
    collect(
        |list| flistxattr(&file, list),
        |name, value| fgetxattr(&file, name, value),
    )
}

/// The attributes of what cannot be opened without effect: a link, a pipe, a device.
pub(crate) fn attributes_at(directory: impl AsFd, name: &[u8]) -> io::Result<Pairs> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    collect(
        |list| llistxattr(&*path, list),
        |name, value| lgetxattr(&*path, name, value),
    )
}

fn collect(
    mut list: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
    mut get: impl FnMut(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Pairs> {
    let names = match grow(&mut list) {
        // There is no such thing on this file system.
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut pairs = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        match grow(|value| get(name, value)) {
            Ok(value) => pairs.push((name.to_vec(), value)),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    pairs.sort_unstable();
    Ok(pairs)
}

/// Linux allows no longer list and no longer value.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;

fn grow(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; ATTRIBUTE_BYTES_MAX];
            let len = read(&mut large)?;
            large.truncate(len);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_order_however_few_are_held() {
        let place = tempfile::tempdir().unwrap();
        for n in 0..257 {
            std::fs::write(place.path().join(format!("{}", n * 7919 % 1000)), "").unwrap();
        }
        let directory: OwnedFd = File::open(place.path()).unwrap().into();
        let mut expected: Vec<Vec<u8>> = std::fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
            .collect();
        expected.sort();
        for max in [1, 2, 50, 128, 256, 257, 1000] {
            let mut names = Names {
                read: Vec::new(),
                more_after: None,
            };
            names.read_after(&directory, None, max).unwrap();
            let mut found = Vec::new();
            loop {
                let Some(name) = names.read.pop() else {
                    let Some(last) = names.more_after.take() else {
                        break;
                    };
                    names.read_after(&directory, Some(&last), max).unwrap();
                    continue;
                };
                found.push(name.to_vec());
            }
            assert_eq!(found, expected, "{max}");
        }
    }
}

//! Removes from the place of a restore what the snapshot does not hold, before the rest is
//! overwritten. Goes through both in one order; follows no link, and holds the names of one
//! directory a level.

use std::{fmt::Display, io, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode},
    io::Errno,
};

use crate::{
    disk::{self, Names},
    path::TreePath,
    progress::Progress,
    target::{Nearby, Target},
};

/// At the top of ext2, ext3 and ext4: it belongs to the file system and not to the data,
/// and no save takes it.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Names that are read at a time of a directory that goes.
const NAMES_AT_ONCE: usize = 1024;

/// What is cleared up.
pub(crate) struct Clearing<'a> {
    target: &'a Target,
    progress: &'a Progress,
    /// The directories, each in the one before, that are both on disk and in the snapshot.
    open: Vec<Level>,
}

struct Level {
    path: TreePath,
    directory: OwnedFd,
    names: Names,
    /// A name that was read and not dealt with.
    next: Option<Box<[u8]>>,
}

impl<'a> Clearing<'a> {
    pub(crate) fn new(target: &'a Target, progress: &'a Progress) -> Self {
        Self {
            target,
            progress,
            open: Vec::new(),
        }
    }

    /// The next path of the snapshot, in order: what is before it on disk goes, and what is
    /// there in its place if one is a directory and the other is not.
    pub(crate) fn keep(&mut self, path: &TreePath, is_directory: bool) {
        while let Some(last) = self.open.last()
            && !path.is_within(&last.path)
        {
            self.close();
        }
        let Some((above, name)) = path.split() else {
            // Beside a single file is nothing of it.
            if is_directory {
                self.enter(path);
            }
            return;
        };
        // What is below something that is no directory on disk is not there.
        if self
            .open
            .last()
            .is_some_and(|last| last.path.as_bytes() == above)
            && self.clear_before(Some(name))
        {
            self.meet(path, name, is_directory);
        }
    }

    /// After the last path of the snapshot.
    pub(crate) fn finish(mut self) {
        while !self.open.is_empty() {
            self.close();
        }
    }

    /// What both have.
    fn meet(&mut self, path: &TreePath, name: &[u8], is_directory: bool) {
        let Some(level) = self.open.last() else {
            return;
        };
        match level.is_directory(name) {
            Ok(there) if there && is_directory => self.enter(path),
            Ok(there) if there != is_directory => {
                if let Err(error) = remove(&level.directory, name) {
                    self.problem(path, &error);
                }
            }
            Ok(_) => {}
            Err(error) => self.problem(path, &error),
        }
    }

    fn enter(&mut self, path: &TreePath) {
        let opened = match (self.open.last(), path.split()) {
            (Some(level), Some((_, name))) => disk::open_directory(&level.directory, name),
            _ => self
                .target
                .locate(path, &mut Nearby::default())
                .and_then(|(above, name)| disk::open_directory(&*above, name)),
        };
        let level = opened.and_then(|directory| {
            Ok(Level {
                path: path.clone(),
                names: Names::of(&directory)?,
                directory,
                next: None,
            })
        });
        match level {
            Ok(level) => self.open.push(level),
            Err(error) => self.problem(path, &error),
        }
    }

    fn close(&mut self) {
        self.clear_before(None);
        self.open.pop();
    }

    /// Removes what is in the innermost directory up to a name, or all that is left. Whether
    /// that name is there.
    fn clear_before(&mut self, name: Option<&[u8]>) -> bool {
        let Some(level) = self.open.last_mut() else {
            return false;
        };
        loop {
            let next = match level.next.take() {
                Some(next) => Some(next),
                None => match level.names.next(&level.directory) {
                    Ok(next) => next,
                    Err(error) => {
                        problem(self.progress, &level.path, &error);
                        return false;
                    }
                },
            };
            let Some(next) = next else {
                return false;
            };
            if name == Some(&*next) {
                return true;
            }
            if name.is_some_and(|name| *next > *name) {
                level.next = Some(next);
                return false;
            }
            if let Err(error) = level.remove_other(&next) {
                let path = level.path.join(&next);
                let path = path.as_ref().unwrap_or(&level.path);
                problem(self.progress, path, &error);
            }
        }
    }

    fn problem(&self, path: &TreePath, what: &impl Display) {
        problem(self.progress, path, what);
    }
}

impl Level {
    fn is_directory(&self, name: &[u8]) -> io::Result<bool> {
        let there = disk::stat(&self.directory, name)?;
        Ok(FileType::from_raw_mode(there.st_mode) == FileType::Directory)
    }

    /// Removes what the snapshot does not hold.
    fn remove_other(&self, name: &[u8]) -> io::Result<()> {
        let at_top = self.path == TreePath::default();
        if at_top && name == LOST_AND_FOUND && self.is_directory(name)? {
            return Ok(());
        }
        remove(&self.directory, name)
    }
}

fn problem(progress: &Progress, path: &TreePath, what: &impl Display) {
    let what = format!("it is not in the snapshot, and cannot be removed: {what}");
    progress.problem(path, &what);
}

/// Removes a name, and everything below it.
fn remove(above: &OwnedFd, name: &[u8]) -> io::Result<()> {
    if unlink(above, name)? {
        return Ok(());
    }
    let top = open(above, name)?;
    let mut lifted = 0;
    empty(&top, &mut |below| lift(&top, below, &mut lifted))?;
    gone(rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR))
}

/// Removes a directory in `top`. The directories in it are moved to `top` first: however
/// deep it is, no more than two are open.
fn lift(top: &OwnedFd, name: &[u8], lifted: &mut u64) -> io::Result<()> {
    let directory = open(top, name)?;
    empty(&directory, &mut |below| {
        loop {
            *lifted += 1;
            let to = format!(".lifebuoy-removes-{lifted}");
            match rustix::fs::renameat(&directory, below, top, &*to) {
                Ok(()) => return Ok(()),
                // Somebody has called something else so.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    })?;
    gone(rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR))
}

/// Removes everything in a directory; `directory_in` those that are directories.
fn empty(
    directory: &OwnedFd,
    directory_in: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let names = some_names(directory)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if !unlink(directory, &name)? {
                directory_in(&name)?;
            }
        }
    }
}

fn some_names(directory: &OwnedFd) -> io::Result<Vec<Box<[u8]>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
        if names.len() == NAMES_AT_ONCE {
            break;
        }
    }
    Ok(names)
}

/// Opens a directory in which something is to be removed.
fn open(above: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let directory = disk::open_directory(above, name)?;
    // Where one is not root. If it does not help, the removal says so.
    let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
    Ok(directory)
}

/// Removes a name, unless it is one of a directory. Whether it is gone.
fn unlink(above: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    match rustix::fs::unlinkat(above, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => Ok(false),
        other => gone(other).map(|()| true),
    }
}

fn gone(removed: Result<(), Errno>) -> io::Result<()> {
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

//! Where a restore writes to. Goes from one open directory to the next and follows
//! no link, whatever is there already: nothing is written outside.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps,
        UTIME_OMIT, Uid, XattrFlags,
    },
    io::Errno,
};

use crate::{
    disk,
    entry::{Entry, Kind, Meta, Pairs, Time},
    error::{Error, Result},
    path::TreePath,
};

/// What may be there before a restore begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// Nothing, or an empty directory.
    #[default]
    Refuse,
    /// What a restore has left that was interrupted: files that are as they should be
    /// stay, everything else that is in the way goes.
    Resume,
    /// Anything. It goes, unless it is in the snapshot: the place becomes equal to that, but
    /// for the `lost+found` at its top. A file stays whose bytes were read and found right;
    /// its time proves nothing. For a whole directory or device.
    Overwrite,
}

/// The place to restore to.
pub(crate) struct Target {
    /// What the empty path is the name of, or is if the name is empty.
    root: OwnedFd,
    name: Vec<u8>,
    existing: Existing,
    /// Whether owners can be set.
    is_root: bool,
}

/// A directory of the target, and which one: the next path is often in the same.
#[derive(Default)]
pub(crate) struct Nearby(Option<(Vec<u8>, Arc<OwnedFd>)>);

const NEW_DIRECTORY: Mode = Mode::RWXU;
const NEW_FILE: Mode = Mode::from_raw_mode(0o600);
/// What files that are made in a directory inherit.
const DEFAULT_ACL: &str = "system.posix_acl_default";
/// What the names of attributes begin with that somebody has given to a file.
const OF_FILES: [&[u8]; 4] = [
    b"user.",
    b"trusted.",
    b"system.posix_acl_",
    b"security.capability",
];

impl Target {
    /// Opens the place for the contents of a directory, and makes it if need be.
    pub(crate) fn directory(place: &Path, existing: Existing) -> Result<Self> {
        let failed = |what| Error::place(what, place);
        match rustix::fs::mkdirat(CWD, place, NEW_DIRECTORY) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("create")(error.into())),
        }
        let root = File::open(place).map_err(failed("open"))?;
        let mut names = std::fs::read_dir(place).map_err(failed("read"))?;
        if existing == Existing::Refuse && names.next().is_some() {
            return Err(Error::NotEmpty {
                path: place.to_owned(),
            });
        }
        Ok(Self::new(root.into(), Vec::new(), existing))
    }

    /// Opens the place for something that is no directory.
    pub(crate) fn file(place: &Path, existing: Existing) -> Result<Self> {
        let above = match place.parent() {
            Some(above) if above.as_os_str().is_empty() => Path::new("."),
            Some(above) => above,
            None => place,
        };
        let root = File::open(above).map_err(Error::place("open", above))?;
        let name = place.file_name().unwrap_or_default().as_encoded_bytes();
        if existing == Existing::Refuse && place.symlink_metadata().is_ok() {
            return Err(Error::NotEmpty {
                path: place.to_owned(),
            });
        }
        Ok(Self::new(root.into(), name.to_vec(), existing))
    }

    fn new(root: OwnedFd, name: Vec<u8>, existing: Existing) -> Self {
        Self {
            root,
            name,
            existing,
            is_root: rustix::process::geteuid().is_root(),
        }
    }

    /// The directory that a path is in, and its name there.
    pub(crate) fn locate<'a>(
        &'a self,
        path: &'a TreePath,
        nearby: &mut Nearby,
    ) -> io::Result<(Arc<OwnedFd>, &'a [u8])> {
        let Some((above, name)) = path.split() else {
            let name = if self.name.is_empty() {
                &b"."[..]
            } else {
                &*self.name
            };
            return Ok((Arc::new(self.root.try_clone()?), name));
        };
        if let Some((known, directory)) = &nearby.0
            && known == above
        {
            return Ok((Arc::clone(directory), name));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut directory = self.root.try_clone()?;
        for name in above
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            directory = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
        }
        let directory = Arc::new(directory);
        nearby.0 = Some((above.to_vec(), Arc::clone(&directory)));
        Ok((directory, name))
    }

    /// Makes a directory that only we may enter until it is finished.
    pub(crate) fn make_directory(&self, path: &TreePath, nearby: &mut Nearby) -> io::Result<()> {
        let (above, name) = self.locate(path, nearby)?;
        if path.as_bytes().is_empty() {
            return self.take_over(&above, name);
        }
        match rustix::fs::mkdirat(&*above, name, NEW_DIRECTORY) {
            Err(Errno::EXIST) if self.existing != Existing::Refuse => {
                let there = disk::stat(&*above, name)?;
                if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                    return self.take_over(&above, name);
                }
                self.make_room(&above, name)?;
                Ok(rustix::fs::mkdirat(&*above, name, NEW_DIRECTORY)?)
            }
            made => Ok(made?),
        }
    }

    /// Lets a directory of somebody else be like a new one: what is made in it must not
    /// inherit from it, and nobody else may enter.
    fn take_over(&self, above: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if self.existing != Existing::Overwrite {
            return Ok(());
        }
        let directory = disk::open_directory(above, name)?;
        match rustix::fs::fremovexattr(&directory, DEFAULT_ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(rustix::fs::fchmod(&directory, NEW_DIRECTORY)?)
    }

    /// Whether a file is there as it should be.
    pub(crate) fn is_there(&self, entry: &Entry, nearby: &mut Nearby) -> bool {
        // The time is set last: one who has it is whole.
        self.existing == Existing::Resume
            && self.seems_there(entry, nearby).is_ok_and(|seems| seems)
    }

    /// Whether there is a file with this name alone that has the size and the time of the
    /// entry: its bytes may be those of the entry as well.
    pub(crate) fn seems_there(&self, entry: &Entry, nearby: &mut Nearby) -> io::Result<bool> {
        let Kind::File { size, .. } = &entry.kind else {
            return Ok(false);
        };
        let (above, name) = self.locate(&entry.path, nearby)?;
        let there = disk::stat(&*above, name)?;
        // Another name of it may be one of another file in the snapshot.
        let is_alone = self.existing != Existing::Overwrite || there.st_nlink == 1;
        Ok(is_alone && is_like(&there, *size, entry.meta.modified))
    }

    /// Opens a file that is there, to read it.
    pub(crate) fn read_file(&self, path: &TreePath, nearby: &mut Nearby) -> io::Result<File> {
        let (above, name) = self.locate(path, nearby)?;
        disk::open_file(&*above, name)
    }

    /// Makes an empty file of this size.
    pub(crate) fn make_file(
        &self,
        path: &TreePath,
        size: u64,
        nearby: &mut Nearby,
    ) -> io::Result<File> {
        let (above, name) = self.locate(path, nearby)?;
        self.make_room(&above, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = flags | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(&*above, name, flags, NEW_FILE)?.into();
        if size > 0 {
            file.set_len(size)?;
        }
        Ok(file)
    }

    /// Opens a file that was made before.
    pub(crate) fn open_file(&self, path: &TreePath, nearby: &mut Nearby) -> io::Result<File> {
        let (above, name) = self.locate(path, nearby)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat(&*above, name, flags, Mode::empty())?.into())
    }

    /// Makes what is neither file nor directory, with everything that it has.
    pub(crate) fn make_special(
        &self,
        entry: &Entry,
        pairs: &Pairs,
        nearby: &mut Nearby,
    ) -> io::Result<()> {
        let (above, name) = self.locate(&entry.path, nearby)?;
        self.make_room(&above, name)?;
        let node = |kind, major, minor| {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(&*above, name, kind, NEW_FILE, device)
        };
        match &entry.kind {
            Kind::Symlink(says) => rustix::fs::symlinkat(&**says, &*above, name)?,
            Kind::Fifo => node(FileType::Fifo, 0, 0)?,
            Kind::Socket => node(FileType::Socket, 0, 0)?,
            Kind::CharDevice { major, minor } => node(FileType::CharacterDevice, *major, *minor)?,
            Kind::BlockDevice { major, minor } => node(FileType::BlockDevice, *major, *minor)?,
            Kind::HardLink(first) => return self.link(first, &above, name),
            Kind::Directory | Kind::File { .. } => return Ok(()),
        }
        let Meta {
            mode,
            uid,
            gid,
            modified,
            stamp: _,
            attributes: _,
        } = &entry.meta;
        if self.is_root {
            let (uid, gid) = (Uid::from_raw_unchecked(*uid), Gid::from_raw_unchecked(*gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&*above, name, Some(uid), Some(gid), flags)?;
        }
        let mut path = format!("/proc/self/fd/{}/", above.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        for (name, value) in pairs {
            rustix::fs::lsetxattr(&*path, &**name, value, XattrFlags::empty())?;
        }
        if !matches!(entry.kind, Kind::Symlink(_)) {
            let mode = Mode::from_raw_mode((*mode).into());
            rustix::fs::chmodat(&*above, name, mode, AtFlags::empty())?;
        }
        let times = times(*modified);
        Ok(rustix::fs::utimensat(
            &*above,
            name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn link(&self, first: &TreePath, above: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let (directory, old) = self.locate(first, &mut Nearby::default())?;
        Ok(rustix::fs::linkat(
            &*directory,
            old,
            above,
            name,
            AtFlags::empty(),
        )?)
    }

    /// Gives a directory everything that it has, when everything is in it.
    pub(crate) fn finish_directory(
        &self,
        path: &TreePath,
        meta: &Meta,
        pairs: &Pairs,
        nearby: &mut Nearby,
    ) -> io::Result<()> {
        let (above, name) = self.locate(path, nearby)?;
        let directory = disk::open_directory(&*above, name)?;
        self.finish(&directory, meta, pairs)
    }

    /// Gives an open file everything that it has; the time last.
    pub(crate) fn finish(&self, file: impl AsFd, meta: &Meta, pairs: &Pairs) -> io::Result<()> {
        let Meta {
            mode,
            uid,
            gid,
            modified,
            stamp: _,
            attributes: _,
        } = meta;
        if self.is_root {
            let (uid, gid) = (Uid::from_raw_unchecked(*uid), Gid::from_raw_unchecked(*gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        if self.existing == Existing::Overwrite {
            remove_others(&file, pairs)?;
        }
        for (name, value) in pairs {
            rustix::fs::fsetxattr(&file, &**name, value, XattrFlags::empty())?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode((*mode).into()))?;
        Ok(rustix::fs::futimens(&file, &times(*modified))?)
    }

    /// Removes what is in the way, if something may be. A directory with something
    /// in it stays, and is an error.
    fn make_room(&self, above: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if self.existing == Existing::Refuse {
            return Ok(());
        }
        let gone = match rustix::fs::unlinkat(above, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR),
            gone => gone,
        };
        match gone {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Removes the attributes that a file has and should not have. Those that the system gives
/// to every file stay where it does not let go of them.
fn remove_others(file: impl AsFd, wanted: &Pairs) -> io::Result<()> {
    for (name, _) in disk::attributes(&file)? {
        if wanted.iter().any(|(of, _)| *of == name) {
            continue;
        }
        match rustix::fs::fremovexattr(&file, &*name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) if OF_FILES.iter().any(|of| name.starts_with(of)) => {
                return Err(error.into());
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn is_like(there: &Stat, size: u64, modified: Time) -> bool {
    FileType::from_raw_mode(there.st_mode) == FileType::RegularFile
        && u64::try_from(there.st_size) == Ok(size)
        && disk::meta(there).modified == modified
}

fn times(modified: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.seconds,
            tv_nsec: modified.nanoseconds.into(),
        },
    }
}

/// Takes the room that will be written to, so that a full disk is told at once. A
/// file system that cannot do so is told later.
pub(crate) fn reserve(file: &File, begin: u64, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), begin, length) {
        Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a region zeros, and a hole where that can be.
pub(crate) fn punch(file: &File, mut begin: u64, end: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    if begin >= end {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if rustix::fs::fallocate(file, flags, begin, end - begin).is_ok() {
        return Ok(());
    }
    while begin < end {
        let len = usize::try_from(end - begin).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_all_at(&ZEROS[..len], begin)?;
        begin += len as u64;
    }
    Ok(())
}

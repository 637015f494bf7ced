//! A directory with everything in it that a file system can hold, and the image of a
//! device with holes; small once compressed. And what is on a disk, as plain values.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

const MIB: u64 = 1 << 20;
/// Data with holes between: more of it than an entry holds.
const ISLANDS: u64 = 40;
const ISLAND_DISTANCE: u64 = 100 * 1024;
/// `user:1000:r--` beside the owner's `rw-`, as Linux stores it: version 2, then tag,
/// permissions and id of each.
const ACL: &[u8] = &[
    2, 0, 0, 0, // version
    1, 0, 6, 0, 255, 255, 255, 255, // owner
    2, 0, 4, 0, 232, 3, 0, 0, // user 1000
    4, 0, 4, 0, 255, 255, 255, 255, // group
    16, 0, 4, 0, 255, 255, 255, 255, // mask
    32, 0, 0, 0, 255, 255, 255, 255, // others
];

/// Makes one of everything that an ordinary user can make, and as root the rest.
///
/// # Errors
/// When something cannot be made: this file system has no extended attributes, say.
pub fn make(top: &Path) -> Result<()> {
    make_files(top)?;
    make_others(top)?;
    if rustix::process::geteuid().is_root() {
        make_as_root(top)?;
    }
    // Last: nothing that is made in them changes their times any more.
    let set_mode = |name: &str, mode| fs::set_permissions(top.join(name), mode_of(mode));
    set_mode("small", 0o4750)?;
    set_mode("nothing", 0o000)?;
    set_mode("empty", 0o1777)?;
    let long_ago = UNIX_EPOCH - Duration::new(12_345, 678_901_234);
    let far = UNIX_EPOCH + Duration::new(1 << 33, 1);
    for (name, time) in [("large", far), ("deep/er", long_ago), ("islands", long_ago)] {
        File::open(top.join(name))?.set_modified(time)?;
    }
    set_mode("deep/er/est", 0o555)?;
    Ok(())
}

fn make_files(top: &Path) -> Result<()> {
    let at = |name: &str| top.join(name);
    for folder in ["deep/er/est", "empty", "order/b"] {
        fs::create_dir_all(at(folder))?;
    }
    for name in [
        "deep/small again",
        "order/b/c",
        "order/b-",
        "order/b.c",
        "percent %FF",
        "ä",
    ] {
        fs::write(at(name), format!("{name}\n"))?;
    }
    fs::write(at("small"), "small\n")?;
    fs::write(at("deep/the same"), "small\n")?;
    fs::write(at("nothing"), "")?;
    fs::write(top.join(OsStr::from_bytes(b"not \xff UTF-8\n")), "odd")?;
    fs::write(at(&"n".repeat(255)), "long")?;
    for n in 0..20 {
        fs::write(at(&format!("deep/er/est/{n}")), noise(n, n as usize * 50))?;
    }
    fs::write(at("large"), thin_noise(1 << 20))?;
    fs::write(at("zeros"), vec![0; 1 << 20])?;
    File::create(at("hole"))?.set_len(7 * MIB)?;
    let islands = File::create(at("islands"))?;
    islands.set_len((ISLANDS + 1) * ISLAND_DISTANCE)?;
    for n in 0..ISLANDS {
        make_island(&islands, n, n)?;
    }
    Ok(())
}

fn make_island(file: &File, place: u64, what: u64) -> Result<()> {
    let island = format!("island {what}\n").repeat(300);
    Ok(file.write_all_at(island.as_bytes(), (place + 1) * ISLAND_DISTANCE)?)
}

fn make_others(top: &Path) -> Result<()> {
    let at = |name: &str| top.join(name);
    symlink("small", at("link"))?;
    symlink("/nowhere/at all", at("dangling"))?;
    symlink(OsStr::from_bytes(b"../\xfe"), at("odd link"))?;
    // Not by binding a socket: its path would have to be short.
    for (name, kind) in [("pipe", FileType::Fifo), ("socket", FileType::Socket)] {
        rustix::fs::mknodat(CWD, at(name), kind, Mode::RWXU, 0)?;
    }
    for (first, second) in [
        ("small", "deep/small, linked"),
        ("large", "deep/large, linked"),
        ("link", "link, linked"),
        ("pipe", "pipe, linked"),
    ] {
        fs::hard_link(at(first), at(second))?;
    }
    set(top, "small", "user.one", b"1")?;
    set(top, "small", "user.two", &[0, 255])?;
    set(top, "small", "system.posix_acl_access", ACL)?;
    set(top, "empty", "user.of a directory", b"")?;
    set(top, "empty", "system.posix_acl_default", ACL)?;
    set(top, "large", "user.long", &noise(6, 1500))
}

fn make_as_root(top: &Path) -> Result<()> {
    for (name, kind) in [
        ("characters", FileType::CharacterDevice),
        ("blocks", FileType::BlockDevice),
    ] {
        let device = rustix::fs::makedev(7, 42);
        rustix::fs::mknodat(CWD, top.join(name), kind, Mode::RUSR, device)?;
    }
    chown(top.join("deep"), Some(1234), Some(4321))?;
    lchown(top.join("dangling"), Some(77), Some(u32::MAX - 2))?;
    set(top, "dangling", "trusted.of a link", b"yes")
}

/// Removes the one thing of [`make`] that nobody sees without `CAP_SYS_ADMIN`, which
/// movers do not have.
///
/// # Errors
/// When the file system says no.
pub fn remove_trusted(top: &Path) -> Result<()> {
    let place = top.join("dangling");
    Ok(rustix::fs::lremovexattr(place, "trusted.of a link")?)
}

/// Sets an extended attribute.
fn set(top: &Path, name: &str, attribute: &str, value: &[u8]) -> Result<()> {
    rustix::fs::lsetxattr(top.join(name), attribute, value, XattrFlags::empty())
        .with_context(|| format!("cannot set {attribute} of {name}"))
}

/// Lets what [`make`] made be removed, also by one who is not root.
///
/// # Errors
/// When the file system says no.
pub fn let_go(top: &Path) -> Result<()> {
    Ok(fs::set_permissions(
        top.join("deep/er/est"),
        mode_of(0o755),
    )?)
}

fn mode_of(mode: u32) -> Permissions {
    Permissions::from_mode(mode)
}

/// Changes a little of what [`make`] made: something is gone, something new, and of the
/// rest the contents, the mode, or a time is another.
///
/// # Errors
/// When the file system says no.
pub fn change(top: &Path) -> Result<()> {
    let at = |name: &str| top.join(name);
    fs::remove_file(at("nothing"))?;
    fs::write(at("order/new"), "new\n")?;
    fs::write(at("order/b/c"), "changed\n")?;
    fs::set_permissions(at("order/b.c"), mode_of(0o600))?;
    File::open(at("zeros"))?.set_modified(UNIX_EPOCH)?;
    make_island(&File::options().write(true).open(at("islands"))?, 7, 1000)
}

/// Makes the image of a device.
///
/// # Errors
/// When the file system says no.
pub fn make_image(place: &Path) -> Result<()> {
    let image = File::create(place)?;
    image.set_len(20 * MIB + 1000)?;
    image.write_all_at(&noise(1, 5000), 3 * 64 * 1024 - 7)?;
    image.write_all_at(&thin_noise(500_000), 2 * MIB + 5)?;
    image.write_all_at(&vec![0; 1 << 20], 5 * MIB)?;
    image.write_all_at(b"beyond the first map", 17 * MIB)?;
    Ok(image.write_all_at(b"end", 20 * MIB + 997)?)
}

/// Changes an image of [`make_image`]. Returns the regions, in bytes, that may differ.
///
/// # Errors
/// When the file system says no.
pub fn change_image(place: &Path) -> Result<Vec<std::ops::Range<u64>>> {
    let image = File::options().write(true).open(place)?;
    image.write_all_at(b"changed", 10 * MIB)?;
    image.write_all_at(&vec![0; 64 * 1024], 17 * MIB)?;
    Ok(vec![10 * MIB..10 * MIB + 7, 17 * MIB..17 * MIB + 64 * 1024])
}

/// Bytes that do not compress, the same each time.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Noise with much between: compresses well, and is nowhere alike.
fn thin_noise(len: usize) -> Vec<u8> {
    let noise = noise(5, len / 32 + 1);
    (0..len)
        .map(|at| if at % 32 == 0 { noise[at / 32] } else { b'.' })
        .collect()
}

/// One thing on disk: everything that a restore has to bring back.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    size: u64,
    names: u64,
    device: u64,
    is_sparse: bool,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The bytes of a file, or what a symbolic link says.
    pub contents: Vec<u8>,
}

/// Everything below a place, and the place itself, by path.
///
/// # Errors
/// When something cannot be read.
pub fn seen(top: &Path) -> Result<BTreeMap<PathBuf, Seen>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let place = if path.as_os_str().is_empty() {
            top.to_owned()
        } else {
            top.join(&path)
        };
        let what = || format!("cannot read {}", place.display());
        let is_directory = place.symlink_metadata().with_context(what)?.is_dir();
        if is_directory {
            for entry in fs::read_dir(&place).with_context(what)? {
                waiting.push(path.join(entry?.file_name()));
            }
        }
        found.insert(path, look(&place).with_context(what)?);
    }
    Ok(found)
}

fn look(place: &Path) -> Result<Seen> {
    let meta = place.symlink_metadata()?;
    let kind = meta.file_type();
    let contents = if kind.is_file() {
        fs::read(place)?
    } else if kind.is_symlink() {
        fs::read_link(place)?.as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    // What a directory has of these is the file system's own business.
    let unless_directory = |number| if kind.is_dir() { 0 } else { number };
    Ok(Seen {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        size: unless_directory(meta.size()),
        names: unless_directory(meta.nlink()),
        device: meta.rdev(),
        is_sparse: kind.is_file() && meta.blocks() * 512 < meta.size(),
        attributes: attributes(place)?,
        contents,
    })
}

fn attributes(place: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; 65_536];
    let len = rustix::fs::llistxattr(place, &mut list[..])?;
    let names = list[..len].split(|byte| *byte == 0);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65_536];
            let len = rustix::fs::lgetxattr(place, name, &mut value[..])?;
            value.truncate(len);
            Ok((name.to_vec(), value))
        })
        .collect()
}

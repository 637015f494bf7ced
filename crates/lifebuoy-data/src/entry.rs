//! One thing in a tree: a file, a directory, a link. `docs/format-data.md`.

use lifebuoy_repo::ChunkId;

use crate::path::TreePath;

/// The first bytes of a keyed hash over a small file.
pub type ContentHash = [u8; 16];
/// What tells that a file did not change; zeros tell nothing.
pub type Stamp = [u8; 8];

/// One thing in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// Whose it is, and since when.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// What a file has besides its contents.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// The permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was last modified.
    pub modified: Time,
    /// As it was when it was read.
    pub stamp: Stamp,
    /// Extended attributes, ACLs among them.
    pub attributes: Attributes,
}

/// A time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Time {
    /// Seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that, below 10⁹.
    pub nanoseconds: u32,
}

/// Names and values of extended attributes, in the order of the names.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Attributes {
    /// There are none.
    #[default]
    None,
    /// They are few and short.
    Inline(Pairs),
    /// A chunk holds them: there are many, or long ones.
    Chunk(ChunkId),
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file of so many bytes.
    File {
        /// Its size in bytes.
        size: u64,
        /// Where its bytes are.
        content: Content,
    },
    /// A symbolic link, and what it says.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// The driver.
        major: u32,
        /// The device.
        minor: u32,
    },
    /// A block device, as a node in a directory: its data is not in the tree.
    BlockDevice {
        /// The driver.
        major: u32,
        /// The device.
        minor: u32,
    },
    /// Another name of an earlier entry, which is not a directory.
    HardLink(TreePath),
}

/// Where the bytes of a file are. What nothing names is a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of it is a hole.
    Nothing,
    /// A part of a chunk that it shares with other small files.
    Shared {
        /// The segment.
        chunk: ChunkId,
        /// Where in it the file begins.
        offset: u32,
        /// Of the file.
        hash: ContentHash,
    },
    /// Chunks of its own.
    Extents(Vec<Extent>),
    /// A map of chunks of its own.
    Map(ChunkId),
}

/// A chunk in a file or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Zeros between the last extent, or the beginning, and this one.
    pub gap: u64,
    /// The bytes of the chunk; of what is below it, in a map of maps.
    pub length: u64,
    /// The chunk.
    pub chunk: ChunkId,
}

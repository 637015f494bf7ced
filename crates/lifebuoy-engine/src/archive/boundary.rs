//! Where segments and nodes end: at keys that a keyed hash picks, so that no
//! edit of an object's content moves a boundary.

use super::{ObjectHash, ObjectKey, TypeId};

/// Of the bits of a key's hash, this many decide about each level: a segment
/// has 2⁵ objects on average, a leaf 2⁵ segments, a node 2⁵ children.
const BITS_PER_LEVEL: u32 = 5;

/// What a key means for the cutting of one type's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank(u32);

impl Rank {
    /// Whether a new segment begins at the key.
    pub(crate) fn cuts_segment(self) -> bool {
        self.0 >= BITS_PER_LEVEL
    }

    /// Whether a new node begins at the key; leaves are level 0.
    pub(crate) fn cuts_node(self, level: u32) -> bool {
        self.0 >= (level + 2) * BITS_PER_LEVEL
    }
}

/// The keys of the hashes. Derived from a secret of the repository, so that the
/// lengths of segments tell nothing about names.
#[derive(Clone)]
pub struct Boundary {
    cut: [u8; 32],
    object: [u8; 32],
}

impl Boundary {
    /// Derives the keys from 32 secret bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let derive = |purpose: &[u8]| *blake3::keyed_hash(secret, purpose).as_bytes();
        Self {
            cut: derive(b"lifebuoy archive: cut"),
            object: derive(b"lifebuoy archive: object"),
        }
    }

    /// The rank of a key: how many low bits of its hash are zero.
    pub(crate) fn rank(&self, id: &TypeId, key: &ObjectKey) -> Rank {
        let mut hasher = blake3::Hasher::new_keyed(&self.cut);
        for part in [&id.group, &id.resource, &key.namespace, &key.name] {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        let mut low = [0; 8];
        low.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Rank(u64::from_le_bytes(low).trailing_zeros())
    }

    /// The hash of an object's stable column.
    pub(crate) fn hash(&self, stable: &[u8]) -> ObjectHash {
        let mut hash = [0; ObjectHash::BYTES];
        let full = blake3::keyed_hash(&self.object, stable);
        hash.copy_from_slice(&full.as_bytes()[..ObjectHash::BYTES]);
        ObjectHash(hash)
    }
}

impl std::fmt::Debug for Boundary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Boundary(…)")
    }
}

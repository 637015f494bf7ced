//! The 16 bytes that every object begins with, the same in all versions.

use crate::{
    names::ObjectType,
    wire::{Damage, Fields},
};

/// The newest format this program reads and writes.
pub const FORMAT_VERSION: u16 = 2;
/// The format that defined the layout of most objects, which is what their
/// header says: later formats add layouts and leave these as they are.
pub(crate) const LAYOUT: u16 = 1;
/// The layout of what format 2 added: garbage collection, and the packs that a
/// session relies on.
pub(crate) const LAYOUT_2: u16 = 2;

pub(crate) const HEADER_BYTES: usize = 16;
const MAGIC: &[u8; 8] = b"LIFEBUOY";

pub(crate) fn header(kind: ObjectType) -> [u8; HEADER_BYTES] {
    header_of_version(kind, LAYOUT)
}

pub(crate) fn header_of_version(kind: ObjectType, version: u16) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..10].copy_from_slice(&version.to_le_bytes());
    out[10] = kind.byte();
    out
}

/// Reads a header and returns its version.
pub(crate) fn read_header(fields: &mut Fields<'_>, kind: ObjectType) -> Result<u16, Damage> {
    if &fields.array::<8>()? != MAGIC {
        return Err(Damage::Header);
    }
    let version = fields.u16()?;
    if fields.u8()? != kind.byte() {
        return Err(Damage::Type);
    }
    fields.zeros(5, "header")?;
    Ok(version)
}

/// Reads a header of the first layout.
pub(crate) fn expect_header(fields: &mut Fields<'_>, kind: ObjectType) -> Result<(), Damage> {
    if read_header(fields, kind)? == LAYOUT {
        Ok(())
    } else {
        Err(Damage::Field("version"))
    }
}

//! What must fit before anything is deleted. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::{Error, Result},
    names::PackName,
};

/// The packs of the bucket and their sizes.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) packs: BTreeMap<PackName, u64>,
}

impl Stored {
    pub(crate) fn total(&self) -> u64 {
        self.packs.values().sum()
    }

    pub(crate) fn bytes(&self, of: &BTreeSet<PackName>) -> u64 {
        of.iter().filter_map(|pack| self.packs.get(pack)).sum()
    }
}

/// Refuses when more than a share of all that is stored would go: a walk that
/// misses what is there looks like that.
pub(crate) fn check_share(goes: u64, total: u64, percent_max: u8) -> Result<()> {
    let limit = u128::from(total) * u128::from(percent_max) / 100;
    if u128::from(goes) <= limit {
        return Ok(());
    }
    Err(Error::Refused {
        reason: format!(
            "{goes} of {total} stored bytes would go, more than the {percent_max} % that one \
             collection may delete"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_counted_in_bytes() {
        assert!(check_share(50, 100, 50).is_ok());
        assert!(check_share(51, 100, 50).is_err());
        assert!(check_share(0, 0, 0).is_ok());
        assert!(check_share(1, 100, 0).is_err());
        assert!(check_share(u64::MAX, u64::MAX, 100).is_ok());
    }
}

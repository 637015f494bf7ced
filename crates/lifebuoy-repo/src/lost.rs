//! Packs that the index lists and that cannot be built on: lost, cut off, or set
//! aside by a repair. A writer stores what was in them again, so that the next
//! backup heals what it still sees. Never takes a pack for lost that is there.

use std::collections::{BTreeSet, HashMap};

use futures::TryStreamExt;

use crate::{
    error::Result,
    names::{Name, PACKS, PackName},
    repository::Shared,
};

/// Up to so many packs a session lists all of them as it begins, which costs a
/// request for each thousand. In larger repositories it relies on `repair` to
/// set lost packs aside.
pub(crate) const PACKS_LISTED_MAX: usize = 5_000;

impl Shared {
    /// Packs that a beginning session must not build on.
    pub(crate) async fn not_to_build_on(&self) -> Result<BTreeSet<PackName>> {
        if !self.notices_lost_packs() {
            return self.set_aside().await;
        }
        let expected = self.indexed_packs();
        let (mut avoid, lost) =
            tokio::try_join!(self.set_aside(), self.without_their_object(expected))?;
        avoid.extend(lost.into_keys());
        Ok(avoid)
    }

    /// Whether writers see on their own which packs are lost.
    pub(crate) fn notices_lost_packs(&self) -> bool {
        self.index().packs().len() <= PACKS_LISTED_MAX
    }

    /// The packs of the index and their lengths.
    pub(crate) fn indexed_packs(&self) -> HashMap<PackName, u32> {
        let index = self.index();
        let packs = index.packs().iter();
        packs.map(|pack| (pack.name, pack.length)).collect()
    }

    /// Those of these packs that are not in the bucket, or there with another
    /// length than the index says. They must have been listed by the index before.
    async fn without_their_object(
        &self,
        mut expected: HashMap<PackName, u32>,
    ) -> Result<HashMap<PackName, u32>> {
        if expected.is_empty() {
            return Ok(expected);
        }
        let mut listing = std::pin::pin!(self.objects.each_sized(PACKS));
        while let Some((key, size)) = listing.try_next().await? {
            if let Some(Name::Pack(pack)) = Name::parse(&key)
                && expected
                    .get(&pack)
                    .is_some_and(|length| u64::from(*length) == size)
            {
                expected.remove(&pack);
            }
        }
        Ok(expected)
    }
}

//! Everything outside packs: each record is opened and decoded.

use futures::{StreamExt, TryStreamExt, stream};

use super::Check;
use crate::{
    error::{Error, Result},
    names::{Mended, Name},
    record::RECORD_BYTES_MAX,
    refresh::READS,
    repository::{Shared, blocking},
};

/// Records up to this are read [`READS`] at a time, longer ones [`LARGE_READS`]:
/// together at most 64 MiB.
const SMALL_BYTES: u64 = 128 * 1024;
const LARGE_READS: usize = 3;

impl Check<'_> {
    /// Lists the repository, and opens every record.
    pub(super) async fn records(&mut self) -> Result<()> {
        let mut small = Vec::new();
        let mut large = Vec::new();
        {
            let mut listing = std::pin::pin!(self.shared.objects.each_sized(""));
            while let Some((key, size)) = listing.try_next().await? {
                self.report.objects += 1;
                match Name::parse(&key) {
                    Some(Name::Pack(pack)) => {
                        self.packs.insert(pack, size);
                    }
                    Some(Name::Mend(mended)) => {
                        self.mends.insert(mended);
                        small.push(key);
                    }
                    Some(_) if size <= SMALL_BYTES => small.push(key),
                    Some(_) => large.push(key),
                    None => {}
                }
            }
        }
        self.report.packs = self.packs.len() as u64;
        let total = (small.len() + large.len()) as u64;
        let mut done = 0;
        for (keys, at_once) in [(small, READS), (large, LARGE_READS)] {
            let shared = self.shared;
            let mut reads = stream::iter(keys)
                .map(|key| async move { (open_twice(shared, &key).await, key) })
                .buffer_unordered(at_once);
            while let Some((opened, key)) = reads.next().await {
                done += 1;
                self.options.tell("opening records", done, total);
                if let Err(error) = opened {
                    self.damaged.insert(key, error);
                }
            }
        }
        // Nothing may stand in for another object that is damaged itself.
        let damaged = &self.damaged;
        self.mends
            .retain(|mended| !damaged.contains_key(&Name::Mend(*mended).key()));
        Ok(())
    }
}

/// Opens a record, again if it cannot be opened: what was wrong may have been the
/// way. One that is gone by now was tidied up, or it is missed where it is needed.
async fn open_twice(shared: &std::sync::Arc<Shared>, key: &str) -> Result<(), Error> {
    let mut opened = Ok(());
    for _ in 0..2 {
        let bytes = match shared.objects.get_bounded(key, RECORD_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(Error::Missing { .. }) => return Ok(()),
            Err(error) => {
                opened = Err(error);
                continue;
            }
        };
        let (shared, of) = (std::sync::Arc::clone(shared), key.to_owned());
        match blocking(move || shared.check_bytes(&of, &bytes)).await? {
            Ok(_) => return Ok(()),
            Err(error) => opened = Err(error),
        }
    }
    opened
}

/// What it means that this object is damaged or missing, and what to do.
pub(super) fn meaning(key: &str) -> &'static str {
    match Name::parse(key) {
        Some(Name::Format(_)) => {
            "the repository may not open again: restore it from a replica or an older version"
        }
        Some(Name::Slot(_)) => "the passphrase of this slot opens the repository no more",
        Some(Name::End(..)) => {
            "whether this session committed a snapshot, and which, is not known; restore the \
             object from a replica or an older version"
        }
        Some(Name::Index(_) | Name::RunPart(_)) => {
            "what its packs hold cannot be found until `lifebuoy repo repair` has read it from \
             the packs"
        }
        Some(Name::Run(_)) => {
            "nothing can be found without the newest run; restore it from a replica or an older \
             version"
        }
        Some(Name::Plan(_) | Name::Final(_)) => {
            "no backup and no collection can begin; restore it from a replica or an older version"
        }
        Some(Name::Mend(Mended::Pack(_) | Mended::Index(_) | Mended::Part(_))) => {
            "what it repaired is as it was before"
        }
        Some(Name::Pack(_)) => "chunks in it cannot be read",
        Some(
            Name::Open(..)
            | Name::Forget(_)
            | Name::Beat(..)
            | Name::Pin(..)
            | Name::Keeper(_)
            | Name::Probe(_),
        )
        | None => "no snapshot depends on what it says",
    }
}

//! Who keeps a repository: one cluster at a time, chosen through the bucket by
//! create-if-absent of numbered terms. Only a convenience: collections are safe
//! with any number of keepers, also with those that do not know that their term is
//! over. Reads no clock; how long is waited is the caller's business.

use rand::Rng;

use crate::{
    error::Result,
    generation::Claim,
    ids::ClusterKey,
    names::{KEEPER, Name, ObjectType},
    record::{RECORD_BYTES_MAX, decode_at},
    repository::{Repository, Shared},
    store::Created,
};

/// A term, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The number of the term. Each is held once, by one cluster.
    pub number: u64,
    /// The cluster that holds it.
    pub cluster: ClusterKey,
}

impl Repository {
    /// The newest term; `None` if there never was one.
    ///
    /// # Errors
    /// One of the store, or [`crate::Error::Corrupt`].
    pub async fn keeper(&self) -> Result<Option<Term>> {
        self.shared.newest_term().await
    }

    /// Claims the term after `last`, and returns the newest one, whoever holds it.
    /// The holder of the last term renews it so, and one who has not seen it move
    /// for long takes over so: of two, one succeeds.
    ///
    /// # Errors
    /// [`crate::Error::ReadOnly`], [`crate::Error::UpgradeNeeded`], or one of the
    /// store, such as a denial to a credential that may not keep.
    pub async fn claim(&self, last: Option<Term>, cluster: ClusterKey) -> Result<Term> {
        let shared = &self.shared;
        shared.check_writable()?;
        shared.check_format_2("keeping a repository")?;
        let number = last.map_or(1, |term| term.number + 1);
        let mut nonce = [0; 16];
        shared.randomness.rng().fill_bytes(&mut nonce);
        let claim = Claim { cluster, nonce };
        let key = Name::Keeper(number).key();
        let bytes = shared.seal(&key, ObjectType::Keeper, &claim.encode())?;
        match shared.objects.create(&key, bytes).await? {
            Created::Ours => {
                shared.remove_old_terms(number).await?;
                Ok(Term { number, cluster })
            }
            Created::Theirs(_) => match shared.newest_term().await? {
                Some(term) => Ok(term),
                None => Ok(Term { number, cluster }),
            },
        }
    }
}

impl Shared {
    async fn terms(&self) -> Result<Vec<u64>> {
        let listed = self.objects.list(KEEPER).await?;
        let numbers = listed.iter().filter_map(|key| match Name::parse(key) {
            Some(Name::Keeper(n)) => Some(n),
            _ => None,
        });
        Ok(numbers.collect())
    }

    async fn newest_term(&self) -> Result<Option<Term>> {
        let Some(number) = self.terms().await?.into_iter().max() else {
            return Ok(None);
        };
        let key = Name::Keeper(number).key();
        let bytes = self.objects.get_bounded(&key, RECORD_BYTES_MAX).await?;
        let body = self.records().open(&key, ObjectType::Keeper, &bytes)?;
        let claim = decode_at(&key, &body, Claim::decode)?;
        Ok(Some(Term {
            number,
            cluster: claim.cluster,
        }))
    }

    /// Terms before the last but one say nothing any more. Their numbers are not
    /// claimed again, as the newest is always there.
    async fn remove_old_terms(&self, newest: u64) -> Result<()> {
        let old = self.terms().await?.into_iter().filter(|n| n + 1 < newest);
        let keys: Vec<String> = old.map(|n| Name::Keeper(n).key()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        self.objects.delete(keys).await
    }
}

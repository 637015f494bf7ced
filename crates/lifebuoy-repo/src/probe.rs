//! What a store and its credentials can do, found out by trying. Never deletes
//! what it wrote: a writer's credentials cannot.

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use object_store::ObjectStore;
use rand::Rng;
use std::sync::Arc;

use crate::{
    error::{Error, Result},
    names::{Name, PROBE},
    store::Objects,
};

/// Simultaneous creates of one key.
const RACERS: usize = 16;

/// What the store and the credentials can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreAbilities {
    /// Objects can be created.
    pub can_write: bool,
    /// Objects can be listed.
    pub can_list: bool,
    /// Of 16 simultaneous creates of one key exactly one succeeds, and its bytes
    /// are what is read. `None` if it could not be tried.
    pub atomic_create: Option<bool>,
}

/// Tries a store that holds no repository yet. See [`crate::Repository::probe`].
///
/// # Errors
/// Those of the store, except a denied create or list, which is an answer.
pub async fn probe_store(store: Arc<dyn ObjectStore>) -> Result<StoreAbilities> {
    let drawn = Probe::draw(&mut rand::rng());
    probe(&Objects::new(store), drawn).await
}

/// One probe: the key to race for and what each racer writes.
pub(crate) struct Probe {
    key: String,
    contents: Vec<Bytes>,
}

impl Probe {
    pub(crate) fn draw(rng: &mut impl Rng) -> Self {
        let mut random = [0; 16];
        rng.fill_bytes(&mut random);
        let contents = (0..RACERS).map(|_| {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            Bytes::copy_from_slice(&bytes)
        });
        Self {
            contents: contents.collect(),
            key: Name::Probe(random).key(),
        }
    }
}

pub(crate) async fn probe(objects: &Objects, probe: Probe) -> Result<StoreAbilities> {
    let Probe { key, contents } = probe;
    let atomic_create = match race(objects, &key, &contents).await {
        Ok(atomic) => Some(atomic),
        Err(Error::Denied { .. }) => None,
        Err(error) => return Err(error),
    };
    let listed = match objects.list(PROBE).await {
        Ok(keys) => Some(keys),
        Err(Error::Denied { .. }) => None,
        Err(error) => return Err(error),
    };
    let can_write = atomic_create.is_some();
    // A store that does not list what it acknowledged cannot hold a repository.
    let shown = listed
        .as_ref()
        .is_none_or(|keys| !can_write || keys.contains(&key));
    Ok(StoreAbilities {
        can_write,
        can_list: listed.is_some(),
        atomic_create: atomic_create.map(|atomic| atomic && shown),
    })
}

async fn race(objects: &Objects, key: &str, contents: &[Bytes]) -> Result<bool> {
    let mut racers: FuturesUnordered<_> = contents
        .iter()
        .map(|bytes| async move { (objects.try_create(key, bytes.clone()).await, bytes) })
        .collect();
    let mut winners = Vec::new();
    let mut failure = None;
    while let Some((outcome, bytes)) = racers.next().await {
        match outcome {
            Ok(true) => winners.push(bytes),
            Ok(false) => {}
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    match winners.as_slice() {
        [winner] => Ok(objects.get(key).await? == **winner),
        // No winner: all were told that it exists, though it did not before.
        _ => Ok(false),
    }
}

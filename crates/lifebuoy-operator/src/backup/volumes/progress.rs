//! How far the data of volumes is, of all movers together.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lifebuoy_api::BackupProgress;
use lifebuoy_engine::{archive::ObjectKey, volumes::MoverProgress};

use super::moving::Moving;

/// How far the volumes of a Backup are.
#[derive(Debug, Default)]
pub(crate) struct VolumeProgress {
    volumes: Mutex<BTreeMap<ObjectKey, State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    mover: MoverProgress,
    ended: bool,
}

impl VolumeProgress {
    fn volumes(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, State>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect(&self, moving: &[Moving]) {
        let volumes = moving
            .iter()
            .map(|of| (of.claim().clone(), State::default()));
        *self.volumes() = volumes.collect();
    }

    pub(super) fn is_at(&self, claim: &ObjectKey, progress: MoverProgress) {
        if let Some(state) = self.volumes().get_mut(claim) {
            state.mover = progress;
        }
    }

    pub(super) fn end(&self, claim: &ObjectKey) {
        if let Some(state) = self.volumes().get_mut(claim) {
            state.ended = true;
        }
    }

    /// Adds it to what a status says.
    pub(crate) fn add_to(&self, progress: &mut BackupProgress) {
        let volumes = self.volumes();
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let sum = |of: fn(&MoverProgress) -> u64| {
            count(volumes.values().map(|state| of(&state.mover)).sum())
        };
        progress.volumes_total = count(volumes.len() as u64);
        progress.volumes = count(volumes.values().filter(|state| state.ended).count() as u64);
        progress.volume_bytes = sum(|mover| mover.bytes);
        progress.volume_bytes_total = sum(|mover| mover.bytes_total);
        progress.volume_files = sum(|mover| mover.entries);
        progress.volume_bytes_stored = sum(|mover| mover.bytes_stored);
    }
}

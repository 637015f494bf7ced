//! The data of the volumes of a Backup, and of emptyDirs: each is looked at, decided about, and saved by
//! a mover of its own.
//!
//! ```text
//! observe → decide → quiesce · snapshot · resume → move | keep → clean up
//! ```
//!
//! Whatever is made on the way carries the uid of the Backup; an attempt that is
//! killed is cleaned up by the next, or by the sweep.

mod before;
mod cluster;
mod hooks;
mod keep;
mod known;
mod moving;
mod observe;
mod progress;
mod snapshot;

use futures::{StreamExt, stream};
use kube::ResourceExt;
use lifebuoy_api::{PointCluster, Problem, Reason};
use lifebuoy_engine::{
    capture::{VolumesFound, VolumesSaved},
    volumes::{Decision, Policies, empty_dir_of},
};
use lifebuoy_repo::Repository;
use tokio_util::sync::CancellationToken;

use super::capture::Attempt;
use crate::{
    error::sentence,
    mover,
    snapshots::{self, Snapshots},
};

pub(super) use known::Known;
pub(crate) use progress::VolumeProgress;

use cluster::Cluster;
use hooks::Hooks;
use moving::Moving;
use observe::Seen;

/// Everything that saving volumes needs of its Backup.
pub(super) struct Saving<'a> {
    attempt: &'a Attempt,
    repo: &'a Repository,
    cluster: &'a PointCluster,
    known: &'a Known,
    policies: Policies,
    hooks: Hooks,
    progress: &'a VolumeProgress,
    cancel: &'a CancellationToken,
}

impl<'a> Saving<'a> {
    /// Parses what the Backup says about volumes.
    ///
    /// # Errors
    /// [`lifebuoy_engine::Error::InvalidField`].
    pub(super) fn new(
        attempt: &'a Attempt,
        repo: &'a Repository,
        cluster: &'a PointCluster,
        known: &'a Known,
        progress: &'a VolumeProgress,
        cancel: &'a CancellationToken,
    ) -> Result<Self, lifebuoy_engine::Error> {
        let spec = &attempt.backup.spec;
        Ok(Self {
            attempt,
            repo,
            cluster,
            known,
            policies: Policies::parse(&spec.volume_policies, "spec.volumePolicies")?,
            hooks: Hooks::parse(&spec.hooks, "spec.hooks")?,
            progress,
            cancel,
        })
    }

    /// Whether emptyDirs are of interest.
    pub(super) fn empty_dirs(&self) -> bool {
        self.policies.save_empty_dirs()
    }

    /// Saves the data of the volumes, as far as that can be done. What cannot is said.
    pub(super) async fn save(&self, found: &VolumesFound) -> VolumesSaved {
        if *found == VolumesFound::default() {
            return VolumesSaved::default();
        }
        self.clean_up().await;
        let saved = self.save_each(found).await;
        self.clean_up().await;
        saved
    }

    async fn save_each(&self, found: &VolumesFound) -> VolumesSaved {
        let mut result = VolumesSaved::default();
        let context = &self.attempt.context;
        let cluster = Cluster::new(&context.client);
        let host_paths = &context.config.movers.host_paths;
        let seen = match observe::observe(&cluster, found, host_paths).await {
            Ok(seen) => seen,
            Err(error) => return not_seen(found, &sentence(&error, None)),
        };
        let moving = self.decide(&seen, &mut result);
        self.progress.expect(&moving);
        let before = moving.iter().map(Moving::claim);
        let before = before::of(self.repo, &self.known.points, before).await;
        let cut = snapshot::cut(self, &cluster, &seen, moving, &mut result).await;
        let mut moved = stream::iter(cut)
            .map(|volume| async {
                let claim = volume.claim().clone();
                let before = before.get(&claim);
                let moved = moving::save(self, &cluster, volume, before).await;
                (claim, moved)
            })
            .buffer_unordered(context.config.movers.volumes_at_a_time());
        while let Some((claim, moved)) = moved.next().await {
            self.progress.end(&claim);
            match moved {
                Ok((record, problems)) => {
                    result.problems.extend(problems);
                    result.saved.push(record);
                }
                Err(why) => {
                    result.failed.insert(claim, why);
                }
            }
        }
        drop(moved);
        result.saved.sort_by(|a, b| a.claim.cmp(&b.claim));
        result
    }

    /// The volumes that something is to be done about; of the others it is said why not.
    fn decide(&self, seen: &Seen, result: &mut VolumesSaved) -> Vec<Moving> {
        let mut moving = Vec::new();
        for (claim, why) in &seen.unusable {
            result.failed.insert(claim.clone(), why.clone());
        }
        for volume in &seen.volumes {
            let claim = volume.volume.claim.clone();
            match self.policies.decide(&volume.volume, &seen.classes) {
                // Nobody takes it for data that is missing.
                Decision::Skip { .. } if empty_dir_of(&claim).is_some() => {}
                Decision::Skip { reason } => {
                    result.skipped.insert(claim, reason);
                }
                Decision::Impossible { reason } => {
                    result.failed.insert(claim, reason);
                }
                decision => moving.push(Moving::new(self.attempt, volume.clone(), decision)),
            }
        }
        moving
    }

    /// The uid of the Backup, by which everything is found that is made for it.
    fn uid(&self) -> String {
        self.attempt.backup.uid().unwrap_or_default()
    }

    /// Removes whatever this attempt or one before it has made for a while.
    async fn clean_up(&self) {
        let (context, uid) = (&self.attempt.context, self.uid());
        if let Err(error) = mover::clean_up(context, &uid).await {
            tracing::warn!(%error, "cannot clean up after movers; the sweep will");
        }
        if let Err(error) = snapshots::clean_up(&Snapshots::new(&context.client), &uid).await {
            tracing::warn!(%error, "cannot clean up snapshots; the sweep will");
        }
    }
}

/// What is said of volumes that could not be looked at.
fn not_seen(found: &VolumesFound, why: &str) -> VolumesSaved {
    let why = format!("it cannot be looked at: {why}");
    let failed = found
        .claims
        .iter()
        .map(|claim| (claim.clone(), why.clone()));
    let pods = (!found.pods.is_empty()).then(|| {
        let message = format!("their emptyDirs were not saved: {why}");
        Problem::error(Reason::VolumeDataNotSaved, "pods", &message)
    });
    VolumesSaved {
        failed: failed.collect(),
        problems: pods.into_iter().collect(),
        ..VolumesSaved::default()
    }
}

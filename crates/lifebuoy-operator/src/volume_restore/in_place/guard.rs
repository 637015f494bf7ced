//! What the task sees to while a volume is overwritten: that it can take the data, that its
//! claim is marked before the first byte, and that nobody else has it meanwhile.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lifebuoy_api::Reason;
use lifebuoy_engine::volumes::{MoverReport, Size, VolumeMode, VolumeRecord};
use tokio_util::sync::CancellationToken;

use super::{
    super::fill::{Failure, Overwriting, Work},
    execute::{set_mark, take_mark},
    observe::pod_that_mounts,
};
use crate::{error::sentence, mover::MoverError};

/// How often it is looked whether somebody else has the volume.
const INTERVAL: Duration = Duration::from_secs(5);

/// Marks the claim, if its volume can take the data.
pub(in super::super) async fn ready(
    work: &Work,
    overwriting: &Overwriting,
    record: &VolumeRecord,
) -> Result<(), Failure> {
    if overwriting.is_marked {
        return Ok(());
    }
    if let Some(message) = unfit(work.block, overwriting.capacity, record) {
        return Err(Failure {
            reason: Reason::VolumeDoesNotFit,
            message,
            transient: false,
        });
    }
    set_mark(&work.context.client, &work.request, &work.claim_uid)
        .await
        .map_err(|error| Failure {
            reason: Reason::VolumeNotFilled,
            message: sentence(&error, None),
            transient: true,
        })
}

/// Takes the mark back of a volume that no mover has touched since it was set. If that fails
/// it stays: then the volume counts as half written.
pub(in super::super) async fn take_back(work: &Work, overwriting: &Overwriting) {
    if overwriting.is_marked {
        return;
    }
    let client = &work.context.client;
    if let Err(error) = take_mark(client, &work.request, &work.claim_uid).await {
        tracing::warn!(%error, "the mark of a claim stays whose volume was not touched");
    }
}

/// As the plan has seen to already: but that was a while ago.
fn unfit(block: bool, capacity: Option<u64>, record: &VolumeRecord) -> Option<String> {
    if block != (record.volume_mode == VolumeMode::Block) {
        let saved = record.volume_mode.as_str();
        return Some(format!(
            "`volumeMode: {saved}` was saved, and the claim has another"
        ));
    }
    let needs = record.needs_bytes();
    let has = capacity.filter(|has| *has < needs)?;
    let (has, needs) = (Size(has), Size(needs));
    Some(format!("the volume has {has}, and {needs} were saved"))
}

/// Runs what writes, and stops it when a pod has the volume as well: what is on it then is
/// neither's.
pub(in super::super) async fn guarded(
    work: &Work,
    cancel: &CancellationToken,
    write: impl AsyncFnOnce(&CancellationToken) -> Result<MoverReport, MoverError>,
) -> Result<Result<MoverReport, MoverError>, Failure> {
    let stop = cancel.child_token();
    let intruder = Mutex::new(None);
    let watch = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Some(pod) = look_until_seen(work).await {
                *intruder.lock().unwrap_or_else(PoisonError::into_inner) = Some(pod);
                stop.cancel();
                return std::future::pending::<()>().await;
            }
        }
    };
    let mut written = tokio::select! {
        written = write(&stop) => written,
        () = watch => Err(MoverError::Cancelled),
    };
    let mut seen = intruder
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if seen.is_none() && written.is_ok() {
        // Since it was looked last. It is not said to be whole before that is known.
        let looked = cancel.run_until_cancelled(look_until_seen(work)).await;
        match looked {
            Some(pod) => seen = pod,
            None => written = Err(MoverError::Cancelled),
        }
    }
    match seen {
        None => Ok(written),
        Some(pod) => Err(Failure {
            reason: Reason::VolumeInUse,
            message: format!("the pod `{pod}` has mounted the volume while it was overwritten"),
            transient: false,
        }),
    }
}

/// A pod that has the volume as well, as soon as the API server says whether there is one.
async fn look_until_seen(work: &Work) -> Option<String> {
    loop {
        match pod_that_mounts(&work.context.client, &work.request).await {
            Ok(pod) => return pod,
            Err(error) => {
                tracing::warn!(%error, "cannot see whether a volume is mounted that is overwritten");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

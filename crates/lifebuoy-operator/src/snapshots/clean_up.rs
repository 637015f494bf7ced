//! Removes the snapshots that were made for a request, in whatever namespace.

use std::{collections::BTreeSet, time::Duration};

use kube::{ResourceExt, api::DynamicObject};
use lifebuoy_api::FOR_LABEL;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::objects::{Kind, Snapshots, is_going};
use crate::Error;

const POLL: Duration = Duration::from_millis(250);
/// How long their deletion is waited for.
const GONE_MAX: Duration = Duration::from_secs(120);

/// Deletes every snapshot that was made for a request, and waits until it is gone from
/// the storage system. Safe to repeat.
///
/// # Errors
/// When the API server does not answer, or a snapshot does not go.
pub(crate) async fn clean_up(snapshots: &Snapshots, uid: &str) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let left = remove(snapshots, uid).await?;
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > GONE_MAX {
            return Err(Error::Internal(format!(
                "snapshots are still there after {} s: {}",
                GONE_MAX.as_secs(),
                left.join(", ")
            )));
        }
        sleep(POLL).await;
    }
}

/// Deletes every snapshot that was made for a request; gives the names of those that were
/// there. Waits for none: where a driver is not at work, they stay.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn remove(snapshots: &Snapshots, uid: &str) -> Result<Vec<String>, Error> {
    let selector = format!("{FOR_LABEL}={uid}");
    let made = snapshots.list(Kind::Snapshot, &selector).await?;
    let contents = snapshots.list(Kind::Content, &selector).await?;
    for snapshot in made.iter().filter(|of| !is_going(of)) {
        delete(snapshots, snapshot).await?;
    }
    for content in contents.iter().filter(|of| !is_going(of)) {
        let name = content.name_any();
        snapshots.delete(Kind::Content, None, &name).await?;
    }
    let found = made.iter().chain(&contents);
    Ok(found.map(ResourceExt::name_any).collect())
}

/// Deletes a snapshot with what is in the storage system, whatever its class says
/// about what is left behind; unless that was given away.
///
/// # Errors
/// When the API server does not answer, or the content has changed meanwhile.
pub(crate) async fn delete(snapshots: &Snapshots, snapshot: &DynamicObject) -> Result<(), Error> {
    let is_copy = snapshot.data["spec"]["source"]["volumeSnapshotContentName"].is_string();
    if !is_copy {
        let content = snapshot.data["status"]["boundVolumeSnapshotContentName"].as_str();
        if let Some(content) = content
            && let Some(found) = snapshots.find(Kind::Content, None, content).await?
            && found.data["spec"]["deletionPolicy"] != "Delete"
            && !is_given_away(&found)
        {
            // Not over one that was given away since it was read.
            let patch = json!({
                "metadata": {"resourceVersion": found.resource_version()},
                "spec": {"deletionPolicy": "Delete"},
            });
            snapshots.patch_content(content, &patch).await?;
        }
    }
    let namespace = snapshot.namespace();
    snapshots
        .delete(Kind::Snapshot, namespace.as_deref(), &snapshot.name_any())
        .await
}

/// The controllers of snapshots label no content, so this was done by [`give_away`].
fn is_given_away(content: &DynamicObject) -> bool {
    content.labels().contains_key(FOR_LABEL)
}

/// From now on the content of a snapshot leaves what is in the storage system behind, and
/// goes with the request. Whether it was still the owner to give that away.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn give_away(
    snapshots: &Snapshots,
    content: &str,
    uid: &str,
) -> Result<bool, Error> {
    let patch = json!({
        "metadata": {"labels": {FOR_LABEL: uid}},
        "spec": {"deletionPolicy": "Retain"},
    });
    let given = snapshots.patch_content(content, &patch).await?;
    Ok(given.is_some_and(|content| !is_going(&content)))
}

/// The requests for which there are snapshots.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn owners(snapshots: &Snapshots) -> Result<BTreeSet<String>, Error> {
    let mut owners = BTreeSet::new();
    for kind in [Kind::Snapshot, Kind::Content] {
        for object in snapshots.list(kind, FOR_LABEL).await? {
            owners.extend(object.labels().get(FOR_LABEL).cloned());
        }
    }
    Ok(owners)
}

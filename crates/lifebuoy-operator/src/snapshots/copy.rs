//! A snapshot that the storage system has, made usable where a volume is to be made of it:
//! by its handle, which needs no snapshot of the same cluster.

use std::collections::BTreeMap;

use lifebuoy_engine::volumes::VolumeMode;
use serde_json::{Value, json};

use super::objects::{Kind, Snapshots};
use crate::Error;

/// What the controllers of snapshots note about one that is being made or deleted.
const NOTES: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-";

/// A snapshot in the storage system.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) driver: String,
    pub(crate) handle: String,
    /// The VolumeSnapshotClass in this cluster.
    pub(crate) class: Option<String>,
    /// Of the volume that it was cut of.
    pub(crate) mode: VolumeMode,
    /// Those of the content that it is known by: they name the Secrets of the driver.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Stored {
    /// A content for it, which is not its owner in the storage system, for the VolumeSnapshot
    /// of the same name.
    pub(super) fn content(
        &self,
        name: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Value {
        let annotations = self.annotations.iter();
        let annotations: BTreeMap<_, _> = annotations
            .filter(|(key, _)| !key.starts_with(NOTES))
            .collect();
        let mut content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotContent",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {
                "deletionPolicy": "Retain",
                "driver": self.driver,
                "source": {"snapshotHandle": self.handle},
                "sourceVolumeMode": self.mode.as_str(),
                "volumeSnapshotRef": {"name": name, "namespace": namespace},
            },
        });
        if let Some(class) = &self.class {
            content["spec"]["volumeSnapshotClassName"] = json!(class);
        }
        content
    }
}

/// Makes a VolumeSnapshot of it with its content; what is there already stays.
pub(crate) async fn make_copy(
    snapshots: &Snapshots,
    name: &str,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    of: &Stored,
) -> Result<(), Error> {
    let content = of.content(name, namespace, labels);
    snapshots.make(Kind::Content, content).await?;
    let mut snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"source": {"volumeSnapshotContentName": name}},
    });
    if let Some(class) = &of.class {
        snapshot["spec"]["volumeSnapshotClassName"] = json!(class);
    }
    snapshots.make(Kind::Snapshot, snapshot).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_owns_nothing_and_has_the_secrets_of_its_driver() {
        let secret = "snapshot.storage.kubernetes.io/deletion-secret-name";
        let stored = Stored {
            driver: "d".to_owned(),
            handle: "h".to_owned(),
            class: None,
            mode: VolumeMode::Block,
            annotations: BTreeMap::from([
                (secret.to_owned(), "s".to_owned()),
                (format!("{NOTES}deleted"), "yes".to_owned()),
            ]),
        };
        let content = stored.content("n", "movers", &BTreeMap::new());
        assert_eq!(content["metadata"]["annotations"], json!({secret: "s"}));
        assert_eq!(
            content["spec"],
            json!({"deletionPolicy": "Retain", "driver": "d", "source": {"snapshotHandle": "h"},
                "sourceVolumeMode": "Block", "volumeSnapshotRef": {"name": "n", "namespace": "movers"}})
        );
    }
}

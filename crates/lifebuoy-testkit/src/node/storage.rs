//! Storage of a cluster with a node: the test driver with the sidecars that
//! every CSI driver has, and the classes to ask for it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use lifebuoy_csi_testdriver::{Driver, DriverOptions};

use super::{Node, Place};
use crate::ControlPlane;
use crate::namespace;
use crate::process::{Process, ProcessSpec};
use crate::sample::apply_yaml;
use crate::tools::{Tool, ToolPaths, ensure_async, snapshot_definitions};

/// Storage that makes volumes and takes snapshots. Dropping it stops that;
/// volumes that pods use stay usable.
#[derive(Debug)]
#[must_use = "dropping it stops the storage"]
pub struct NodeStorage {
    // Fields drop in this order: those that ask before the one that answers.
    _sidecars: Vec<Process>,
    driver: Driver,
    class: String,
}

impl NodeStorage {
    /// Gives a cluster with a node a storage, under `class`: a StorageClass
    /// that binds on first use, and a VolumeSnapshotClass.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(plane: &ControlPlane, node: &Node, class: &str) -> Result<Self> {
        let tools = [
            Tool::CsiProvisioner,
            Tool::CsiSnapshotter,
            Tool::SnapshotController,
        ];
        let tools = ensure_async(&tools).await?;
        let driver = driver_name(class);
        define_snapshots(plane).await?;
        apply_yaml(&plane.admin(), &classes(class, &driver)).await?;
        let root = node.kubelet_root();
        let socket = root.join(format!("plugins/{driver}/csi@{driver}.sock"));
        let options = DriverOptions {
            node: node.name().to_owned(),
            folder: node.folder().join("storage"),
            disk_name: namespace::disk_name()?,
            socket: socket.clone(),
            registration: Some(root.join(format!("plugins_registry/registration@{driver}.sock"))),
            name: driver,
        };
        let driver = Driver::serve(options).await?;
        Ok(Self {
            _sidecars: start_sidecars(&tools, &node.place, plane.kubeconfig(), socket)?,
            driver,
            class: class.to_owned(),
        })
    }

    /// The name of its StorageClass and its VolumeSnapshotClass.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The name of its driver.
    pub fn driver(&self) -> String {
        driver_name(&self.class)
    }

    /// Where the content of a volume is on this machine, by the handle that its
    /// PersistentVolume has: a directory, or the file behind a device.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn content(&self, handle: &str) -> Result<PathBuf> {
        Ok(self.driver.content(handle)?)
    }

    /// The names of the volumes that there are.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub fn volumes(&self) -> Result<Vec<String>> {
        Ok(self.driver.volumes()?)
    }

    /// The names of the snapshots that there are, wanted by anybody or not.
    ///
    /// # Errors
    /// As [`NodeStorage::volumes`].
    pub fn snapshots(&self) -> Result<Vec<String>> {
        Ok(self.driver.snapshots()?)
    }
}

fn driver_name(class: &str) -> String {
    format!("{class}.csi.lifebuoy.dev")
}

async fn define_snapshots(plane: &ControlPlane) -> Result<()> {
    let folder = tokio::task::spawn_blocking(snapshot_definitions).await??;
    for entry in fs::read_dir(&folder).context("cannot list the kinds of snapshots")? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        if text.contains("kind: CustomResourceDefinition") {
            apply_yaml(&plane.admin(), &text)
                .await
                .with_context(|| format!("cannot apply {}", path.display()))?;
        }
    }
    Ok(())
}

fn classes(class: &str, driver: &str) -> String {
    format!(
        "
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {{name: {driver}}}
spec: {{attachRequired: false, podInfoOnMount: false, fsGroupPolicy: File}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {class}}}
provisioner: {driver}
reclaimPolicy: Delete
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {{name: {class}}}
driver: {driver}
deletionPolicy: Delete
"
    )
}

fn start_sidecars(
    tools: &ToolPaths,
    place: &Place,
    kubeconfig: PathBuf,
    socket: PathBuf,
) -> Result<Vec<Process>> {
    let spec = |tool: Tool| -> Result<ProcessSpec> {
        let (program, binary) = (tools.get(tool)?, tool.binary());
        let name = format!("{binary} of {}", place.name);
        let spec = ProcessSpec::new(name, program, place.log(binary));
        Ok(spec.arg(format!("--kubeconfig={}", kubeconfig.display())))
    };
    let address = format!("--csi-address={}", socket.display());
    let provisioner = spec(Tool::CsiProvisioner)?
        .arg(&address)
        // One node has everything.
        .arg("--feature-gates=Topology=false")
        .env("NODE_NAME", &place.name);
    let snapshotter = spec(Tool::CsiSnapshotter)?
        .arg(&address)
        .arg("--feature-gates=CSIVolumeGroupSnapshot=false");
    let controller = spec(Tool::SnapshotController)?;
    [provisioner, snapshotter, controller]
        .into_iter()
        .map(Process::spawn)
        .collect()
}

//! A real node: containerd and a kubelet, whose pods really run.
//!
//! Only inside of [`crate::namespace`]. There is no kube-proxy and no cluster
//! DNS: pods reach the API server at its service address, where it listens
//! itself, the S3 server at its own, and each other at their pods' addresses.
//! Never ends its containers: they end with the namespace.

mod containerd;
pub mod images;
mod kubelet;
mod processes;
mod storage;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;

use crate::ControlPlane;
use crate::namespace::{self, NODES, command};
use crate::process::{Process, ProcessSpec};
use crate::tools::{Tool, ensure_async};

pub use storage::NodeStorage;

/// A node that is not ready after this never will be.
const START_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// A running node. Dropping it ends the kubelet and containerd.
#[derive(Debug)]
#[must_use = "dropping it stops the node"]
pub struct Node {
    // Fields drop in this order: the kubelet before what it talks to.
    kubelet: Option<Process>,
    containerd: Process,
    kubelet_spec: ProcessSpec,
    place: Place,
}

/// Where a node has its things.
#[derive(Clone, Debug)]
struct Place {
    /// Of the node, and of the cluster that it belongs to.
    name: String,
    /// A short path: sockets lie below it.
    folder: PathBuf,
    /// Where the logs stay.
    logs: PathBuf,
    /// Tells nodes apart in addresses and devices.
    number: u8,
}

impl Place {
    fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let place = Self {
            name: name.to_owned(),
            folder: Path::new(NODES).join(name),
            logs: namespace::folder()
                .context("a node runs in a namespace of its own only: see namespace::test")?,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        };
        fs::create_dir_all(&place.folder)?;
        Ok(place)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.logs.join(format!("{program}-{}.log", self.name))
    }

    fn bridge(&self) -> String {
        format!("node{}", self.number)
    }

    /// The node's own address, which is the first of its pods' network.
    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number, 1)
    }

    fn pod_network(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    fn containerd_socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    fn kubelet_root(&self) -> PathBuf {
        self.folder.join("kubelet")
    }
}

impl Node {
    /// Starts a node of the cluster, with its name, and waits until it is
    /// ready. It has the image [`images::BUSYBOX`]; others are imported.
    ///
    /// # Errors
    /// When this process is not inside a namespace, or a part does not start;
    /// the text has the end of its log.
    pub async fn start(plane: &ControlPlane) -> Result<Self> {
        let tools = ensure_async(&[Tool::Kubelet]).await?;
        let place = Place::new(plane.name())?;
        add_bridge(&place)?;
        let mut containerd = containerd::start(&place)?;
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(place.containerd_socket()).is_err() {
            containerd.check_running()?;
            if started.elapsed() > START_LIMIT {
                bail!("containerd does not listen:\n{}", containerd.log_tail(2000));
            }
            tokio::time::sleep(POLL).await;
        }
        let kubelet_spec = kubelet::spec(&place, tools.get(Tool::Kubelet)?, &plane.kubeconfig())?;
        let mut node = Self {
            kubelet: None,
            containerd,
            kubelet_spec,
            place,
        };
        node.import(&images::busybox(&node.place.folder)?)?;
        node.import(&images::pause(&node.place.folder)?)?;
        node.start_kubelet()?;
        node.wait_ready(plane).await?;
        Ok(node)
    }

    /// Its name, which is that of its cluster.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// The address of the node itself.
    pub fn address(&self) -> Ipv4Addr {
        self.place.address()
    }

    /// The kubelet's folder, with the volumes of pods in `pods/`.
    pub fn kubelet_root(&self) -> PathBuf {
        self.place.kubelet_root()
    }

    /// A folder for what belongs to the node; it goes with the run.
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// Makes an image known to the node. Pods use it with
    /// `imagePullPolicy: Never`.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn import(&mut self, image: &images::Archive) -> Result<()> {
        self.containerd.check_running()?;
        containerd::import(&self.place, image)
    }

    /// Kills the kubelet at once; pods go on.
    pub fn kill_kubelet(&mut self) {
        self.kubelet = None;
    }

    /// Starts a killed kubelet again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_kubelet(&mut self) -> Result<()> {
        self.kubelet = Some(Process::spawn(self.kubelet_spec.clone())?);
        Ok(())
    }

    async fn wait_ready(&mut self, plane: &ControlPlane) -> Result<()> {
        let nodes: Api<NodeObject> = Api::all(plane.admin());
        let started = Instant::now();
        loop {
            self.containerd.check_running()?;
            if let Some(kubelet) = &mut self.kubelet {
                kubelet.check_running()?;
            }
            if nodes.get_opt(self.name()).await?.is_some_and(is_ready) {
                return Ok(());
            }
            if started.elapsed() > START_LIMIT {
                let log = self.place.log("kubelet");
                bail!("the node is not ready; its log is {}", log.display());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn is_ready(node: NodeObject) -> bool {
    let conditions = node.status.and_then(|status| status.conditions);
    let tainted = node
        .spec
        .and_then(|spec| spec.taints)
        .is_some_and(|taints| !taints.is_empty());
    let mut conditions = conditions.into_iter().flatten();
    !tainted && conditions.any(|one| one.type_ == "Ready" && one.status == "True")
}

/// The kubelet wants its address to be there before the first pod.
fn add_bridge(place: &Place) -> Result<()> {
    let (bridge, address) = (place.bridge(), format!("{}/24", place.address()));
    // Without an address of its own it has the lowest of its pods', and when that changes,
    // connections that pods have get lost.
    let hardware = format!("02:00:00:00:00:{:02x}", place.number);
    command(
        "ip",
        [
            "link", "add", &bridge, "address", &hardware, "type", "bridge",
        ],
    )?;
    command("ip", ["address", "add", &address, "dev", &bridge])?;
    command("ip", ["link", "set", &bridge, "up"])?;
    Ok(())
}

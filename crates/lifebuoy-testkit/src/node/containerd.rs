//! containerd, as a node has it: what it is told, and how it gets images.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::Place;
use super::images::{self, Archive};
use crate::namespace::command;
use crate::process::{Process, ProcessSpec};

/// Where Debian puts the network plugins.
const CNI_PROGRAMS: &str = "/usr/lib/cni";
/// containerd's name for what belongs to Kubernetes.
const KUBERNETES: &str = "k8s.io";

pub(super) fn start(place: &Place) -> Result<Process> {
    let network = place.folder.join("cni");
    fs::create_dir_all(&network)?;
    fs::write(network.join("10-pods.conflist"), network_list(place))?;
    let config = place.folder.join("containerd.toml");
    fs::write(&config, configuration(place, &network))?;
    let spec = ProcessSpec::new(
        format!("containerd of {}", place.name),
        "containerd",
        place.log("containerd"),
    )
    .arg("--config")
    .arg(config);
    Process::spawn(spec)
}

fn configuration(place: &Place, network: &Path) -> String {
    let folder = place.folder.display();
    let socket = place.containerd_socket();
    let (socket, network) = (socket.display(), network.display());
    let pause = images::PAUSE;
    // restrict_oom_score_adj: a machine that is itself confined cannot lower
    // it, and runc then dies without a word of that.
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd-{name}"
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
device_ownership_from_security_context = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PROGRAMS}"
conf_dir = "{network}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        name = place.name
    )
}

fn network_list(place: &Place) -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": place.bridge(),
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": place.pod_network(), "gateway": place.address()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": place.folder.join("addresses"),
            },
        }],
    })
    .to_string()
}

pub(super) fn import(place: &Place, image: &Archive) -> Result<()> {
    let socket = place.containerd_socket();
    let words = [
        "--address".as_ref(),
        socket.as_os_str(),
        "--namespace".as_ref(),
        KUBERNETES.as_ref(),
        "images".as_ref(),
        "import".as_ref(),
        image.path().as_os_str(),
    ];
    command("ctr", words).with_context(|| format!("cannot import {}", image.name()))?;
    Ok(())
}

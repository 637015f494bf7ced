//! The kubelet's configuration and command line.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::Place;
use crate::namespace::control_groups;
use crate::process::ProcessSpec;

pub(super) fn spec(place: &Place, program: &Path, kubeconfig: &Path) -> Result<ProcessSpec> {
    let root = place.kubelet_root();
    fs::create_dir_all(&root)?;
    control_groups::make(&place.name)?;
    // Nobody answers there: a pod that asks for a name gets its error at once.
    fs::write(place.folder.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
    let config = place.folder.join("kubelet.json");
    fs::write(&config, configuration(place)?.to_string())?;
    let name = format!("kubelet of {}", place.name);
    Ok(ProcessSpec::new(name, program, place.log("kubelet"))
        .arg(format!("--config={}", config.display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--root-dir={}", root.display()))
        .arg(format!("--cert-dir={}/pki", root.display()))
        .arg(format!("--hostname-override={}", place.name))
        .arg(format!("--node-ip={}", place.address())))
}

fn configuration(place: &Place) -> Result<Value> {
    let folder = place.folder.display();
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.address(),
        "healthzPort": 0,
        "readOnlyPort": 0,
        // Nobody but this run reaches it.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": format!("unix://{}", place.containerd_socket().display()),
        // What a machine lets its root do differs; none of this matters to a test.
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],
        "cgroupRoot": format!("/{}", control_groups::of_node(&place.name)?),
        "makeIPTablesUtilChains": false,
        // A full disk of the machine is no reason to evict.
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "resolvConf": format!("{folder}/resolv.conf"),
        "podLogsDir": format!("{folder}/pod-logs"),
        "volumePluginDir": format!("{folder}/volume-plugins"),
    }))
}

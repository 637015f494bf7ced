//! The Job of a mover, as a value. What its pod may do is decided here and nowhere else:
//! the least with which the work can be done, and nothing in the cluster.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Affinity, Capabilities, Container, EnvVar, HostPathVolumeSource, KeyToPath,
            NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
            PersistentVolumeClaimVolumeSource, PodAffinityTerm, PodAntiAffinity,
            PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SELinuxOptions,
            SeccompProfile, SecretVolumeSource, SecurityContext, Toleration, Volume, VolumeDevice,
            VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use lifebuoy_api::{EXCLUDE_LABEL, MANAGED_BY, MANAGED_BY_LABEL, PLACE_LABEL, SESSION_ANNOTATION};
use lifebuoy_repo::SessionId;

use super::{
    node_path::{NodeDirectory, NodePath},
    task::{DEVICE_PLACE, FILES_PLACE, TASK_KEY, TERMINATION_PLACE},
};

/// The name of the container of a mover's pod.
pub const MOVER_CONTAINER: &str = "mover";
/// Where the Secret is mounted.
const TASK_DIRECTORY: &str = "/task";
/// Where a directory is mounted that only has to be there.
const CHECK_PLACE: &str = "/there";
/// Only the owner may read the task: uid 0, as which every mover runs.
const TASK_MODE: i32 = 0o400;
/// A mover ends at once; this is for the runtime.
const TERMINATION_SECONDS: i64 = 10;
/// Whoever starts a mover removes it when it has ended. Where nobody is left to do that,
/// as after an uninstallation, no Secret lies about for longer.
const TTL_SECONDS: i32 = 24 * 60 * 60;

/// What an installation says of its movers.
#[derive(Clone, Debug, PartialEq)]
pub struct MoverConfig {
    /// The namespace in which they run, and nothing else.
    pub namespace: String,
    /// The image; the program in it is this one.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// An account without any right.
    pub service_account: String,
    /// How many run at a time.
    pub max_concurrent: usize,
    /// How many run at a time on one node.
    pub max_per_node: u16,
    /// The PriorityClass of their pods.
    pub priority_class: Option<String>,
    /// What one needs and may have at most.
    pub resources: ResourceRequirements,
    /// Where they may run, unless a volume says so.
    pub node_selector: BTreeMap<String, String>,
    /// What they run in spite of.
    pub tolerations: Vec<Toleration>,
    /// What each logs.
    pub log_level: String,
    /// The kubelet's directory on the nodes: below it is what pods have mounted.
    pub kubelet_directory: String,
    /// Directories of the nodes that they may read, where volumes are of the type hostPath.
    pub host_paths: Vec<NodePath>,
    /// Each sends no more than so many bytes a second.
    pub limit_upload: Option<u64>,
    /// Each receives no more than so many bytes a second.
    pub limit_download: Option<u64>,
}

impl MoverConfig {
    /// The defaults for an operator in this namespace.
    #[must_use]
    pub fn new(operator_namespace: &str) -> Self {
        Self {
            namespace: format!("{operator_namespace}-movers"),
            image: format!("lifebuoy:{}", env!("CARGO_PKG_VERSION")),
            image_pull_policy: "IfNotPresent".to_owned(),
            service_account: "lifebuoy-mover".to_owned(),
            max_concurrent: 8,
            max_per_node: 2,
            priority_class: None,
            resources: ResourceRequirements::default(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            log_level: "info".to_owned(),
            kubelet_directory: "/var/lib/kubelet".to_owned(),
            host_paths: Vec::new(),
            limit_upload: None,
            limit_download: None,
        }
    }

    /// How many volumes are dealt with at a time: some are made ready, and cleaned up after,
    /// while others have a mover.
    #[must_use]
    pub fn volumes_at_a_time(&self) -> usize {
        2 * self.max_concurrent.max(1)
    }
}

/// The volume of a mover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountedVolume {
    /// A PersistentVolumeClaim in the movers' namespace.
    Claim {
        /// Its name.
        name: String,
        /// Whether it is a block device.
        block: bool,
    },
    /// What the kubelet has mounted on the node for a pod.
    Mounted {
        /// Its path there.
        path: String,
    },
    /// A directory of the node.
    HostPath(NodeDirectory),
}

impl MountedVolume {
    /// Its path on the node; none for a claim, which can be on any.
    fn on_node(&self) -> Option<String> {
        match self {
            Self::Claim { .. } => None,
            Self::Mounted { path } => Some(path.clone()),
            Self::HostPath(directory) => Some(directory.path()),
        }
    }

    /// Where in the directory that is mounted it is, if it is not all of it.
    fn below(&self) -> Option<&str> {
        match self {
            Self::HostPath(directory) => Some(&*directory.below).filter(|below| !below.is_empty()),
            Self::Claim { .. } | Self::Mounted { .. } => None,
        }
    }
}

/// One mover.
#[derive(Clone, Debug)]
pub struct JobRequest<'a> {
    /// The name of the Job, and of the Secret with its task.
    pub name: &'a str,
    /// Labels of the Job and of its pod.
    pub labels: &'a BTreeMap<String, String>,
    /// What it works on.
    pub volume: &'a MountedVolume,
    /// The node on which it must run.
    pub node: Option<&'a str>,
    /// Whether the volume is mounted such that nothing can be written to it.
    pub read_only: bool,
    /// Whether it restores; otherwise it saves.
    pub restores: bool,
    /// The number of its place, below [`MoverConfig::max_per_node`]: two of one number never
    /// run on one node.
    pub place: u16,
    /// The session of a save, for whoever finds the Job later.
    pub session: Option<SessionId>,
    /// What the installation says.
    pub config: &'a MoverConfig,
}

/// The name of the Job of a try, counted from 1.
#[must_use]
pub fn job_name(base: &str, attempt: u32) -> String {
    format!("{base}-{attempt}")
}

/// The Job of a mover.
#[must_use]
pub fn job(request: &JobRequest<'_>) -> Job {
    let labels = labels(request);
    let session = request.session.map(|session| session.to_string());
    Job {
        metadata: ObjectMeta {
            name: Some(request.name.to_owned()),
            namespace: Some(request.config.namespace.clone()),
            labels: Some(labels.clone()),
            annotations: session.map(|id| [(SESSION_ANNOTATION.to_owned(), id)].into()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            // Whoever started it decides whether it is tried again: he knows whether
            // it may have committed.
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            ttl_seconds_after_finished: Some(TTL_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(pod_annotations()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(request)),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

fn labels(request: &JobRequest<'_>) -> BTreeMap<String, String> {
    let mut labels = request.labels.clone();
    for (key, value) in [
        (MANAGED_BY_LABEL, MANAGED_BY),
        ("app.kubernetes.io/name", "lifebuoy"),
        ("app.kubernetes.io/component", "mover"),
        // Of no value in another cluster, or later.
        (EXCLUDE_LABEL, "true"),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels.insert(PLACE_LABEL.to_owned(), request.place.to_string());
    labels
}

/// Those who make room on nodes begin with others: a mover that is moved begins again.
fn pod_annotations() -> BTreeMap<String, String> {
    [
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn pod(request: &JobRequest<'_>) -> PodSpec {
    let config = request.config;
    let on_node = request.volume.on_node().is_some();
    let node = request.node.map(str::to_owned);
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        service_account_name: Some(config.service_account.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        priority_class_name: config.priority_class.clone(),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        // A directory is on its node whatever the scheduler thinks of that, and whatever
        // taints it has. For a claim the scheduler is needed, which binds it.
        node_name: node.clone().filter(|_| on_node),
        affinity: (!on_node).then(|| Affinity {
            node_affinity: node.map(only_on),
            pod_anti_affinity: Some(apart(request.place)),
            pod_affinity: None,
        }),
        node_selector: (!on_node && request.node.is_none() && !config.node_selector.is_empty())
            .then(|| config.node_selector.clone()),
        tolerations: tolerations(config, on_node),
        security_context: Some(PodSecurityContext {
            // No fsGroup: with one the kubelet would give all files to it.
            run_as_user: Some(0),
            run_as_group: Some(0),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(request)],
        volumes: Some(volumes(request)),
        ..PodSpec::default()
    }
}

/// By the node's name: its label `kubernetes.io/hostname` may be another.
fn only_on(node: String) -> NodeAffinity {
    let here = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node]),
    };
    let term = NodeSelectorTerm {
        match_fields: Some(vec![here]),
        ..NodeSelectorTerm::default()
    };
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: vec![term],
        }),
        ..NodeAffinity::default()
    }
}

/// Not on a node with a mover whose place has the same number.
fn apart(place: u16) -> PodAntiAffinity {
    let same = LabelSelector {
        match_labels: Some([(PLACE_LABEL.to_owned(), place.to_string())].into()),
        ..LabelSelector::default()
    };
    PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
            label_selector: Some(same),
            topology_key: "kubernetes.io/hostname".to_owned(),
            ..PodAffinityTerm::default()
        }]),
        ..PodAntiAffinity::default()
    }
}

fn tolerations(config: &MoverConfig, on_node: bool) -> Option<Vec<Toleration>> {
    if on_node {
        return Some(vec![Toleration {
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]);
    }
    Some(config.tolerations.clone()).filter(|some| !some.is_empty())
}

fn container(request: &JobRequest<'_>) -> Container {
    let config = request.config;
    let task = VolumeMount {
        name: "task".to_owned(),
        mount_path: TASK_DIRECTORY.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![task];
    let mut devices = None;
    if is_block(request.volume) {
        devices = Some(vec![VolumeDevice {
            name: "volume".to_owned(),
            device_path: DEVICE_PLACE.to_owned(),
        }]);
    } else {
        mounts.push(VolumeMount {
            name: "volume".to_owned(),
            mount_path: FILES_PLACE.to_owned(),
            // Whoever writes above the volume may put a link in its way: the kubelet
            // follows none that leads out of the directory that is mounted.
            sub_path: request.volume.below().map(str::to_owned),
            read_only: Some(request.read_only),
            ..VolumeMount::default()
        });
    }
    if request.volume.below().is_some() {
        mounts.push(VolumeMount {
            name: "there".to_owned(),
            mount_path: CHECK_PLACE.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    Container {
        name: MOVER_CONTAINER.to_owned(),
        image: Some(config.image.clone()),
        image_pull_policy: Some(config.image_pull_policy.clone()),
        args: Some(vec!["mover".to_owned()]),
        env: Some(vec![EnvVar {
            name: "LIFEBUOY_LOG_LEVEL".to_owned(),
            value: Some(config.log_level.clone()),
            ..EnvVar::default()
        }]),
        resources: Some(config.resources.clone()),
        security_context: Some(security(request)),
        termination_message_path: Some(TERMINATION_PLACE.to_owned()),
        // Never the log: a message is what the mover says, or nothing.
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: Some(mounts),
        volume_devices: devices,
        ..Container::default()
    }
}

fn is_block(volume: &MountedVolume) -> bool {
    matches!(volume, MountedVolume::Claim { block: true, .. })
}

/// What the container may do. All run as uid 0, without the capabilities that usually
/// come with it.
fn security(request: &JobRequest<'_>) -> SecurityContext {
    let add = capabilities(request);
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: (!add.is_empty()).then(|| add.iter().map(|name| (*name).to_owned()).collect()),
        }),
        // What is on a node is labelled for the node, or for the pods that it belongs to. No effect where there is no SELinux.
        se_linux_options: request.volume.on_node().map(|_| SELinuxOptions {
            type_: Some("spc_t".to_owned()),
            ..SELinuxOptions::default()
        }),
        ..SecurityContext::default()
    }
}

/// The capabilities without which it cannot be done.
fn capabilities(request: &JobRequest<'_>) -> &'static [&'static str] {
    if is_block(request.volume) {
        // A device belongs to uid 0 and can be opened by nobody else, unless the runtime
        // was told to hand devices over. As its owner one needs nothing.
        return &[];
    }
    if !request.restores {
        // Reads what only others may read. Without it a save would be full of holes; that
        // nothing is written is assured by what is not here.
        return &["DAC_READ_SEARCH"];
    }
    &[
        // Files get the owners that they had.
        "CHOWN",
        // A restore that goes on writes into directories that have their owner and mode
        // already, and what was written is read again. Attributes `user.*` need it too.
        "DAC_OVERRIDE",
        // Modes, times, ACLs and attributes of files that belong to others by then, and
        // hard links to them.
        "FOWNER",
        // Or the set-group-id bit would be lost of files whose group one is not in.
        "FSETID",
        // Device nodes.
        "MKNOD",
        // Programs with capabilities: the attribute `security.capability`.
        "SETFCAP",
    ]
}

fn volumes(request: &JobRequest<'_>) -> Vec<Volume> {
    let mut volumes = match request.volume {
        MountedVolume::Claim { name, .. } => vec![Volume {
            name: "volume".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: Some(request.read_only),
            }),
            ..Volume::default()
        }],
        MountedVolume::Mounted { path } => vec![host_path("volume", path)],
        MountedVolume::HostPath(directory) => {
            vec![host_path("volume", directory.allowed.as_str())]
        }
    };
    if let MountedVolume::HostPath(directory) = request.volume
        && request.volume.below().is_some()
    {
        // The kubelet makes a `subPath` that is not there, and an empty directory would be
        // saved. This one, which nobody reads, it refuses then.
        volumes.push(host_path("there", &directory.path()));
    }
    volumes.push(task_volume(request.name));
    volumes
}

fn host_path(name: &str, path: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.to_owned(),
            // Nothing is made where there is nothing.
            type_: Some("Directory".to_owned()),
        }),
        ..Volume::default()
    }
}

fn task_volume(secret: &str) -> Volume {
    Volume {
        name: "task".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(TASK_MODE),
            items: Some(vec![KeyToPath {
                key: TASK_KEY.to_owned(),
                path: TASK_KEY.to_owned(),
                ..KeyToPath::default()
            }]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::FOR_LABEL;
    use serde_json::json;

    use super::*;

    fn config() -> MoverConfig {
        MoverConfig {
            image: "registry.example.com/lifebuoy:1".to_owned(),
            priority_class: Some("lifebuoy".to_owned()),
            resources: serde_json::from_value(json!({"limits": {"memory": "512Mi"}})).unwrap(),
            node_selector: [("disk".to_owned(), "fast".to_owned())].into(),
            tolerations: serde_json::from_value(json!([{"key": "backup", "operator": "Exists"}]))
                .unwrap(),
            ..MoverConfig::new("lifebuoy")
        }
    }

    fn made(volume: MountedVolume, node: Option<&str>, restores: bool) -> Job {
        let labels = [(FOR_LABEL.to_owned(), "uid-1".to_owned())].into();
        let session = (!restores).then(|| SessionId::from_bytes([7; 16]));
        job(&JobRequest {
            name: "lifebuoy-1",
            labels: &labels,
            volume: &volume,
            node,
            read_only: !restores,
            restores,
            place: 1,
            session,
            config: &config(),
        })
    }

    fn claim(block: bool) -> MountedVolume {
        MountedVolume::Claim {
            name: "data".to_owned(),
            block,
        }
    }

    fn mounted() -> MountedVolume {
        MountedVolume::Mounted {
            path: "/var/lib/kubelet/pods/1/volumes/x".to_owned(),
        }
    }

    fn directory(path: &str) -> MountedVolume {
        let path = NodePath::parse(path).unwrap();
        let allowed = NodePath::parse("/srv/data").unwrap();
        MountedVolume::HostPath(NodeDirectory::find(&path, &[allowed]).unwrap())
    }

    #[test]
    fn each_variant_of_the_job() {
        insta::assert_yaml_snapshot!("save_files", made(claim(false), None, false));
        insta::assert_yaml_snapshot!("save_device", made(claim(true), None, false));
        insta::assert_yaml_snapshot!("save_mounted", made(mounted(), Some("node-a"), false));
        insta::assert_yaml_snapshot!(
            "save_directory",
            made(directory("/srv/data/shop/1"), Some("node-a"), false)
        );
        insta::assert_yaml_snapshot!("restore_files", made(claim(false), Some("node-a"), true));
        insta::assert_yaml_snapshot!("restore_device", made(claim(true), None, true));
    }

    #[test]
    fn no_mover_may_do_more_than_its_work() {
        for volume in [
            claim(true),
            claim(false),
            mounted(),
            directory("/srv/data"),
            directory("/srv/data/1"),
        ] {
            for restores in [true, false] {
                let job = made(volume.clone(), Some("node-a"), restores);
                let spec = job.spec.unwrap();
                assert_eq!(spec.backoff_limit, Some(0));
                assert_eq!(spec.active_deadline_seconds, None);
                let pod = spec.template.spec.unwrap();
                assert_eq!(pod.automount_service_account_token, Some(false));
                assert_eq!((pod.host_network, pod.host_pid), (None, None));
                assert_eq!(pod.security_context.unwrap().fs_group, None);
                let container = &pod.containers[0];
                let context = container.security_context.clone().unwrap();
                assert_eq!(context.allow_privilege_escalation, Some(false));
                assert_eq!(context.privileged, None);
                let capabilities = context.capabilities.unwrap();
                assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
                let added = capabilities.add.unwrap_or_default();
                assert!(!added.contains(&"SYS_ADMIN".to_owned()));
                assert_eq!(added.is_empty(), is_block(&volume));
                if volume.on_node().is_some() && !restores {
                    let mounts = container.volume_mounts.iter().flatten();
                    assert!(mounts.into_iter().all(|m| m.read_only == Some(true)));
                }
            }
        }
    }
}

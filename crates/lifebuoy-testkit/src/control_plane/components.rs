//! The command line of each component. Decides nothing else: who starts and
//! stops what, and when, is the parent module's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::network::Network;
use super::options::ControlPlaneOptions;
use super::{audit, credentials};
use crate::ports;
use crate::process::{Process, ProcessSpec};
use crate::tools::{Tool, ToolPaths};

/// How much etcd may hold, in bytes: enough for the largest benchmark.
const ETCD_QUOTA_BYTES: u64 = 6 << 30;
/// Tests make many namespaces at once; the controllers keep up with this.
const CONTROLLER_REQUESTS_PER_SECOND: u32 = 500;

/// What happens to the fake nodes and their pods.
const KWOK_STAGES: &str = include_str!("../../kwok/stages.yaml");

/// Where the parts of one control plane listen: on loopback, all but the API
/// server.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    /// Clients and peers of each etcd.
    etcd: Vec<(u16, u16)>,
    network: Network,
    controllers: u16,
    scheduler: u16,
    kwok: u16,
}

impl Ports {
    pub(super) fn allocate(options: &ControlPlaneOptions) -> Result<Self> {
        let mut etcd = vec![(ports::free()?, ports::free()?)];
        if !options.second_etcd_for.is_empty() {
            etcd.push((ports::free()?, ports::free()?));
        }
        Ok(Self {
            etcd,
            network: Network::allocate()?,
            controllers: ports::free()?,
            scheduler: ports::free()?,
            kwok: ports::free()?,
        })
    }
}

/// How to start each part of one control plane.
#[derive(Debug)]
pub(super) struct Components {
    pub(super) name: String,
    options: ControlPlaneOptions,
    tools: ToolPaths,
    ports: Ports,
    folder: PathBuf,
}

impl Components {
    pub(super) fn new(
        options: &ControlPlaneOptions,
        tools: &ToolPaths,
        ports: Ports,
        folder: &Path,
    ) -> Result<Self> {
        fs::write(folder.join("audit-policy.yaml"), audit::POLICY)?;
        Ok(Self {
            name: options.name.clone(),
            options: options.clone(),
            tools: tools.clone(),
            ports,
            folder: folder.to_owned(),
        })
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.ports.network.apiserver)
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        self.folder.join("certificates/apiserver.crt")
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    pub(super) fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    fn spec(&self, tool: Tool) -> Result<ProcessSpec> {
        let name = format!("{} of {}", tool.binary(), self.name);
        let log = self.folder.join(format!("{}.log", tool.binary()));
        Ok(ProcessSpec::new(name, self.tools.get(tool)?, log).directory(&self.folder))
    }

    pub(super) fn start_etcd(&self) -> Result<Vec<Process>> {
        let mut started = Vec::new();
        for (index, (clients, peers)) in self.ports.etcd.iter().enumerate() {
            let peers = format!("http://127.0.0.1:{peers}");
            let clients = format!("http://127.0.0.1:{clients}");
            let spec = self
                .spec(Tool::Etcd)?
                .arg(format!("--data-dir={}/etcd-{index}", self.folder.display()))
                .arg(format!("--listen-client-urls={clients}"))
                .arg(format!("--advertise-client-urls={clients}"))
                .arg(format!("--listen-peer-urls={peers}"))
                .arg(format!("--initial-advertise-peer-urls={peers}"))
                .arg(format!("--initial-cluster=default={peers}"))
                .arg(format!("--quota-backend-bytes={ETCD_QUOTA_BYTES}"))
                .arg("--log-level=warn")
                .arg("--unsafe-no-fsync");
            started.push(Process::spawn(spec)?);
        }
        Ok(started)
    }

    pub(super) fn start_apiserver(&self) -> Result<Process> {
        let folder = self.folder.display();
        let network = &self.ports.network;
        let mut spec = self
            .spec(Tool::KubeApiserver)?
            .arg(format!("--etcd-servers={}", self.etcd_url(0)))
            .arg(format!("--bind-address={}", network.apiserver.ip()))
            .arg(format!("--advertise-address={}", network.apiserver.ip()))
            .arg(format!("--secure-port={}", network.apiserver.port()))
            .arg(format!("--cert-dir={folder}/certificates"))
            .arg(format!(
                "--service-account-key-file={folder}/{}",
                credentials::PUBLIC_KEY
            ))
            .arg(format!(
                "--service-account-signing-key-file={folder}/{}",
                credentials::PRIVATE_KEY
            ))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!(
                "--token-auth-file={folder}/{}",
                credentials::TOKENS
            ))
            .arg("--authorization-mode=Node,RBAC")
            .arg(format!("--service-cluster-ip-range={}", network.services))
            .arg("--allow-privileged")
            .arg("--endpoint-reconciler-type=none")
            .arg("--shutdown-delay-duration=0s")
            .arg("--kubelet-preferred-address-types=InternalIP");
        for resource in &self.options.second_etcd_for {
            let url = self.etcd_url(1);
            spec = spec.arg(format!("--etcd-servers-overrides={resource}#{url}"));
        }
        if let Some(interval) = self.options.compaction_interval {
            spec = spec.arg(format!(
                "--etcd-compaction-interval={}ms",
                interval.as_millis()
            ));
        }
        if self.options.audit {
            spec = spec
                .arg(format!("--audit-policy-file={folder}/audit-policy.yaml"))
                .arg(format!("--audit-log-path={}", self.audit_log().display()))
                // In MiB: no rotation within a test.
                .arg("--audit-log-maxsize=100000");
        }
        Process::spawn(spec.args(&self.options.apiserver_args))
    }

    fn etcd_url(&self, index: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd[index].0)
    }

    pub(super) fn start_controllers(&self) -> Result<Option<Process>> {
        if !self.options.controllers {
            return Ok(None);
        }
        let folder = self.folder.display();
        let rate = CONTROLLER_REQUESTS_PER_SECOND;
        let spec = self
            .spec(Tool::KubeControllerManager)?
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            .arg(format!(
                "--service-account-private-key-file={folder}/{}",
                credentials::PRIVATE_KEY
            ))
            .arg(format!("--root-ca-file={}", self.ca_file().display()))
            .arg("--use-service-account-credentials")
            .arg("--leader-elect=false")
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--secure-port={}", self.ports.controllers))
            .arg(format!("--cert-dir={folder}/certificates-controllers"))
            .arg(format!("--kube-api-qps={rate}"))
            .arg(format!("--kube-api-burst={rate}"));
        Ok(Some(Process::spawn(spec)?))
    }

    pub(super) fn start_scheduler(&self) -> Result<Option<Process>> {
        if !self.options.scheduler {
            return Ok(None);
        }
        let spec = self
            .spec(Tool::KubeScheduler)?
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            .arg("--leader-elect=false")
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--secure-port={}", self.ports.scheduler))
            .arg(format!(
                "--cert-dir={}/certificates-scheduler",
                self.folder.display()
            ));
        Ok(Some(Process::spawn(spec)?))
    }

    pub(super) fn start_kwok(&self) -> Result<Option<Process>> {
        if !self.options.kwok {
            return Ok(None);
        }
        let stages = self.folder.join("kwok-stages.yaml");
        fs::write(&stages, KWOK_STAGES)?;
        let spec = self
            .spec(Tool::Kwok)?
            .arg(format!("--config={}", stages.display()))
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            .arg("--manage-all-nodes=true")
            .arg("--node-ip=127.0.0.1")
            .arg(format!("--server-address=127.0.0.1:{}", self.ports.kwok))
            // Its configuration is looked for below the home directory.
            .env("HOME", &self.folder);
        Ok(Some(Process::spawn(spec)?))
    }
}

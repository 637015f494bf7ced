//! The operator as the chart installs it, on a real control plane.
//!
//! `helm install` puts the chart into the cluster for real; what its pods would
//! run is then run as plain processes: the same arguments, environment and
//! ServiceAccounts, so that every test has the chart's rights and no more.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use kube::api::ListParams;
use kube::{Api, Client};
use lifebuoy_testkit::kubectl::CommandLine;
use lifebuoy_testkit::tools::workspace_root;
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions, Process, ProcessSpec};

/// The namespace that the chart is installed in.
pub const OPERATOR_NAMESPACE: &str = "lifebuoy";

/// How long the operator may take until `/readyz` says yes.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How to install the operator.
#[derive(Clone, Debug)]
pub struct InstallationOptions {
    /// The cluster under it.
    pub cluster: ControlPlaneOptions,
    /// The unique name that the installation gives the cluster.
    pub cluster_name: String,
    /// The chart's `mode`.
    pub mode: &'static str,
    /// More `--set` arguments for Helm.
    pub set: Vec<String>,
    /// Environment variables of the operator, on top of the chart's.
    pub environment: Vec<(String, String)>,
}

impl InstallationOptions {
    /// Both modes in a cluster of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            cluster: ControlPlaneOptions::named(name),
            cluster_name: name.to_owned(),
            mode: "Both",
            set: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A cluster with the chart installed and the operator running.
pub struct Installation {
    /// The cluster.
    pub cluster: ControlPlane,
    options: InstallationOptions,
    binary: PathBuf,
    replicas: Vec<Replica>,
}

/// One process of the operator: what one pod of a Deployment would be.
pub struct Replica {
    /// The Deployment that describes it.
    pub deployment: String,
    /// Where its health and metrics are served.
    pub listen: String,
    spec: ProcessSpec,
    process: Option<Process>,
}

impl Installation {
    /// Starts a cluster, installs the chart and starts what it describes, one
    /// replica of each Deployment; waits until all are ready.
    ///
    /// # Errors
    /// When a part cannot be built or started; the message names its log.
    pub async fn start(options: InstallationOptions) -> Result<Self> {
        let cluster = ControlPlane::start(options.cluster.clone()).await?;
        Self::install(cluster, options).await
    }

    /// Installs the chart in a cluster that runs, and starts the operator.
    ///
    /// # Errors
    /// As [`Installation::start`].
    pub async fn install(cluster: ControlPlane, options: InstallationOptions) -> Result<Self> {
        helm_install(&cluster, &options).await?;
        let mut installation = Self {
            cluster,
            options,
            binary: operator_binary()?,
            replicas: Vec::new(),
        };
        installation.start_replicas().await?;
        Ok(installation)
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> Client {
        self.cluster.admin()
    }

    /// The name that the installation gave the cluster.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        &self.options.cluster_name
    }

    /// The processes of the operator.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Starts one more process of each Deployment, as a second replica.
    ///
    /// # Errors
    /// When one does not become ready.
    pub async fn start_replicas(&mut self) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client(), OPERATOR_NAMESPACE);
        let first = self.replicas.len();
        for deployment in deployments.list(&ListParams::default()).await? {
            let replica = self.replica(&deployment).await?;
            self.replicas.push(replica);
        }
        ensure!(self.replicas.len() > first, "the chart has no Deployment");
        for replica in &mut self.replicas[first..] {
            replica.start()?;
        }
        self.ready().await
    }

    /// Kills every process of the operator as `kill -9` does.
    pub fn kill(&mut self) {
        for replica in &mut self.replicas {
            replica.process = None;
        }
    }

    /// Kills the first `count` processes as `kill -9` does.
    pub fn kill_first(&mut self, count: usize) {
        for replica in self.replicas.iter_mut().take(count) {
            replica.process = None;
        }
    }

    /// Asks every process of the operator to end, as the kubelet does.
    ///
    /// # Errors
    /// When one has not ended within `grace`.
    pub async fn terminate(&mut self, grace: Duration) -> Result<()> {
        for replica in &mut self.replicas {
            if let Some(process) = replica.process.take() {
                let name = process.name().to_owned();
                let status = process.stop(grace).await?;
                ensure!(status.is_some(), "{name} had to be killed after {grace:?}");
            }
        }
        Ok(())
    }

    /// Starts the processes that do not run, and waits until they are ready.
    ///
    /// # Errors
    /// When one does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        for replica in &mut self.replicas {
            if !replica.running()? {
                replica.start()?;
            }
        }
        self.ready().await
    }

    /// Starts the processes that do not run, to abort where `step` says; does
    /// not wait.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn restart_to_abort_at(&mut self, step: &str) -> Result<()> {
        for replica in &mut self.replicas {
            if !replica.running()? {
                let spec = replica.spec.clone().env("LIFEBUOY_ABORT_AT", step);
                replica.process = Some(Process::spawn(spec)?);
            }
        }
        Ok(())
    }

    /// Whether a process of the operator has ended by itself.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn any_ended(&mut self) -> Result<bool> {
        for replica in &mut self.replicas {
            if !replica.running()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn ready(&mut self) -> Result<()> {
        for replica in &mut self.replicas {
            replica.ready().await?;
        }
        Ok(())
    }

    async fn replica(&self, deployment: &Deployment) -> Result<Replica> {
        let name = deployment
            .metadata
            .name
            .clone()
            .context("a Deployment without a name")?;
        let pod = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref())
            .context("a Deployment without a pod template")?;
        let account = pod.service_account_name.as_deref().unwrap_or("default");
        let kubeconfig = self
            .cluster
            .kubeconfig_for_service_account(OPERATOR_NAMESPACE, account)
            .await?;
        let container = pod
            .containers
            .first()
            .context("a Deployment without containers")?;
        let identity = format!("{name}-{}", self.replicas.len());
        let listen = free_address()?;
        let log = self
            .cluster
            .directory()
            .join("logs")
            .join(format!("{identity}.log"));
        let mut spec = ProcessSpec::new(&identity, &self.binary, log)
            .args(arguments(container, &listen))
            .env("KUBECONFIG", kubeconfig);
        for (name, value) in environment(container, &identity) {
            spec = spec.env(name, value);
        }
        for (name, value) in &self.options.environment {
            spec = spec.env(name, value);
        }
        Ok(Replica {
            deployment: name,
            listen,
            spec,
            process: None,
        })
    }
}

impl Replica {
    /// Its process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    fn start(&mut self) -> Result<()> {
        self.process = Some(Process::spawn(self.spec.clone())?);
        Ok(())
    }

    fn running(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(process) => Ok(process.exited()?.is_none()),
            None => Ok(false),
        }
    }

    /// Waits until `/readyz` says yes.
    async fn ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < READY_LIMIT {
            if let Some(process) = &mut self.process {
                process.check_running()?;
            }
            if matches!(get(&self.listen, "/readyz").await, Ok((200, _))) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = self
            .process
            .as_ref()
            .map_or_else(String::new, |p| p.log_tail(4000));
        bail!(
            "{} is not ready after {READY_LIMIT:?}; its log ends:\n{log}",
            self.deployment
        )
    }
}

/// Asks `address` for `path` over plain HTTP; gives the status and the body.
///
/// # Errors
/// When nothing answers there.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer
        .split_whitespace()
        .nth(1)
        .context("no status line")?
        .parse()?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default();
    Ok((status, body))
}

/// The `lifebuoy` binary: `$LIFEBUOY_BINARY`, or what the workspace last built
/// in the profile of this process.
///
/// # Errors
/// When there is none.
pub fn operator_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LIFEBUOY_BINARY") {
        return Ok(path.into());
    }
    let profile = std::env::current_exe()?
        .ancestors()
        .find(|folder| folder.ends_with("release"))
        .map_or("debug", |_| "release");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace_root().join("target"), PathBuf::from);
    let path = target.join(profile).join("lifebuoy");
    ensure!(
        path.exists(),
        "{} is not there: run `cargo build -p lifebuoy`",
        path.display()
    );
    Ok(path)
}

/// The chart of this checkout.
#[must_use]
pub fn chart() -> PathBuf {
    workspace_root().join("charts/lifebuoy")
}

/// Helm for a cluster.
///
/// # Errors
/// When it cannot be built.
pub async fn helm(cluster: &ControlPlane) -> Result<CommandLine> {
    CommandLine::helm(cluster.kubeconfig(), cluster.directory().join("helm")).await
}

/// kubectl for a cluster.
///
/// # Errors
/// When it cannot be built.
pub async fn kubectl(cluster: &ControlPlane) -> Result<CommandLine> {
    CommandLine::kubectl(cluster.kubeconfig(), cluster.directory().join("kubectl")).await
}

/// Installs the chart with Helm; starts nothing.
pub(crate) async fn helm_install(
    cluster: &ControlPlane,
    options: &InstallationOptions,
) -> Result<()> {
    let mut args = vec![
        "upgrade".to_owned(),
        "--install".to_owned(),
        "lifebuoy".to_owned(),
        path_text(&chart())?,
        "--create-namespace".to_owned(),
        "--namespace".to_owned(),
        OPERATOR_NAMESPACE.to_owned(),
        "--set".to_owned(),
        format!("clusterName={}", options.cluster_name),
        "--set".to_owned(),
        format!("mode={}", options.mode),
    ];
    for set in &options.set {
        args.extend(["--set".to_owned(), set.clone()]);
    }
    helm(cluster).await?.run(args).await?;
    Ok(())
}

fn path_text(path: &Path) -> Result<String> {
    Ok(path
        .to_str()
        .context("the checkout's path is not UTF-8")?
        .to_owned())
}

/// The container's arguments, but for the address, which is one on loopback.
fn arguments(container: &Container, listen: &str) -> Vec<String> {
    let own = container
        .args
        .iter()
        .flatten()
        .filter(|arg| !arg.starts_with("--listen"));
    own.cloned().chain([format!("--listen={listen}")]).collect()
}

/// The container's environment, with what the kubelet would fill in.
fn environment(container: &Container, identity: &str) -> Vec<(String, String)> {
    let field = |path: &str| match path {
        "metadata.namespace" => OPERATOR_NAMESPACE.to_owned(),
        _ => identity.to_owned(),
    };
    container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| {
            let reference = variable
                .value_from
                .as_ref()
                .and_then(|from| from.field_ref.as_ref());
            let value = match reference {
                Some(reference) => field(&reference.field_path),
                None => variable.value.clone()?,
            };
            Some((variable.name.clone(), value))
        })
        .collect()
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

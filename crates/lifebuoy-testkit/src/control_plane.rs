//! A real Kubernetes control plane on loopback: etcd, kube-apiserver,
//! controllers, scheduler, and fake nodes when asked for.
//!
//! Any number run side by side. Dropping one ends all of its processes and
//! removes its data; [`TestDirectory`] says when logs stay.

mod audit;
mod components;
mod credentials;
mod kubeconfig;
mod network;
mod options;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use crate::directory::TestDirectory;
use crate::install_tls_provider;
use crate::process::{Process, Usage};
use crate::tools::ensure_async;

pub use audit::RequestCounts;
pub use kubeconfig::Access;
pub use options::ControlPlaneOptions;

use components::{Components, Ports};
use credentials::Credentials;

/// A start that takes longer than this hangs, even on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How often a start is tried with other ports.
const START_ATTEMPTS_MAX: u32 = 4;
/// How often readiness is asked for.
const READY_POLL: Duration = Duration::from_millis(50);
/// How long the API server may end gracefully: it would wait a minute for the
/// watches of the controllers, which do not end by themselves.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long a token of a ServiceAccount is valid, in seconds.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// A running control plane.
#[must_use = "dropping it stops the cluster"]
pub struct ControlPlane {
    // Fields drop in this order: clients of the API server first.
    running: Running,
    components: Components,
    credentials: Credentials,
    client: Client,
    directory: TestDirectory,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControlPlane({} at {})", self.name(), self.url())
    }
}

#[derive(Debug, Default)]
struct Running {
    kwok: Option<Process>,
    scheduler: Option<Process>,
    controllers: Option<Process>,
    apiserver: Option<Process>,
    etcd: Vec<Process>,
}

impl ControlPlane {
    /// Starts a control plane and waits until it is usable: `/readyz` is ok,
    /// and with controllers, the ServiceAccount `default` is there.
    ///
    /// # Errors
    /// When a program is missing and cannot be built, or does not start. The
    /// text holds the end of its log.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self> {
        install_tls_provider();
        let tools = ensure_async(&options.tools()).await?;
        let mut attempt = 1;
        loop {
            let directory = match &options.directory {
                Some(path) => TestDirectory::kept(path)?,
                None => TestDirectory::new(&options.name)?,
            };
            let ports = Ports::allocate(&options)?;
            let components = Components::new(&options, &tools, ports, directory.path())?;
            match Self::start_once(components, directory).await {
                Ok(plane) => return Ok(plane),
                Err(error) if attempt < START_ATTEMPTS_MAX && is_port_clash(&error) => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn start_once(components: Components, directory: TestDirectory) -> Result<Self> {
        let credentials = Credentials::write(directory.path())?;
        let mut running = Running {
            etcd: components.start_etcd()?,
            ..Running::default()
        };
        running.apiserver = Some(components.start_apiserver()?);
        let started = Instant::now();
        let access = wait_for_ca(&mut running, &components, &credentials, started).await?;
        fs::write(components.kubeconfig(), access.kubeconfig(&components.name))?;
        let client = access.client().await?;
        let mut plane = Self {
            running,
            components,
            credentials,
            client,
            directory,
        };
        plane.wait_ready(started).await?;
        plane.start_clients_of_apiserver()?;
        plane.wait_for_default_account(started).await?;
        Ok(plane)
    }

    fn start_clients_of_apiserver(&mut self) -> Result<()> {
        self.running.controllers = self.components.start_controllers()?;
        self.running.scheduler = self.components.start_scheduler()?;
        self.running.kwok = self.components.start_kwok()?;
        Ok(())
    }

    async fn wait_ready(&mut self, started: Instant) -> Result<()> {
        loop {
            self.running.check()?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            match self.client.request_text(request).await {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > START_LIMIT => {
                    return Err(error).with_context(|| self.late("ready"));
                }
                Err(_) => tokio::time::sleep(READY_POLL).await,
            }
        }
    }

    async fn wait_for_default_account(&mut self, started: Instant) -> Result<()> {
        if self.running.controllers.is_none() {
            return Ok(());
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        while accounts.get_opt("default").await?.is_none() {
            self.running.check()?;
            if started.elapsed() > START_LIMIT {
                bail!("{}", self.late("given its default ServiceAccount"));
            }
            tokio::time::sleep(READY_POLL).await;
        }
        Ok(())
    }

    fn late(&self, what: &str) -> String {
        let seconds = START_LIMIT.as_secs();
        let folder = self.directory.path().display();
        format!(
            "{} is not {what} after {seconds} s; its logs are in {folder}",
            self.components.name
        )
    }

    /// The name given in the options.
    pub fn name(&self) -> &str {
        &self.components.name
    }

    /// The folder with data, certificates and logs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `https://127.0.0.1:PORT`; inside of a namespace, what pods take it for.
    pub fn url(&self) -> String {
        self.components.url()
    }

    /// The certificates that vouch for the API server.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn ca_pem(&self) -> Result<String> {
        let path = self.components.ca_file();
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// How the administrator reaches it.
    ///
    /// # Errors
    /// As [`ControlPlane::ca_pem`].
    pub fn access(&self) -> Result<Access> {
        self.access_with(self.credentials.admin_token.clone())
    }

    fn access_with(&self, token: String) -> Result<Access> {
        Ok(Access {
            url: self.url(),
            ca_pem: self.ca_pem()?,
            token,
            impersonate: None,
        })
    }

    /// A client with every right.
    pub fn admin(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig file with every right; context and cluster bear the
    /// control plane's name.
    pub fn kubeconfig(&self) -> PathBuf {
        self.components.kubeconfig()
    }

    /// A kubeconfig file of a user without groups, made by impersonation.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_for_user(&self, user: &str) -> Result<PathBuf> {
        let access = Access {
            impersonate: Some(user.to_owned()),
            ..self.access()?
        };
        self.write_kubeconfig(user, &access)
    }

    /// A kubeconfig file of a ServiceAccount, with a fresh token.
    ///
    /// # Errors
    /// When the account does not exist.
    pub async fn kubeconfig_for_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PathBuf> {
        let access = self.access_of_service_account(namespace, name).await?;
        self.write_kubeconfig(&format!("{namespace}.{name}"), &access)
    }

    fn write_kubeconfig(&self, whose: &str, access: &Access) -> Result<PathBuf> {
        let file = format!("{}.kubeconfig", whose.replace(['/', ':'], "."));
        let path = self.directory.path().join(file);
        fs::write(&path, access.kubeconfig(&self.components.name))?;
        Ok(path)
    }

    /// A client with exactly the rights of a ServiceAccount.
    ///
    /// # Errors
    /// When the account does not exist.
    pub async fn client_for_service_account(&self, namespace: &str, name: &str) -> Result<Client> {
        self.access_of_service_account(namespace, name)
            .await?
            .client()
            .await
    }

    async fn access_of_service_account(&self, namespace: &str, name: &str) -> Result<Access> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token of the ServiceAccount {namespace}/{name}"))?;
        let status = answer
            .status
            .context("a TokenRequest came back without a token")?;
        self.access_with(status.token)
    }

    /// Adds a node that kwok plays. The option `kwok` must be on.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn add_fake_node(&self, name: &str) -> Result<()> {
        let yaml = format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}");
        crate::sample::apply_yaml(&self.client, &yaml).await?;
        Ok(())
    }

    /// Kills the API server at once, as a lost machine would. etcd goes on.
    pub fn kill_apiserver(&mut self) {
        self.running.apiserver = None;
    }

    /// Starts the API server again, on the same port with the same
    /// certificates, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart_apiserver(&mut self) -> Result<()> {
        if let Some(apiserver) = self.running.apiserver.take() {
            apiserver.stop(STOP_GRACE).await?;
        }
        self.running.apiserver = Some(self.components.start_apiserver()?);
        self.wait_ready(Instant::now()).await
    }

    /// Processor time and memory of the API server.
    ///
    /// # Errors
    /// When it is not running.
    pub fn apiserver_usage(&self) -> Result<Usage> {
        self.running
            .apiserver
            .as_ref()
            .context("the API server is not running")?
            .usage()
    }

    /// Processor time and memory of etcd (the first, if there are two).
    ///
    /// # Errors
    /// When it is not running.
    pub fn etcd_usage(&self) -> Result<Usage> {
        self.running
            .etcd
            .first()
            .context("etcd is not running")?
            .usage()
    }

    /// Counts the requests in the audit log, by user and verb. The option
    /// `audit` must be on.
    ///
    /// # Errors
    /// When there is no audit log.
    pub fn request_counts(&self) -> Result<RequestCounts> {
        RequestCounts::read(&self.components.audit_log())
    }

    /// The ids of all its processes.
    pub fn process_ids(&self) -> Vec<u32> {
        self.running.all().map(Process::pid).collect()
    }

    /// Ends everything after a test that went well: the logs go, too.
    pub async fn stop(mut self) {
        self.directory.passed();
        // Nothing in a test's etcd is worth a graceful end.
        tokio::task::spawn_blocking(move || drop(self))
            .await
            .unwrap_or_default();
    }
}

impl Running {
    fn all(&self) -> impl Iterator<Item = &Process> {
        let single = [
            &self.kwok,
            &self.scheduler,
            &self.controllers,
            &self.apiserver,
        ];
        single.into_iter().flatten().chain(&self.etcd)
    }

    /// Fails if one of them has ended by itself.
    fn check(&mut self) -> Result<()> {
        for etcd in &mut self.etcd {
            etcd.check_running()?;
        }
        let others = [
            &mut self.apiserver,
            &mut self.controllers,
            &mut self.scheduler,
            &mut self.kwok,
        ];
        others
            .into_iter()
            .flatten()
            .try_for_each(Process::check_running)
    }
}

/// The API server writes its own certificate at its first start.
async fn wait_for_ca(
    running: &mut Running,
    components: &Components,
    credentials: &Credentials,
    started: Instant,
) -> Result<Access> {
    loop {
        running.check()?;
        let ca_pem = fs::read_to_string(components.ca_file()).unwrap_or_default();
        // The file holds the server's certificate and that of its authority.
        if ca_pem.matches("-----END CERTIFICATE-----").count() >= 2 {
            let token = credentials.admin_token.clone();
            return Ok(Access {
                url: components.url(),
                ca_pem,
                token,
                impersonate: None,
            });
        }
        if started.elapsed() > START_LIMIT {
            bail!(
                "kube-apiserver wrote no certificate in {} s",
                START_LIMIT.as_secs()
            );
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

fn is_port_clash(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("address already in use")
}

impl Access {
    /// A client with this access.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub async fn client(&self) -> Result<Client> {
        install_tls_provider();
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig("test"))?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Client::try_from(config)?)
    }
}

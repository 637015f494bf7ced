//! A real S3 server (versitygw over a folder) with one bucket, on loopback.
//!
//! Its users have different rights, to test credentials that may not do
//! everything. An object of the bucket is a file of the same name in
//! [`S3Server::bucket_directory`]. [`PolicedS3`] is such a server with policies
//! and locks as a cloud has them.

mod identities;
mod policed;
mod signed;
mod users;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;

use crate::namespace;
use crate::ports;
use crate::process::{Process, ProcessSpec};
use crate::tools::{Tool, ToolPaths, ensure_async};

pub use policed::{PolicedS3, Version};
pub use signed::{Answer, S3Key};
pub use users::{Rights, S3User};

/// The name of the bucket.
pub const BUCKET: &str = "lifebuoy";
/// The region that signatures name.
pub const REGION: &str = "us-east-1";

const START_LIMIT: Duration = Duration::from_secs(60);
const START_ATTEMPTS_MAX: u32 = 4;
const READY_POLL: Duration = Duration::from_millis(30);

/// What keeps the objects of a bucket from being replaced and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// Nothing but the rights of who asks.
    #[default]
    None,
    /// Versions, each of them locked: what is replaced or deleted stays.
    LockedVersions,
    /// A lock without versions, as no cloud has it: this server then refuses to
    /// replace and to delete.
    LockWithoutVersions,
}

/// The lock of [`Protection`], for a hundred years.
const LOCK: &str = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
     <DefaultRetention><Mode>GOVERNANCE</Mode><Days>36500</Days></DefaultRetention></Rule>\
     </ObjectLockConfiguration>";

/// How a server is set up.
#[derive(Clone, Debug, Default)]
struct Setup {
    /// Where it asks what an identity may do, in place of a file of users.
    identities: Option<String>,
    protection: Protection,
}

/// A running S3 server. Dropping it ends the process; the folder stays.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct S3Server {
    process: Option<Process>,
    tools: ToolPaths,
    folder: PathBuf,
    port: u16,
    root: S3User,
    users: Vec<S3User>,
    setup: Setup,
}

impl S3Server {
    /// Starts a server that keeps everything below `folder`: the bucket in
    /// `data/lifebuoy/`, users, and the log. A folder that was used before
    /// shows the same objects, under new keys.
    ///
    /// # Errors
    /// When versitygw is missing and cannot be built, or does not start; for
    /// example on a file system without extended attributes.
    pub async fn start(folder: impl Into<PathBuf>) -> Result<Self> {
        let root = S3User::random(Rights::Everything);
        Self::start_as(folder.into(), root, Setup::default()).await
    }

    async fn start_as(folder: PathBuf, root: S3User, setup: Setup) -> Result<Self> {
        let tools = ensure_async(&[Tool::Versitygw]).await?;
        for part in ["data", "users", "versions"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let folder = folder.canonicalize()?;
        let users = match setup.identities {
            Some(_) => Vec::new(),
            None => vec![
                S3User::random(Rights::ReadOnly),
                S3User::random(Rights::WriteWithoutList),
            ],
        };
        users::write(&folder.join("users"), &users)?;
        let mut server = Self {
            process: None,
            tools,
            folder,
            port: 0,
            root,
            users,
            setup,
        };
        let mut attempt = 1;
        loop {
            server.port = ports::free()?;
            match server.restart().await {
                Ok(()) => break,
                Err(_) if attempt < START_ATTEMPTS_MAX && port_was_taken(&server.log()) => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        server.make_bucket().await?;
        Ok(server)
    }

    /// Starts a stopped server again, on the same port with the same keys. A
    /// running one is stopped first.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut process = Process::spawn(self.spec()?)?;
        let started = Instant::now();
        loop {
            process.check_running()?;
            let any = Request::get("/").body(Bytes::new())?;
            if self.request(any).await.is_ok() {
                self.process = Some(process);
                return Ok(());
            }
            if started.elapsed() > START_LIMIT {
                bail!(
                    "versitygw does not answer; its log is {}",
                    self.log().display()
                );
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    fn spec(&self) -> Result<ProcessSpec> {
        let address = format!("{}:{}", namespace::address(), self.port);
        let program = self.tools.get(Tool::Versitygw)?;
        let mut spec = ProcessSpec::new("versitygw", program, self.log())
            .args(["--port", &address, "--quiet"])
            .env("ROOT_ACCESS_KEY", &self.root.access_key)
            .env("ROOT_SECRET_KEY", &self.root.secret_key)
            .env("VGW_REGION", REGION);
        spec = match &self.setup.identities {
            Some(socket) => spec.args(["--iam-standalone-endpoint", socket]),
            None => spec.arg("--iam-dir").arg(self.folder.join("users")),
        };
        spec = spec.arg("posix");
        if self.setup.protection == Protection::LockedVersions {
            spec = spec
                .arg("--versioning-dir")
                .arg(self.folder.join("versions"));
        }
        Ok(spec.arg(self.folder.join("data")))
    }

    async fn make_bucket(&self) -> Result<()> {
        let put = |query: &str| Request::put(format!("/{BUCKET}{query}"));
        let locked = self.setup.protection != Protection::None;
        if !self.bucket_directory().is_dir() {
            let lock = ("x-amz-bucket-object-lock-enabled", locked.to_string());
            self.request(put("").header(lock.0, lock.1).body(Bytes::new())?)
                .await?;
        }
        if locked {
            self.request(put("?object-lock=").body(LOCK.into())?)
                .await
                .context("the S3 server refused the bucket's lock")?;
        }
        if self.setup.identities.is_none() {
            let policy = users::policy(BUCKET, &self.users).to_string();
            self.request(put("?policy=").body(policy.into())?)
                .await
                .context("the S3 server refused the bucket policy")?;
        }
        Ok(())
    }

    async fn request(&self, request: Request<Bytes>) -> Result<Answer> {
        let root = S3Key {
            access_key: self.root.access_key.clone(),
            secret_key: self.root.secret_key.clone(),
        };
        signed::send(&self.endpoint(), "s3", &root, request)
            .await?
            .success()
    }

    /// Ends the server at once. Its port stays reserved for [`S3Server::restart`].
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// `http://ADDRESS:PORT`, as everything that uses it reaches it.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{}", namespace::address(), self.port)
    }

    /// `s3://lifebuoy`, to which a prefix may be added.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}")
    }

    /// The key id that may do everything.
    pub fn access_key(&self) -> &str {
        &self.root.access_key
    }

    /// The secret of [`S3Server::access_key`].
    pub fn secret_key(&self) -> &str {
        &self.root.secret_key
    }

    /// The credentials of the user with these rights.
    pub fn user(&self, rights: Rights) -> &S3User {
        let found = self.users.iter().find(|user| user.rights == rights);
        found.unwrap_or(&self.root)
    }

    /// The folder whose files are the bucket's objects.
    pub fn bucket_directory(&self) -> PathBuf {
        self.folder.join("data").join(BUCKET)
    }

    /// Makes the bucket vanish while the server goes on.
    ///
    /// # Errors
    /// When it is hidden already.
    pub fn hide_bucket(&self) -> Result<()> {
        fs::rename(self.bucket_directory(), self.hidden()).context("cannot hide the bucket")
    }

    /// Brings a hidden bucket back, as it was.
    ///
    /// # Errors
    /// When it is not hidden.
    pub fn show_bucket(&self) -> Result<()> {
        fs::rename(self.hidden(), self.bucket_directory()).context("cannot bring the bucket back")
    }

    fn hidden(&self) -> PathBuf {
        self.folder.join("hidden-bucket")
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("versitygw.log")
    }

    /// The process, while it runs.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        &self.folder
    }
}

/// Whether a process could not listen, by its log.
fn port_was_taken(log: &Path) -> bool {
    fs::read_to_string(log)
        .unwrap_or_default()
        .contains("in use")
}

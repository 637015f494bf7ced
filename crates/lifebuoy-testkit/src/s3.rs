//! A real S3 server (versitygw over a folder) with one bucket, on loopback.
//!
//! Its users have different rights, to test credentials that may not do
//! everything. An object of the bucket is a file of the same name in
//! [`S3Server::bucket_directory`].

mod signed;
mod users;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;

use crate::ports;
use crate::process::{Process, ProcessSpec};
use crate::tools::{Tool, ToolPaths, ensure_async};

pub use users::{Rights, S3User};

/// The name of the bucket.
pub const BUCKET: &str = "lifebuoy";
/// The region that signatures name.
pub const REGION: &str = "us-east-1";

const START_LIMIT: Duration = Duration::from_secs(60);
const START_ATTEMPTS_MAX: u32 = 4;
const READY_POLL: Duration = Duration::from_millis(30);

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
        let folder = folder.into();
        let tools = ensure_async(&[Tool::Versitygw]).await?;
        for part in ["data", "users"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let folder = folder.canonicalize()?;
        let root = S3User::random(Rights::Everything);
        let users = vec![
            S3User::random(Rights::ReadOnly),
            S3User::random(Rights::WriteWithoutList),
        ];
        users::write(&folder.join("users"), &users)?;
        let mut server = Self {
            process: None,
            tools,
            folder,
            port: 0,
            root,
            users,
        };
        let mut attempt = 1;
        loop {
            server.port = ports::free()?;
            match server.restart().await {
                Ok(()) => break,
                Err(_) if attempt < START_ATTEMPTS_MAX && server.log_says("in use") => attempt += 1,
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
        let spec = ProcessSpec::new("versitygw", self.tools.get(Tool::Versitygw)?, self.log())
            .args([
                "--port",
                &format!("127.0.0.1:{}", self.port),
                "--quiet",
                "--iam-dir",
            ])
            .arg(self.folder.join("users"))
            .arg("posix")
            .arg(self.folder.join("data"))
            .env("ROOT_ACCESS_KEY", &self.root.access_key)
            .env("ROOT_SECRET_KEY", &self.root.secret_key)
            .env("VGW_REGION", REGION);
        let mut process = Process::spawn(spec)?;
        let started = Instant::now();
        loop {
            process.check_running()?;
            if self.request(Method::GET, "/", Vec::new()).await.is_ok() {
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

    async fn make_bucket(&self) -> Result<()> {
        if !self.bucket_directory().is_dir() {
            self.request(Method::PUT, &format!("/{BUCKET}"), Vec::new())
                .await?;
        }
        let policy = users::policy(BUCKET, &self.users);
        self.request(
            Method::PUT,
            &format!("/{BUCKET}?policy="),
            policy.to_string().into_bytes(),
        )
        .await
        .context("the S3 server refused the bucket policy")?;
        Ok(())
    }

    async fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<String> {
        signed::request(&self.endpoint(), &self.root, method, path, body).await
    }

    /// Ends the server at once. Its port stays reserved for [`S3Server::restart`].
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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

    fn log_says(&self, text: &str) -> bool {
        fs::read_to_string(self.log())
            .unwrap_or_default()
            .contains(text)
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

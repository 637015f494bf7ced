//! The programs that are compared, and how each is asked for the same work: a
//! repository with encryption and zstd (level 3; lifebuoy chooses its own), no cache that
//! outlives the run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use lifebuoy_testkit::tools::workspace_root;

use super::process::{Cost, measure};

const PASSPHRASE: &str = "benchmark";

/// A program that stores files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tool {
    Lifebuoy,
    Restic,
    Rustic,
    Borg,
}

impl Tool {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lifebuoy => "lifebuoy",
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg => "borg",
        }
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Lifebuoy => workspace_root().join("target/release/lifebuoy"),
            peer => peer.name().into(),
        }
    }

    /// Its version, or what to do to have it.
    ///
    /// # Errors
    /// When it is not installed.
    pub(crate) fn version(self) -> Result<String> {
        let way = match self {
            Self::Lifebuoy => "cargo build --release",
            Self::Restic => "apt-get install restic",
            Self::Borg => "apt-get install borgbackup",
            Self::Rustic => "cargo install --locked rustic-rs",
        };
        let output = Command::new(self.program())
            .arg(if self == Self::Restic {
                "version"
            } else {
                "--version"
            })
            .output()
            .with_context(|| format!("{} is not installed: {way}", self.name()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// Where a repository is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Directory(PathBuf),
    /// A bucket of an S3 server, and a folder in it.
    S3(Bucket),
}

/// How to reach a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) endpoint: String,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) folder: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// One repository of one tool.
pub(crate) struct Store<'a> {
    pub(crate) tool: Tool,
    pub(crate) place: &'a Place,
    /// For caches, settings and logs; gone after the run.
    pub(crate) home: &'a Path,
}

impl Store<'_> {
    pub(crate) fn init(&self) -> Result<Cost> {
        let mut command = self.command();
        match self.tool {
            Tool::Lifebuoy => command.args(["repo", "init"]),
            Tool::Restic => command.args(["init", "--repository-version", "2"]),
            Tool::Rustic => command.args(["init", "--set-compression", "3"]),
            Tool::Borg => command
                .args(["init", "-e", "repokey-blake2"])
                .arg(self.url()?),
        };
        self.measure(&command)
    }

    /// Saves what is at `path`. `name` is new for each save.
    pub(crate) fn save(&self, path: &Path, device: bool, name: &str) -> Result<Cost> {
        let mut command = self.command();
        match self.tool {
            Tool::Lifebuoy => {
                command.args(["repo", "save"]).arg(path);
                if device {
                    command.arg("--device");
                }
            }
            Tool::Restic => {
                command.args(["backup", "--compression", "auto"]).arg(path);
            }
            Tool::Rustic => {
                command.arg("backup").arg(path);
            }
            Tool::Borg => {
                command
                    .args(["create", "--compression", "zstd,3"])
                    .arg(format!("{}::{name}", self.url()?))
                    .arg(path);
            }
        }
        self.measure(&command)
    }

    /// Restores the save of this name, the newest, into a directory that is there
    /// and empty.
    pub(crate) fn restore(&self, name: &str, device: bool, target: &Path) -> Result<Cost> {
        let mut command = self.command();
        match self.tool {
            Tool::Lifebuoy => {
                command.args(["repo", "restore", "latest"]);
                command.arg(if device {
                    target.join("image")
                } else {
                    target.to_owned()
                });
            }
            Tool::Restic => {
                command.args(["restore", "latest", "--target"]).arg(target);
            }
            Tool::Rustic => {
                command.args(["restore", "latest"]).arg(target);
            }
            Tool::Borg => {
                command.current_dir(target);
                let sparse = if device { &["--sparse"][..] } else { &[] };
                command.arg("extract").args(sparse);
                command.arg(format!("{}::{name}", self.url()?));
            }
        }
        self.measure(&command)
    }

    /// Reads and verifies everything.
    pub(crate) fn check(&self) -> Result<Cost> {
        let mut command = self.command();
        match self.tool {
            Tool::Lifebuoy => command.args(["repo", "check", "--level", "all"]),
            Tool::Restic | Tool::Rustic => command.args(["check", "--read-data"]),
            Tool::Borg => command.args(["check", "--verify-data"]).arg(self.url()?),
        };
        self.measure(&command)
    }

    /// Forgets all but the newest save, and frees what only they need.
    pub(crate) fn collect(&self) -> Result<Cost> {
        let mut command = self.command();
        match self.tool {
            Tool::Lifebuoy => return self.collect_ours(),
            Tool::Restic => {
                command.args(["forget", "--keep-last", "1", "--group-by", "", "--prune"])
            }
            Tool::Rustic => command.args([
                "forget",
                "--keep-last",
                "1",
                "--group-by",
                "",
                "--prune",
                "--instant-delete",
            ]),
            Tool::Borg => command.args(["prune", "--keep-last", "1"]).arg(self.url()?),
        };
        let forgotten = self.measure(&command)?;
        if self.tool != Tool::Borg {
            return Ok(forgotten);
        }
        let mut compact = self.command();
        compact.arg("compact").arg(self.url()?);
        Ok(forgotten.then(self.measure(&compact)?))
    }

    fn collect_ours(&self) -> Result<Cost> {
        let mut cost = Cost::default();
        let mut saves = self.saves()?;
        saves.pop();
        for save in saves {
            let mut forget = self.command();
            forget.args(["recoverypoint", "forget", &save]);
            cost = cost.then(self.measure(&forget)?);
        }
        let mut collect = self.command();
        collect.args(["repo", "collect", "--delete", "--grace", "0s"]);
        collect.args(["--keep-at-least", "0", "--delete-at-most-percent", "100"]);
        Ok(cost.then(self.measure(&collect)?))
    }

    /// The snapshots of our own repository, the oldest first.
    fn saves(&self) -> Result<Vec<String>> {
        let output = self.command().args(["repo", "ls", "-o", "json"]).output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let items = listed["items"].as_array().or(listed.as_array());
        let ids = items
            .into_iter()
            .flatten()
            .map(|item| item["snapshot"].as_str());
        let ids: Option<Vec<&str>> = ids.collect();
        let ids = ids.with_context(|| format!("what `repo ls` printed: {listed}"))?;
        Ok(ids.into_iter().map(str::to_owned).collect())
    }

    fn measure(&self, command: &Command) -> Result<Cost> {
        measure(command, &self.home.join("log"))
    }

    /// The place as the tool writes it.
    fn url(&self) -> Result<String> {
        Ok(match (self.tool, self.place) {
            (Tool::Lifebuoy, Place::Directory(path)) => format!("file://{}", path.display()),
            (_, Place::Directory(path)) => path.display().to_string(),
            (Tool::Lifebuoy, Place::S3(at)) => format!("s3://{}/{}", at.name, at.folder),
            (Tool::Restic, Place::S3(at)) => {
                format!("s3:{}/{}/{}", at.endpoint, at.name, at.folder)
            }
            (tool, Place::S3(_)) => {
                anyhow::bail!("{} stores nothing in S3 here", tool.name())
            }
        })
    }

    /// Whether the tool can store at such a place.
    pub(crate) fn is_possible(&self) -> bool {
        self.url().is_ok()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.tool.program());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home)
            .env("TMPDIR", self.home)
            .stdin(Stdio::null());
        let url = self.url().unwrap_or_default();
        match self.tool {
            Tool::Lifebuoy => {
                command
                    .env("LIFEBUOY_PASSPHRASE", PASSPHRASE)
                    .env("LIFEBUOY_REPO_URL", url);
            }
            Tool::Restic => {
                command
                    .env("RESTIC_PASSWORD", PASSPHRASE)
                    .env("RESTIC_REPOSITORY", url);
            }
            Tool::Rustic => {
                command
                    .env("RUSTIC_PASSWORD", PASSPHRASE)
                    .env("RUSTIC_REPOSITORY", url);
                command.env("RUSTIC_NO_PROGRESS", "true");
            }
            Tool::Borg => {
                command
                    .env("BORG_PASSPHRASE", PASSPHRASE)
                    .env("BORG_BASE_DIR", self.home);
            }
        }
        if let Place::S3(bucket) = self.place {
            command
                .env("AWS_ACCESS_KEY_ID", &bucket.access_key)
                .env("AWS_SECRET_ACCESS_KEY", &bucket.secret_key)
                .env("AWS_REGION", &bucket.region)
                .env("AWS_DEFAULT_REGION", &bucket.region)
                .env("LIFEBUOY_ENDPOINT", &bucket.endpoint)
                .env("LIFEBUOY_REGION", &bucket.region)
                .env("LIFEBUOY_ALLOW_HTTP", "true");
        }
        command
    }
}

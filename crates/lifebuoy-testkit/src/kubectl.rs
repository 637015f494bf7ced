//! Runs kubectl and helm against a cluster of ours. Never with the user's own
//! kubeconfig, caches or plugins.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::tools::{Tool, ensure_async};

/// A command line program bound to one kubeconfig.
#[derive(Clone, Debug)]
pub struct CommandLine {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

/// What a program printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CommandLine {
    /// kubectl with this kubeconfig; its caches go below `home`.
    ///
    /// # Errors
    /// When kubectl is missing and cannot be built.
    pub async fn kubectl(kubeconfig: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Result<Self> {
        Self::new(Tool::Kubectl, kubeconfig.into(), home.into()).await
    }

    /// helm with this kubeconfig; its caches go below `home`.
    ///
    /// # Errors
    /// When helm is missing and cannot be built.
    pub async fn helm(kubeconfig: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Result<Self> {
        Self::new(Tool::Helm, kubeconfig.into(), home.into()).await
    }

    async fn new(tool: Tool, kubeconfig: PathBuf, home: PathBuf) -> Result<Self> {
        let tools = ensure_async(&[tool]).await?;
        std::fs::create_dir_all(&home)?;
        Ok(Self {
            program: tools.get(tool)?.to_owned(),
            kubeconfig,
            home,
        })
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// When it ends with an error; the text holds what it said.
    pub async fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        self.run_with_input(args, "").await
    }

    /// [`CommandLine::run`] with a standard input, as for `apply -f -`.
    ///
    /// # Errors
    /// As [`CommandLine::run`].
    pub async fn run_with_input<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Result<String> {
        let args: Vec<_> = args
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        let finished = self.output(&args, input).await?;
        if finished.code != 0 {
            let name = self.program.file_name().unwrap_or_default();
            bail!(
                "{} {} ended with {}:\n{}{}",
                name.display(),
                args.join(OsStr::new(" ")).display(),
                finished.code,
                finished.stdout,
                finished.stderr
            );
        }
        Ok(finished.stdout)
    }

    /// Runs it and returns everything, whatever the exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn output<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Result<Finished> {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env("HELM_CACHE_HOME", self.home.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.home.join("helm/config"))
            .env("HELM_DATA_HOME", self.home.join("helm/data"));
        let output = process::output(command, input)
            .await
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(Finished {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

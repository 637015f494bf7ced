//! Finds the programs of a test cluster, and builds those that are missing.
//!
//! Each program comes from a Go module pinned below `tests/tools/`. It is
//! built once and kept outside `target/`, under a name derived from the pins
//! and the build flags. Nothing is downloaded but Go modules, by `go` itself.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{Process, ProcessSpec};

/// The folder with ready binaries that Go projects use by convention.
const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";
/// Overrides where built programs are kept.
const CACHE_VARIABLE: &str = "LIFEBUOY_TOOLS_CACHE";
/// Has the kinds of snapshots; its version is pinned with the controllers'.
const SNAPSHOT_DEFINITIONS: &str = "github.com/kubernetes-csi/external-snapshotter/client/v8";
/// How often a long build says that it is alive.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// A build that takes longer than this hangs.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);
/// How much of the compiler's output an error quotes, in bytes.
const LOG_TAIL_BYTES: usize = 2000;

/// A program that a test cluster is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// The database below the API server.
    Etcd,
    /// The Kubernetes API server.
    KubeApiserver,
    /// The built-in controllers.
    KubeControllerManager,
    /// The scheduler.
    KubeScheduler,
    /// The command line client.
    Kubectl,
    /// The S3 server.
    Versitygw,
    /// Fake nodes, on which pods become ready without running.
    Kwok,
    /// The package manager that installs the chart.
    Helm,
    /// What runs pods on a node.
    Kubelet,
    /// Makes volumes for claims.
    CsiProvisioner,
    /// Takes snapshots for their contents.
    CsiSnapshotter,
    /// Binds snapshots to their contents.
    SnapshotController,
    /// Says whether a CSI driver does what CSI says.
    CsiSanity,
}

impl Tool {
    /// What every machine can run, in the order of their build.
    pub const ALL: [Tool; 8] = [
        Tool::Etcd,
        Tool::Versitygw,
        Tool::KubeApiserver,
        Tool::KubeControllerManager,
        Tool::KubeScheduler,
        Tool::Kubectl,
        Tool::Kwok,
        Tool::Helm,
    ];

    /// What a control plane with controllers and an S3 server need.
    pub const CLUSTER: [Tool; 5] = [
        Tool::Etcd,
        Tool::Versitygw,
        Tool::KubeApiserver,
        Tool::KubeControllerManager,
        Tool::KubeScheduler,
    ];

    /// What a cluster with a real node needs on top of [`Tool::ALL`].
    pub const NODE: [Tool; 5] = [
        Tool::Kubelet,
        Tool::CsiProvisioner,
        Tool::CsiSnapshotter,
        Tool::SnapshotController,
        Tool::CsiSanity,
    ];

    /// The name of the binary.
    pub fn binary(self) -> &'static str {
        match self {
            Tool::Etcd => "etcd",
            Tool::KubeApiserver => "kube-apiserver",
            Tool::KubeControllerManager => "kube-controller-manager",
            Tool::KubeScheduler => "kube-scheduler",
            Tool::Kubectl => "kubectl",
            Tool::Versitygw => "versitygw",
            Tool::Kwok => "kwok",
            Tool::Helm => "helm",
            Tool::Kubelet => "kubelet",
            Tool::CsiProvisioner => "csi-provisioner",
            Tool::CsiSnapshotter => "csi-snapshotter",
            Tool::SnapshotController => "snapshot-controller",
            Tool::CsiSanity => "csi-sanity",
        }
    }

    fn module(self) -> Module {
        match self {
            Tool::Etcd => Module::Etcd,
            Tool::KubeApiserver
            | Tool::KubeControllerManager
            | Tool::KubeScheduler
            | Tool::Kubectl
            | Tool::Kubelet => Module::Kubernetes,
            Tool::Versitygw => Module::Versitygw,
            Tool::Kwok => Module::Kwok,
            Tool::Helm => Module::Helm,
            Tool::CsiProvisioner => Module::ExternalProvisioner,
            Tool::CsiSnapshotter | Tool::SnapshotController => Module::ExternalSnapshotter,
            Tool::CsiSanity => Module::CsiTest,
        }
    }

    fn package(self) -> &'static str {
        match self {
            Tool::Etcd => "go.etcd.io/etcd/server/v3",
            Tool::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Tool::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Tool::KubeScheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Tool::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Tool::Versitygw => "github.com/versity/versitygw/cmd/versitygw",
            Tool::Kwok => "sigs.k8s.io/kwok/cmd/kwok",
            Tool::Helm => "helm.sh/helm/v4/cmd/helm",
            Tool::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Tool::CsiProvisioner => {
                "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"
            }
            Tool::CsiSnapshotter => {
                "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter"
            }
            Tool::SnapshotController => {
                "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller"
            }
            Tool::CsiSanity => "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
        }
    }

    /// Whether [`ASSETS_VARIABLE`] may provide it.
    fn is_kubebuilder_asset(self) -> bool {
        self == Tool::Etcd || self.module() == Module::Kubernetes
    }
}

/// A folder of `tests/tools/` with pins of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Module {
    Etcd,
    Versitygw,
    Kubernetes,
    Kwok,
    Helm,
    ExternalProvisioner,
    ExternalSnapshotter,
    CsiTest,
}

impl Module {
    fn folder(self) -> &'static str {
        match self {
            Module::Etcd => "etcd",
            Module::Versitygw => "versitygw",
            Module::Kubernetes => "kubernetes",
            Module::Kwok => "kwok",
            Module::Helm => "helm",
            Module::ExternalProvisioner => "external-provisioner",
            Module::ExternalSnapshotter => "external-snapshotter",
            Module::CsiTest => "csi-test",
        }
    }

    fn first_build_takes(self) -> &'static str {
        match self {
            Module::Etcd => "about 1 min",
            Module::Versitygw => "about 3 min",
            Module::Kubernetes => "about 8 min",
            Module::Kwok => "about 2 min",
            Module::Helm => "about 4 min",
            Module::ExternalProvisioner => "about 2 min",
            Module::ExternalSnapshotter => "about 3 min",
            Module::CsiTest => "about 1 min",
        }
    }

    fn linker_flags(self) -> String {
        let strip = "-s -w";
        if self != Module::Kubernetes {
            return strip.to_owned();
        }
        let at = "-X k8s.io/component-base/version";
        format!("{strip} {at}.gitVersion=v1.36.3 {at}.gitMajor=1 {at}.gitMinor=36")
    }

    fn source(self) -> PathBuf {
        workspace_root().join("tests/tools").join(self.folder())
    }

    /// Names the build: the same pins and flags give the same name.
    fn build_id(self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for name in ["go.mod", "go.sum"] {
            let path = self.source().join(name);
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(&text);
        }
        hasher.update(self.linker_flags().as_bytes());
        hasher.update(std::env::consts::ARCH.as_bytes());
        let hex = hasher.finalize().to_hex();
        Ok(format!("{}-{}", self.folder(), &hex[..16]))
    }
}

/// Where each requested program is.
#[derive(Clone, Debug, Default)]
pub struct ToolPaths {
    paths: BTreeMap<Tool, PathBuf>,
}

impl ToolPaths {
    /// The program's path.
    ///
    /// # Errors
    /// When the tool was not among those that were asked for.
    pub fn get(&self, tool: Tool) -> Result<&Path> {
        let path = self.paths.get(&tool);
        path.map(PathBuf::as_path)
            .with_context(|| format!("{} was not asked for", tool.binary()))
    }
}

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root.pop();
    root
}

/// Returns the paths of `tools`, and builds those that are missing. What it
/// does goes to `progress`, one line at a time.
///
/// Callers in parallel, in this process or another, build once.
///
/// # Errors
/// When Go is not installed or a build fails.
pub fn ensure(tools: &[Tool], progress: &dyn Fn(&str)) -> Result<ToolPaths> {
    let mut found = ToolPaths::default();
    let mut missing: BTreeMap<Module, Vec<Tool>> = BTreeMap::new();
    for &tool in tools {
        if let Some(path) = kubebuilder_asset(tool) {
            found.paths.insert(tool, path);
        } else {
            missing.entry(tool.module()).or_default().push(tool);
        }
    }
    for (module, wanted) in missing {
        let folder = cache_folder()?.join(module.build_id()?);
        build_missing(module, &wanted, &folder, progress)?;
        for tool in wanted {
            found.paths.insert(tool, folder.join(tool.binary()));
        }
    }
    Ok(found)
}

/// [`ensure`] for async callers; progress goes to the log.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_async(tools: &[Tool]) -> Result<ToolPaths> {
    let tools = tools.to_vec();
    tokio::task::spawn_blocking(move || ensure(&tools, &|line| tracing::info!("{line}")))
        .await
        .context("the build of the test programs panicked")?
}

/// The folder with the definitions of the snapshot kinds, of a pinned module.
///
/// # Errors
/// When the module is not there and cannot be downloaded.
pub fn snapshot_definitions() -> Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Downloaded {
        #[serde(rename = "Dir")]
        folder: PathBuf,
    }
    let go = find_go(&std::env::var_os("PATH").unwrap_or_default())?;
    let output = Command::new(go)
        .args(["mod", "download", "-json", SNAPSHOT_DEFINITIONS])
        .env("GOWORK", "off")
        .current_dir(Module::ExternalSnapshotter.source())
        .output()
        .context("cannot run go")?;
    let module: Downloaded = serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("cannot have {SNAPSHOT_DEFINITIONS}: {said}")
    })?;
    Ok(module.folder.join("config/crd"))
}

fn kubebuilder_asset(tool: Tool) -> Option<PathBuf> {
    if !tool.is_kubebuilder_asset() {
        return None;
    }
    let folder = std::env::var_os(ASSETS_VARIABLE)?;
    let path = PathBuf::from(folder).join(tool.binary());
    path.is_file().then_some(path)
}

pub(crate) fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(CACHE_VARIABLE) {
        return Ok(folder.into());
    }
    if let Some(folder) = std::env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(folder).join("lifebuoy/tools"));
    }
    let home = std::env::home_dir()
        .with_context(|| format!("no home directory: set {CACHE_VARIABLE} to a folder"))?;
    Ok(home.join(".cache/lifebuoy/tools"))
}

fn absent(tools: &[Tool], folder: &Path) -> Vec<Tool> {
    let mut absent: Vec<Tool> = tools.to_vec();
    absent.sort();
    absent.dedup();
    absent.retain(|tool| !folder.join(tool.binary()).is_file());
    absent
}

fn build_missing(
    module: Module,
    wanted: &[Tool],
    folder: &Path,
    progress: &dyn Fn(&str),
) -> Result<()> {
    if absent(wanted, folder).is_empty() {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(".lock")).context("cannot make the build lock")?;
    if lock.try_lock().is_err() {
        progress(&format!("waiting for another build of {}", module.folder()));
        lock.lock().context("cannot take the build lock")?;
    }
    // Whoever held the lock may have built it.
    let absent = absent(wanted, folder);
    if absent.is_empty() {
        return Ok(());
    }
    build(module, &absent, folder, progress)
}

fn build(module: Module, tools: &[Tool], folder: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    let go = find_go(&std::env::var_os("PATH").unwrap_or_default())?;
    let names: Vec<&str> = tools.iter().map(|tool| tool.binary()).collect();
    let names = names.join(", ");
    let takes = module.first_build_takes();
    progress(&format!("building {names} ({takes} the first time)"));
    let started = Instant::now();

    // On the same file system as the goal, so that the renames are atomic.
    let stage = tempfile::Builder::new()
        .prefix(".stage-")
        .tempdir_in(folder)?;
    let output = match tools {
        [only] => stage.path().join(only.binary()).into_os_string(),
        _ => stage.path().join("").into_os_string(),
    };
    let log = folder.join("build.log");
    let mut spec = ProcessSpec::new("go build", go, &log)
        .args(["build", "-trimpath", "-ldflags"])
        .arg(module.linker_flags())
        .arg("-o")
        .arg(output)
        .env("GOWORK", "off")
        .directory(module.source());
    for tool in tools {
        spec = spec.arg(tool.package());
    }
    let mut process = Process::spawn(spec)?;
    let status = wait_loudly(&mut process, &names, started, progress)?;
    if !status.success() {
        bail!(
            "cannot build {names} in {}: {status}\n{}",
            module.source().display(),
            process.log_tail(LOG_TAIL_BYTES)
        );
    }
    for tool in tools {
        fs::rename(stage.path().join(tool.binary()), folder.join(tool.binary()))
            .with_context(|| format!("the build did not make {}", tool.binary()))?;
    }
    progress(&format!(
        "built {names} in {:.0} s",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn wait_loudly(
    process: &mut Process,
    names: &str,
    started: Instant,
    progress: &dyn Fn(&str),
) -> Result<ExitStatus> {
    while started.elapsed() < BUILD_LIMIT {
        if let Some(status) = process.wait_for(PROGRESS_INTERVAL)? {
            return Ok(status);
        }
        progress(&format!(
            "still building {names}, {:.0} s",
            started.elapsed().as_secs_f64()
        ));
    }
    bail!(
        "the build of {names} took longer than {} s",
        BUILD_LIMIT.as_secs()
    );
}

fn find_go(path: &OsStr) -> Result<PathBuf> {
    for folder in std::env::split_paths(path) {
        let candidate = folder.join("go");
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!(
        "the command `go` is not there, and test clusters are built from Go sources. \
         Install Go 1.26 or newer from https://go.dev/dl/ and put its bin folder on PATH, or set \
         {ASSETS_VARIABLE} to a folder with etcd, kube-apiserver and kubectl"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_pinned_module() {
        for tool in Tool::ALL.into_iter().chain(Tool::NODE) {
            let sums = fs::read_to_string(tool.module().source().join("go.sum")).unwrap();
            let repository: Vec<&str> = tool.package().split('/').take(2).collect();
            assert!(sums.contains(&repository.join("/")), "{tool:?}");
        }
    }

    #[test]
    fn without_go_the_error_says_what_to_install() {
        let error = find_go(OsStr::new("/nonexistent")).unwrap_err().to_string();
        assert!(
            error.contains("Install Go") && error.contains(ASSETS_VARIABLE),
            "{error}"
        );
    }

    #[test]
    fn builds_are_named_by_their_pins() {
        let kubernetes = Module::Kubernetes.build_id().unwrap();
        assert!(kubernetes.starts_with("kubernetes-"));
        assert_eq!(kubernetes, Module::Kubernetes.build_id().unwrap());
    }
}

//! Images made on this machine, without a registry: from the machine's busybox,
//! from Debian packages, and lifebuoy's own as the Containerfile lays it out.
//!
//! The layers below them are made once and kept beside the programs of the test
//! clusters, under a name derived from their recipe. They hold what the
//! machine's own release has in its packages: a program that was built here
//! runs on them.

mod containerfile;
mod debian;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::namespace::command;
use crate::tools::{cache_folder, workspace_root};

/// The usual small tools.
pub const BUSYBOX: &str = "docker.io/lifebuoy/busybox:test";
/// What holds a pod's namespaces.
pub const PAUSE: &str = "docker.io/lifebuoy/pause:test";
/// PostgreSQL and Redis, with their tools on the path.
pub const DATABASES: &str = "docker.io/lifebuoy/databases:test";
/// The operator.
pub const OPERATOR: &str = "docker.io/lifebuoy/lifebuoy:test";

/// Changed when the same recipe would make something else.
const RECIPE_VERSION: u32 = 1;
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What images are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// busybox under all of its names.
    Busybox,
    /// Debian with PostgreSQL and Redis.
    Databases,
    /// What the Containerfile's own base has.
    OperatorBase,
}

impl Layer {
    /// All of them.
    pub const ALL: [Layer; 3] = [Layer::Busybox, Layer::Databases, Layer::OperatorBase];

    fn name(self) -> &'static str {
        match self {
            Layer::Busybox => "busybox",
            Layer::Databases => "databases",
            Layer::OperatorBase => "operator-base",
        }
    }

    fn recipe(self) -> Result<Recipe> {
        Ok(match self {
            Layer::Busybox => Recipe::Busybox,
            Layer::Databases => Recipe::Debian(debian::System {
                release: debian::release()?,
                packages: ["postgresql", "redis-server", "procps"]
                    .map(str::to_owned)
                    .into(),
                links: Some("usr/lib/postgresql/*/bin".to_owned()),
            }),
            Layer::OperatorBase => Recipe::Debian(debian::System {
                release: debian::release()?,
                packages: containerfile::read()?.packages,
                links: None,
            }),
        })
    }
}

#[derive(Debug)]
enum Recipe {
    Busybox,
    Debian(debian::System),
}

impl Recipe {
    /// Names what it makes: the same recipe gives the same name.
    fn id(&self) -> String {
        let text = format!("{RECIPE_VERSION} {} {self:?}", std::env::consts::ARCH);
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }

    fn fill(&self, root: &Path) -> Result<()> {
        match self {
            Recipe::Busybox => fill_with_busybox(root),
            Recipe::Debian(system) => system.install(root),
        }
    }
}

/// A file that containerd imports.
#[derive(Clone, Debug)]
pub struct Archive {
    name: &'static str,
    path: PathBuf,
}

impl Archive {
    /// How pods call the image.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A layer's file, and the digest that names it.
struct Tar {
    path: PathBuf,
    digest: String,
}

/// Makes a layer if it is missing. Callers in parallel make it once.
///
/// # Errors
/// When a package cannot be installed.
pub fn ensure(layer: Layer, progress: &dyn Fn(&str)) -> Result<()> {
    let recipe = layer.recipe()?;
    let folder = folder(layer, &recipe)?;
    let (tar, digest) = (folder.join("layer.tar"), folder.join("digest"));
    if digest.is_file() {
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock()
        .context("cannot wait for another who makes the layer")?;
    if digest.is_file() {
        return Ok(());
    }
    progress(&format!("making the image layer {}", layer.name()));
    let root = folder.join("root");
    // From one that was cut off.
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir(&root)?;
    recipe.fill(&root)?;
    pack(&root, &tar)?;
    fs::remove_dir_all(&root)?;
    // Written last: a layer without it is not complete.
    fs::write(&digest, sha256(&tar)?)?;
    Ok(())
}

fn folder(layer: Layer, recipe: &Recipe) -> Result<PathBuf> {
    let name = format!("layer-{}-{}", layer.name(), recipe.id());
    Ok(cache_folder()?.join(name))
}

fn tar(layer: Layer) -> Result<Tar> {
    let folder = folder(layer, &layer.recipe()?)?;
    let digest = fs::read_to_string(folder.join("digest"))
        .with_context(|| format!("the layer {} is none of the run's needs", layer.name()))?;
    Ok(Tar {
        path: folder.join("layer.tar"),
        digest,
    })
}

/// Packs a folder as a layer, with owners as they are.
fn pack(root: &Path, tar: &Path) -> Result<()> {
    let words = [
        "--create",
        "--numeric-owner",
        "--xattrs",
        "--sort=name",
        "--file",
    ];
    let words = words.iter().map(AsRef::as_ref);
    let place = ["--directory".as_ref(), root.as_os_str(), ".".as_ref()];
    command("tar", words.chain([tar.as_os_str()]).chain(place))?;
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn fill_with_busybox(root: &Path) -> Result<()> {
    for folder in ["bin", "etc", "root", "tmp"] {
        fs::create_dir(root.join(folder))?;
    }
    command("chmod", ["1777".as_ref(), root.join("tmp").as_os_str()])?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    for tool in command("/bin/busybox", ["--list"])?.lines() {
        if tool != "busybox" {
            symlink("busybox", root.join("bin").join(tool))?;
        }
    }
    Ok(())
}

/// The image [`BUSYBOX`], made below `folder`.
///
/// # Errors
/// When the layer is not there, or the disk is full.
pub fn busybox(folder: &Path) -> Result<Archive> {
    let config = json!({"Env": [PATH], "Cmd": ["sh"]});
    archive(BUSYBOX, &[tar(Layer::Busybox)?], config, folder)
}

/// The image [`PAUSE`], made below `folder`.
pub(super) fn pause(folder: &Path) -> Result<Archive> {
    let config = json!({"Env": [PATH], "Cmd": ["sleep", "2147483647"]});
    archive(PAUSE, &[tar(Layer::Busybox)?], config, folder)
}

/// The image [`DATABASES`], made below `folder`. It starts nothing by itself.
///
/// # Errors
/// As [`busybox`].
pub fn databases(folder: &Path) -> Result<Archive> {
    let config = json!({"Env": [PATH], "Cmd": ["sh"]});
    archive(DATABASES, &[tar(Layer::Databases)?], config, folder)
}

/// The image [`OPERATOR`], made below `folder`: the last stage of the
/// Containerfile, with the programs of the folder `binaries`.
///
/// # Errors
/// When a program is not there, or the Containerfile says what this does not
/// understand.
pub fn operator(binaries: &Path, folder: &Path) -> Result<Archive> {
    let stage = containerfile::read()?;
    let root = folder.join("operator-root");
    let programs = root.join(stage.programs.trim_matches('/'));
    fs::create_dir_all(&programs)?;
    for program in ["lifebuoy", "kubectl-lifebuoy"] {
        let from = binaries.join(program);
        fs::copy(&from, programs.join(program))
            .with_context(|| format!("cannot copy {}: is it built?", from.display()))?;
    }
    let path = folder.join("operator-programs.tar");
    pack(&root, &path)?;
    fs::remove_dir_all(&root)?;
    let digest = sha256(&path)?;
    let layers = [tar(Layer::OperatorBase)?, Tar { path, digest }];
    let mut config = stage.config;
    config["Env"] = json!([PATH]);
    archive(OPERATOR, &layers, config, folder)
}

/// Puts layers and a configuration into one file, as `docker save` does.
fn archive(name: &'static str, layers: &[Tar], config: Value, folder: &Path) -> Result<Archive> {
    let digests = layers
        .iter()
        .map(|layer| format!("sha256:{}", layer.digest));
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests.collect::<Vec<_>>()},
    });
    let files = tempfile::tempdir_in(folder)?;
    fs::write(files.path().join("config.json"), config.to_string())?;
    let mut names = Vec::new();
    for layer in layers {
        let file = format!("{}.tar", layer.digest);
        symlink(&layer.path, files.path().join(&file))?;
        names.push(file);
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
    fs::write(files.path().join("manifest.json"), manifest.to_string())?;
    let last = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
    let path = folder.join(format!("{last}.image"));
    let words = ["--create", "--dereference", "--file"]
        .iter()
        .map(AsRef::as_ref);
    let place = [
        "--directory".as_ref(),
        files.path().as_os_str(),
        ".".as_ref(),
    ];
    command("tar", words.chain([path.as_os_str()]).chain(place))?;
    Ok(Archive { name, path })
}

/// The machine's architecture, as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The Containerfile of the repository.
fn containerfile_path() -> PathBuf {
    workspace_root().join("Containerfile")
}

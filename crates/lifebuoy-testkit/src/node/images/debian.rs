//! Debian in a folder: the machine's own release, from its own mirror.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

use crate::namespace::command;

/// What a container never looks at.
const UNUSED: [&str; 6] = [
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
];

/// A small Debian with some packages.
#[derive(Debug)]
pub(super) struct System {
    /// Its code name.
    pub(super) release: String,
    pub(super) packages: Vec<String>,
    /// A folder (its name may have a `*`) whose programs are to be found in
    /// `/usr/local/bin` too.
    pub(super) links: Option<String>,
}

/// The code name of the machine's release.
pub(super) fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("this machine is no Debian")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(str::to_owned)
        .context("this machine's release has no code name")
}

impl System {
    pub(super) fn install(&self, root: &Path) -> Result<()> {
        let mirror = mirror(&self.release)?;
        let include = format!("--include={}", self.packages.join(","));
        // Its mounts go with its namespaces, also when it is killed.
        let words = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let words = words
            .into_iter()
            .chain(["debootstrap", "--variant=minbase", &include]);
        let place = [
            OsStr::new(&self.release),
            root.as_os_str(),
            OsStr::new(&mirror),
        ];
        command("unshare", words.map(OsStr::new).chain(place)).with_context(|| {
            format!("cannot install {} from {mirror}", self.packages.join(", "))
        })?;
        for folder in UNUSED {
            empty(&root.join(folder))?;
        }
        if let Some(pattern) = &self.links {
            link_programs(root, pattern)?;
        }
        Ok(())
    }
}

/// Where the machine itself gets its packages.
fn mirror(release: &str) -> Result<String> {
    let words = [
        "indextargets",
        "--format",
        "$(CODENAME) $(COMPONENT) $(REPO_URI)",
    ];
    let listed = command("apt-get", words)?;
    let wanted = format!("{release} main ");
    listed
        .lines()
        .find_map(|line| line.strip_prefix(&wanted))
        .map(str::to_owned)
        .with_context(|| format!("apt knows no mirror of {release}: run apt-get update"))
}

fn empty(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir(folder)?;
    Ok(())
}

fn link_programs(root: &Path, pattern: &str) -> Result<()> {
    let shell = format!("ls -d \"$1\"/{pattern}/*");
    let words = [
        "-c".as_ref(),
        shell.as_ref(),
        "sh".as_ref(),
        root.as_os_str(),
    ];
    for program in command("sh", words)?.lines() {
        let program = Path::new(program);
        let name = program.file_name().context("a program without a name")?;
        let inside = Path::new("/").join(program.strip_prefix(root)?);
        symlink(inside, root.join("usr/local/bin").join(name))?;
    }
    Ok(())
}

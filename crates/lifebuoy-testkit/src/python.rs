//! The Python interpreter of the independent reader (`tests/reader/`), in an
//! environment with the packages that it pins.
//!
//! The environment is made once and kept beside the programs of the test
//! clusters, under a name derived from the pins. It never installs a package
//! without a pinned hash, and touches no other environment.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{Process, ProcessSpec};
use crate::tools::{cache_folder, workspace_root};

/// Downloading and unpacking a few wheels that takes longer than this hangs.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
/// How much of pip's output an error quotes, in bytes.
const LOG_TAIL_BYTES: usize = 2000;
/// What makes an environment, beside Python itself.
const MODULES: &str = "import ensurepip, sys, venv; \
    print(*sys.version_info[:3], sys.implementation.name, sys.base_prefix)";

/// The folder of the reader, the golden writer and their tests.
pub fn reader_folder() -> PathBuf {
    workspace_root().join("tests/reader")
}

/// The interpreter of an environment with the reader's packages, made if it is
/// missing. What it does goes to `progress`, one line at a time.
///
/// Callers in parallel, in this process or another, make it once.
///
/// # Errors
/// When Python or its modules `venv` and `ensurepip` are not installed, or a
/// package cannot be. The text says what to install.
pub fn ensure_python(progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let requirements = reader_folder().join("requirements.txt");
    let base = find_python(&std::env::var_os("PATH").unwrap_or_default())?;
    let version = check_modules(&base)?;
    let folder = cache_folder()?.join(name(&requirements, &version)?);
    let interpreter = folder.join("environment/bin/python");
    // Written last: an environment without it is one whose making was cut off.
    let complete = folder.join("complete");
    if complete.is_file() {
        return Ok(interpreter);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(".lock")).context("cannot make the lock")?;
    if lock.try_lock().is_err() {
        progress("waiting for another one who makes the Python environment");
        lock.lock().context("cannot take the lock")?;
    }
    // Whoever held the lock may have made it.
    if !complete.is_file() {
        progress("making the Python environment of the reader (about 10 s the first time)");
        make(&base, &folder, &interpreter, &requirements)?;
        File::create(&complete).context("cannot say that the environment is complete")?;
    }
    Ok(interpreter)
}

fn make(base: &Path, folder: &Path, interpreter: &Path, requirements: &Path) -> Result<()> {
    let log = folder.join("install.log");
    let environment = folder.join("environment");
    // --clear: it begins anew after one that was cut off.
    let venv = ProcessSpec::new("python3 -m venv", base, &log)
        .args(["-m", "venv", "--clear"])
        .arg(environment);
    run(
        venv,
        "install Python's venv (Debian: apt-get install python3-venv)",
    )?;
    let pip = ProcessSpec::new("pip install", interpreter, &log)
        .args(["-m", "pip", "install", "--disable-pip-version-check"])
        .args([
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--requirement",
        ])
        .arg(requirements);
    run(
        pip,
        "the reader needs Python 3.11 or newer and its packages from the Python Package Index: \
         check the connection, or point pip to a mirror with PIP_INDEX_URL",
    )
}

fn run(spec: ProcessSpec, hint: &str) -> Result<()> {
    let mut process = Process::spawn(spec)?;
    let status = process.wait_for(INSTALL_LIMIT)?;
    let name = process.name();
    let Some(status) = status else {
        bail!("{name} took longer than {} s", INSTALL_LIMIT.as_secs());
    };
    ensure!(
        status.success(),
        "{name}: {status}\n{}\nhint: {hint}",
        process.log_tail(LOG_TAIL_BYTES)
    );
    Ok(())
}

fn find_python(path: &OsStr) -> Result<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join("python3"))
        .find(|candidate| candidate.is_file())
        .context(
            "the command `python3` is not there, and the independent reader of repositories needs \
             it. Install Python 3.11 or newer with venv (Debian: apt-get install python3 \
             python3-venv)",
        )
}

/// The version, if all modules are there. Debian has them in a package of
/// their own, and `python3 -m venv` would leave half an environment.
fn check_modules(python: &Path) -> Result<Vec<u8>> {
    let output = Command::new(python)
        .args(["-c", MODULES])
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    ensure!(
        output.status.success(),
        "{} cannot make environments for the independent reader of repositories: {}\nhint: \
         install Python's venv (Debian: apt-get install python3-venv)",
        python.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

/// Names the environment: the same pins and the same Python give the same name.
fn name(requirements: &Path, version: &[u8]) -> Result<String> {
    let pins = fs::read(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(pins.len() as u64).to_le_bytes());
    hasher.update(&pins);
    hasher.update(version);
    hasher.update(std::env::consts::ARCH.as_bytes());
    Ok(format!("python-{}", &hasher.finalize().to_hex()[..16]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn without_python_the_error_says_what_to_install() {
        let error = find_python(OsStr::new("/nonexistent")).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("apt-get install python3 python3-venv"),
            "{said}"
        );
    }

    #[test]
    fn without_venv_the_error_says_what_to_install() {
        // As on a fresh Debian: Python is there, and one of its modules is not.
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python3");
        let script = "#!/bin/sh\necho \"No module named 'ensurepip'\" >&2\nexit 1\n";
        fs::write(&python, script).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        let said = check_modules(&python).unwrap_err().to_string();
        assert!(said.contains("No module named 'ensurepip'"), "{said}");
        assert!(said.contains("apt-get install python3-venv"), "{said}");
    }

    #[test]
    fn every_package_is_pinned_with_its_hash() {
        let pins = fs::read_to_string(reader_folder().join("requirements.txt")).unwrap();
        let packages = pins
            .lines()
            .filter(|line| line.starts_with(char::is_alphabetic));
        let mut count = 0;
        for package in packages {
            assert!(package.contains("=="), "{package}");
            count += 1;
        }
        assert!(count >= 4 && pins.matches("--hash=sha256:").count() > count);
    }

    #[test]
    fn environments_are_named_by_their_pins_and_their_python() {
        let requirements = reader_folder().join("requirements.txt");
        let one = name(&requirements, b"3.11").unwrap();
        assert_eq!(one, name(&requirements, b"3.11").unwrap());
        assert_ne!(one, name(&requirements, b"3.13").unwrap());
    }
}

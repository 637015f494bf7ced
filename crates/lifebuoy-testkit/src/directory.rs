//! The folder of one test: data, credentials and logs of what it starts.
//! Never outside its root.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace;
use crate::tools::workspace_root;

/// Set to anything, it keeps the folders of tests that pass too.
const KEEP_VARIABLE: &str = "LIFEBUOY_KEEP";

/// How long the logs of a failed test stay.
const LOGS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// A folder `target/testkit/<test>-<pid>-<n>`; inside of a
/// [namespace], below the folder of its run.
///
/// A test that gets to its end says so with [`TestDirectory::passed`], and
/// all of it goes. Dropped without that, the logs stay for a day; dropped in a
/// panic, or with `LIFEBUOY_KEEP` set, everything stays.
#[derive(Debug)]
#[must_use = "dropping it empties the folder"]
pub struct TestDirectory {
    path: PathBuf,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    OnlyLogs,
    Removed,
}

impl TestDirectory {
    /// Makes a new folder, named after `test` and the test's thread.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(test: &str) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let thread = std::thread::current();
        let running = thread
            .name()
            .filter(|name| !matches!(*name, "main" | "tokio-rt-worker"));
        let name = match running {
            Some(running) => format!("{}.{test}", running.replace("::", ".")),
            None => test.to_owned(),
        };
        let root = root();
        if number == 1 && namespace::folder().is_none() {
            remove_old(&root);
        }
        let path = root.join(format!("{name}-{process}-{number}"));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let fate = match Self::keeps_everything() {
            true => Fate::Kept,
            false => Fate::OnlyLogs,
        };
        Ok(Self { path, fate })
    }

    /// Uses `path` as it is and leaves it there, as the demo does.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn kept(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        // Components run with this folder as theirs.
        Ok(Self {
            path: path.canonicalize()?,
            fate: Fate::Kept,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the user wants to see everything afterwards.
    pub(crate) fn keeps_everything() -> bool {
        std::env::var_os(KEEP_VARIABLE).is_some()
    }

    /// Dropping it leaves everything as it is.
    pub(crate) fn keep(&mut self) {
        self.fate = Fate::Kept;
    }

    /// Nobody will ask for the logs: dropping it removes all of it.
    pub fn passed(&mut self) {
        if self.fate == Fate::OnlyLogs {
            self.fate = Fate::Removed;
        }
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        if self.fate == Fate::Kept || std::thread::panicking() {
            return;
        }
        // A leftover below target/ harms nobody, so errors do not count.
        let _ = match self.fate {
            Fate::Removed => fs::remove_dir_all(&self.path),
            Fate::Kept | Fate::OnlyLogs => remove_all_but_logs(&self.path),
        };
    }
}

fn remove_all_but_logs(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else if path.extension() != Some(OsStr::new("log")) {
            fs::remove_file(path)?;
        }
    }
    // Goes only if no log is left in it.
    let _ = fs::remove_dir(folder);
    Ok(())
}

fn remove_old(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        if age.is_some_and(|age| age > LOGS_KEPT) {
            // It may be another test run's that removes it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Below which folder tests put what they make. Inside of a namespace, process
/// ids say nothing, and each run has a folder of its own.
pub fn root() -> PathBuf {
    namespace::folder().unwrap_or_else(|| target_folder().join("testkit"))
}

fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace_root().join(folder),
        None => workspace_root().join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_stay_until_the_test_has_passed() {
        let failed = TestDirectory::new("failed").unwrap();
        let folder = failed.path().to_owned();
        fs::write(folder.join("a.log"), "why").unwrap();
        fs::create_dir(folder.join("data")).unwrap();
        drop(failed);
        assert!(folder.join("a.log").exists() && !folder.join("data").exists());

        let mut passed = TestDirectory {
            path: folder.clone(),
            fate: Fate::OnlyLogs,
        };
        passed.passed();
        drop(passed);
        assert!(!folder.exists());
    }
}

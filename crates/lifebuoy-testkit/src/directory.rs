//! The folder of one test: data, credentials and logs of what it starts.
//! Removed at the end, unless the test failed. Never outside its root.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use crate::tools::workspace_root;

/// Set to anything, it keeps the folders of tests that pass too.
const KEEP_VARIABLE: &str = "LIFEBUOY_KEEP";

/// A folder `target/testkit/<test>-<pid>-<n>`.
#[derive(Debug)]
#[must_use = "dropping it removes the folder"]
pub struct TestDirectory {
    path: PathBuf,
    keep: bool,
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
            .filter(|name| !matches!(*name, "main" | "tokio-runtime-worker"));
        let name = match running {
            Some(running) => format!("{}.{test}", running.replace("::", ".")),
            None => test.to_owned(),
        };
        let root = target_folder().join("testkit");
        let path = root.join(format!("{name}-{process}-{number}"));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let keep = std::env::var_os(KEEP_VARIABLE).is_some();
        Ok(Self { path, keep })
    }

    /// Uses `path` as it is and leaves it there, as the demo does.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn kept(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, keep: true })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if std::thread::panicking() {
            tracing::warn!("logs kept in {}", self.path.display());
            return;
        }
        // A leftover folder below target/ harms nobody.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace_root().join(folder),
        None => workspace_root().join("target"),
    }
}

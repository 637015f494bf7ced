//! Child processes that never outlive this one.
//!
//! Each child has a process group of its own and writes to a log file. It is
//! killed when its [`Process`] is dropped, and by the kernel when this process
//! ends in any other way (a signal, an abort, `kill -9`). It never installs
//! signal handlers.

mod deathsig;
mod usage;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

pub use usage::Usage;

/// How often a wait looks at the child.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What to start, and where its output goes.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    log: PathBuf,
}

impl ProcessSpec {
    /// A process called `name` in messages, with stdout and stderr appended
    /// to the file `log`.
    pub fn new(
        name: impl Into<String>,
        program: impl Into<PathBuf>,
        log: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            environment: Vec::new(),
            directory: None,
            log: log.into(),
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable on top of those of this process.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    fn command(&self) -> Result<Command> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open the log {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        deathsig::die_with_parent(&mut command);
        Ok(command)
    }
}

/// A running child. Dropping it kills the child and all of its group.
#[derive(Debug)]
#[must_use = "dropping it kills the process"]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts the child.
    ///
    /// # Errors
    /// When the program is not there, or its log cannot be written.
    pub fn spawn(spec: ProcessSpec) -> Result<Self> {
        let command = spec.command()?;
        let child = spawn_on_lasting_thread(command)
            .with_context(|| format!("cannot start {} ({})", spec.name, spec.program.display()))?;
        Ok(Self {
            name: spec.name,
            log: spec.log,
            child,
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, which is the id of its group too.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it ends, at most `limit`; `None` if it still runs then.
    /// Blocks the thread.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn wait_for(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exited()? {
                return Ok(Some(status));
            }
            if started.elapsed() >= limit {
                return Ok(None);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits as [`Process::wait_for`] does, without blocking the thread.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub async fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exited()? {
                return Ok(Some(status));
            }
            if started.elapsed() >= limit {
                return Ok(None);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Fails with the end of the log if the child has ended.
    ///
    /// # Errors
    /// When it is not running any more.
    pub fn check_running(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended with {status}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.log_tail(2000)
            ),
        }
    }

    /// Sends SIGTERM to the child alone, as a kubelet does.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// Stops the child where it is (SIGSTOP), for tests of a hanging process.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// Lets a paused child go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    fn signal(&mut self, signal: libc::c_int) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!("{} has ended already: {status}", self.name);
        }
        deathsig::send(self.pid(), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Sends SIGKILL to the whole group and waits for the child's end.
    pub fn kill(&mut self) {
        // After the child was reaped, its id may belong to someone else.
        if let Ok(None) = self.child.try_wait() {
            // It may end between the two calls: then there is nothing to do.
            let _ = deathsig::send_to_group(self.pid(), libc::SIGKILL);
            let _ = self.child.wait();
        }
    }

    /// Sends SIGTERM, waits at most `grace`, then kills. The exit status is
    /// `None` if it had to be killed.
    ///
    /// # Errors
    /// When the kernel refuses to say how it ended.
    pub async fn stop(mut self, grace: Duration) -> Result<Option<ExitStatus>> {
        if self.exited()?.is_none() {
            self.terminate()?;
        }
        let status = self.ended_within(grace).await?;
        self.kill();
        Ok(status)
    }

    /// Processor time and memory of the child.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid()).with_context(|| format!("no figures of {}", self.name))
    }

    /// Makes the peak memory count from now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn reset_peak_memory(&self) -> Result<()> {
        usage::reset_peak(self.pid())
    }

    /// The last `bytes` of the log, as text.
    pub fn log_tail(&self, bytes: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let from = text.len().saturating_sub(bytes);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end with `input` as its standard input, and returns
/// what it printed. Dropping the future kills it.
///
/// # Errors
/// When it cannot be started.
pub(crate) async fn output(mut command: Command, input: &str) -> Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    deathsig::die_with_parent(&mut command);
    let mut child = spawn_on_lasting_thread(command)?;
    let guard = KillGroup(child.id());
    let mut stdin = child
        .stdin
        .take()
        .context("the child has no standard input")?;
    let input = input.to_owned();
    let feed = thread::spawn(move || {
        // A program that ends without reading its input says why itself.
        let _ = stdin.write_all(input.as_bytes());
    });
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = ended.await.context("waiting for a program panicked")??;
    // It has ended: its id may be another's soon.
    std::mem::forget(guard);
    feed.join()
        .map_err(|_| anyhow!("writing to a program panicked"))?;
    Ok(output)
}

struct KillGroup(u32);

impl Drop for KillGroup {
    fn drop(&mut self) {
        // Nothing is left to do if it has just ended.
        let _ = deathsig::send_to_group(self.0, libc::SIGKILL);
    }
}

type SpawnRequest = (Command, Sender<std::io::Result<Child>>);

/// The kernel sends the death signal when the *thread* that forked ends, and
/// test threads end with their test: so one thread that never ends forks all.
fn spawn_on_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<std::sync::Mutex<Sender<SpawnRequest>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, queue) = channel::<SpawnRequest>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // The caller waits for the answer, so it is there.
                let _ = answer.send(command.spawn());
            }
        });
        std::sync::Mutex::new(requests)
    });
    let (answer, child) = channel();
    spawner
        .lock()
        .map_err(|_| anyhow!("a thread panicked while it started a process"))?
        .send((command, answer))
        .map_err(|_| anyhow!("the thread that starts processes has ended"))?;
    Ok(child
        .recv()
        .context("the thread that starts processes has ended")??)
}

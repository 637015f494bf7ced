//! Tests, and other programs, in namespaces of their own: where a real node runs.
//!
//! A kubelet, a containerd and their pods need root, and leave mounts, bridges
//! and processes behind. So a test with a node runs this program once more,
//! with a network, mount and process namespace of its own, and does its work
//! there. When the first process of a namespace ends, in whichever way, the
//! kernel ends all others, and with the last the mounts and bridges go. What
//! outlives them even so (loop devices, control groups), [`leftovers`] removes:
//! after the run, and before the next one for a run that was killed. The
//! [`slot`] of a run tells what is its from what is others', which go on at the
//! same time.
//!
//! The machine's own mounts, network and kernel settings are never changed.

pub(crate) mod control_groups;
mod leftovers;
mod requirements;
mod slot;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::directory::{self, TestDirectory};
use crate::node::images::{self, Layer};
use crate::process::{Process, ProcessSpec};
use crate::tools::{self, Tool};
use slot::Slot;

pub use control_groups::of_node as control_group;
pub use requirements::{in_ci, install_missing, missing};

/// Where it is set, this process is inside; it names the folder of the run.
const FOLDER_VARIABLE: &str = "LIFEBUOY_NAMESPACE";
/// In the folder of a run, that of the nodes' data.
const DATA: &str = "data";
/// A run that takes longer than this hangs.
const RUN_LIMIT: Duration = Duration::from_secs(3600);
/// How often the output of a run is looked for.
const OUTPUT_POLL: Duration = Duration::from_millis(100);
/// How much of a failed run's output its error quotes, in bytes.
const LOG_TAIL_BYTES: usize = 8000;
/// The address at which pods reach what the test starts.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 95, 0, 1);
/// Where the data of nodes is found, under a path short enough for sockets.
pub(crate) const NODES: &str = "/run/node";

/// What the kubelet wants of the kernel. It would set it for the whole machine:
/// so inside, files that say so cover the real ones.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// What is made before a run, since inside there is no network to get it.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Programs on top of those of a cluster with a node.
    pub tools: Vec<Tool>,
    /// What images are made of.
    pub layers: Vec<Layer>,
}

/// Runs a test inside namespaces of its own. Called by the test itself, and
/// once more by itself inside: it finds it by the name of its thread.
///
/// Where the machine cannot run a node, the test passes with a line that says
/// what is missing; it fails in CI.
///
/// # Errors
/// When the test fails; the text has the end of its output.
pub fn test(needs: &Needs, story: impl FnOnce() -> Result<()>) -> Result<()> {
    if is_inside() {
        set_up()?;
        return story();
    }
    let name = std::thread::current()
        .name()
        .context("a test without a name cannot be found inside")?
        .to_owned();
    if let Some(missing) = missing() {
        ensure!(!in_ci(), "{name} cannot run: {missing}");
        requirements::say_skipped(&name, &missing);
        return Ok(());
    }
    prepare(needs, &|line| tracing::info!("{line}"))?;
    let arguments = ["--exact", &name, "--nocapture"];
    let ended = run(&arguments.map(OsString::from), RUN_LIMIT, None)?;
    ended.with_tail()
}

/// Runs this whole program once more, with its arguments, inside namespaces of
/// its own: there, and only there, `story` runs. Called by the program itself,
/// and once more by itself inside. What it prints inside goes to `say`, a line at
/// a time; outside, so does what is made before.
///
/// # Errors
/// Where the machine cannot run a node, in one line; and when the story fails or
/// takes longer than `limit`. Its output has said why.
pub fn program(
    needs: &Needs,
    limit: Duration,
    say: &dyn Fn(&str),
    story: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if is_inside() {
        set_up()?;
        return story();
    }
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    prepare(needs, say)?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    run(&arguments, limit, Some(say))?.without_tail()
}

/// Whether this process is inside.
pub fn is_inside() -> bool {
    folder().is_some()
}

/// The folder of the run, if this process is inside one.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from)
}

/// The name of the files that the Block volumes of this run are: what is over one of them
/// is this run's.
///
/// # Errors
/// When this process is not inside.
pub fn disk_name() -> Result<String> {
    slot::inside().map(leftovers::disk_name)
}

/// The address on which what this process starts is reached by its clients:
/// inside, by pods too.
pub fn address() -> Ipv4Addr {
    match folder() {
        Some(_) => HOST,
        None => Ipv4Addr::LOCALHOST,
    }
}

fn prepare(needs: &Needs, progress: &dyn Fn(&str)) -> Result<()> {
    let tools = [&Tool::CLUSTER[..], &Tool::NODE, &needs.tools].concat();
    tools::ensure(&tools, progress)?;
    tools::snapshot_definitions()?;
    for layer in [Layer::Busybox].iter().chain(&needs.layers) {
        images::ensure(*layer, progress)?;
    }
    Ok(())
}

/// How a run has ended.
struct Ended {
    /// Its status, if it had one in time.
    status: Option<ExitStatus>,
    limit: Duration,
    /// The end of its output.
    tail: String,
    /// Where all of it is.
    logs: PathBuf,
}

impl Ended {
    fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Its failure, with the end of its output.
    fn with_tail(self) -> Result<()> {
        let tail = self.tail.clone();
        let logs = self.logs.display().to_string();
        let failed = || format!("the test failed inside; all logs are in {logs}");
        match self.outcome() {
            Ok(()) => Ok(()),
            Err(error) => Err(anyhow!("{error}:\n{tail}")).with_context(failed),
        }
    }

    /// Its failure, for those who have seen its output.
    fn without_tail(self) -> Result<()> {
        let logs = self.logs.display().to_string();
        self.outcome()
            .with_context(|| format!("it failed inside; all logs are in {logs}"))
    }

    fn outcome(self) -> Result<()> {
        match self.status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{status}"),
            None => bail!("not at its end after {} s", self.limit.as_secs()),
        }
    }
}

/// Runs this program inside, to its end, and tells its output where it is wanted.
fn run(arguments: &[OsString], limit: Duration, say: Option<&dyn Fn(&str)>) -> Result<Ended> {
    let program = std::env::current_exe()?;
    let slot = Slot::take()?;
    remove_data_of_killed_runs(&slot)?;
    let mut directory = TestDirectory::new(&run_in(&slot))?;
    let data = directory.path().join(DATA);
    fs::create_dir_all(&data)?;
    // A shell is the first process: it reaps those whose parents have ended.
    let spec = ProcessSpec::new("unshare", "unshare", directory.path().join("run.log"))
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "--propagation", "private"])
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(&program)
        .args(arguments)
        .env(FOLDER_VARIABLE, directory.path())
        .env(slot::VARIABLE, slot.number().to_string());
    let ended = end_of(Process::spawn(spec)?, limit, say, directory.path());
    leftovers::remove(slot.number())?;
    if !TestDirectory::keeps_everything() {
        fs::remove_dir_all(&data).context("cannot remove the data of the nodes")?;
    }
    match &ended {
        Ok(ended) if ended.is_success() => directory.passed(),
        _ => directory.keep(),
    }
    ended
}

/// Names the folder of a run.
fn run_in(slot: &Slot) -> String {
    format!("namespace-{}", slot.number())
}

/// Gigabytes of images, of which nobody reads the rest.
fn remove_data_of_killed_runs(slot: &Slot) -> Result<()> {
    let run = run_in(slot);
    if TestDirectory::keeps_everything() {
        return Ok(());
    }
    for entry in fs::read_dir(directory::root())
        .into_iter()
        .flatten()
        .flatten()
    {
        let data = entry.path().join(DATA);
        let of_a_run = entry.file_name().to_string_lossy().contains(&run);
        if of_a_run && data.is_dir() {
            fs::remove_dir_all(&data).context("cannot remove the data of a killed run")?;
        }
    }
    Ok(())
}

fn end_of(
    mut process: Process,
    limit: Duration,
    say: Option<&dyn Fn(&str)>,
    logs: &Path,
) -> Result<Ended> {
    let status = match say {
        None => process.wait_for(limit)?,
        Some(say) => wait_and_tell(&mut process, limit, say)?,
    };
    process.kill();
    Ok(Ended {
        status,
        limit,
        tail: process.log_tail(LOG_TAIL_BYTES),
        logs: logs.to_owned(),
    })
}

/// Waits for the end of a process, and tells each line of its log meanwhile.
fn wait_and_tell(
    process: &mut Process,
    limit: Duration,
    say: &dyn Fn(&str),
) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut log = File::open(process.log()).context("the run has no log")?;
    let mut text = Vec::new();
    loop {
        // In this order: what is read after its end, is all.
        let status = process.wait_for(OUTPUT_POLL)?;
        log.read_to_end(&mut text)?;
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            say(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        }
        if status.is_some() || started.elapsed() > limit {
            return Ok(status);
        }
    }
}

/// Makes the namespaces habitable. The test's first step inside.
fn set_up() -> Result<()> {
    let folder = folder().context("not inside")?;
    // Pods may ask for mounts that follow those of the node.
    command("mount", ["--make-rshared", "/"])?;
    // State that programs keep at fixed places: sockets, logs, addresses.
    fs::create_dir_all("/var/lib/cni")?;
    for place in ["/run", "/var/log", "/var/lib/cni"] {
        command("mount", ["-t", "tmpfs", "-o", "mode=0755", "tmpfs", place])?;
    }
    for (setting, value) in KERNEL_SETTINGS {
        let says = Path::new("/run").join(setting.replace('/', "-"));
        fs::write(&says, format!("{value}\n"))?;
        let covered = Path::new("/proc/sys").join(setting);
        command(
            "mount",
            ["--bind".as_ref(), says.as_os_str(), covered.as_os_str()],
        )?;
    }
    fs::create_dir_all(NODES)?;
    let data = folder.join(DATA);
    command(
        "mount",
        ["--bind".as_ref(), data.as_os_str(), NODES.as_ref()],
    )?;
    command("ip", ["link", "set", "lo", "up"])?;
    add_address(HOST)
}

/// Gives this network namespace one more address of its own.
pub(crate) fn add_address(address: Ipv4Addr) -> Result<()> {
    command(
        "ip",
        ["address", "add", &format!("{address}/32"), "dev", "lo"],
    )?;
    Ok(())
}

/// Runs a tool of the machine to its end and gives what it printed. Blocks.
pub(crate) fn command<A: AsRef<std::ffi::OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

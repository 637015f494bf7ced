//! The node of the testkit, tried on itself. These tests need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lifebuoy_csi_testdriver::{Driver, DriverOptions};
use lifebuoy_testkit::namespace::{self, Needs};
use lifebuoy_testkit::{Process, ProcessSpec, TestDirectory, Tool, tools};

/// The conformance suite takes some seconds.
const SUITE_LIMIT: Duration = Duration::from_secs(300);

#[test]
fn the_test_driver_does_for_filesystems_what_csi_says() -> Result<()> {
    conformance("mount")
}

#[test]
fn the_test_driver_does_for_block_devices_what_csi_says() -> Result<()> {
    conformance("block")
}

/// Runs the conformance suite of CSI on volumes of this access type.
fn conformance(access: &str) -> Result<()> {
    namespace::test(&Needs::default(), || {
        let runtime = tokio::runtime::Runtime::new()?;
        let mut directory = TestDirectory::new(&format!("sanity-{access}"))?;
        // Short: sockets have no long names.
        let folder = Path::new("/run/sanity");
        fs::create_dir_all(folder)?;
        let socket = folder.join("csi.sock");
        let driver = runtime.block_on(Driver::serve(DriverOptions {
            name: "sanity.csi.lifebuoy.dev".to_owned(),
            node: "sanity".to_owned(),
            folder: folder.join("storage"),
            disk_name: namespace::disk_name()?,
            socket: socket.clone(),
            registration: None,
        }))?;
        let tools = tools::ensure(&[Tool::CsiSanity], &|_| ())?;
        let log = directory.path().join("csi-sanity.log");
        let suite = ProcessSpec::new("csi-sanity", tools.get(Tool::CsiSanity)?, log)
            .arg(format!("--csi.endpoint=unix://{}", socket.display()))
            .arg(format!(
                "--csi.mountdir={}",
                folder.join("mounts").display()
            ))
            .arg(format!(
                "--csi.stagingdir={}",
                folder.join("staging").display()
            ))
            .arg(format!("--csi.testvolumeaccesstype={access}"));
        let mut suite = Process::spawn(suite)?;
        let status = suite.wait_for(SUITE_LIMIT)?;
        let log = suite.log_tail(6000);
        ensure!(status.is_some_and(|status| status.success()), "{log}");
        // A suite that skips what it is meant to try would pass as well.
        ensure!(passed(&log) > 25, "the suite tried too little: {log}");
        drop(driver);
        directory.passed();
        Ok(())
    })
}

/// How many cases passed, by the last line of the suite.
fn passed(log: &str) -> u32 {
    let before = log.split(" Passed").next().unwrap_or_default();
    let digits = before.rsplit(' ').next().unwrap_or_default();
    digits
        .chars()
        .filter(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap_or_default()
}

/// Set for the run that is killed: the folder in which it says how far it is.
const VICTIM_VARIABLE: &str = "LIFEBUOY_TESTKIT_NODE_VICTIM";
/// Before the name of its disk, so that no other run has one of that name.
const VICTIM_DISK: &str = "victim-";
/// No other program of the machine sleeps for so many seconds.
const VICTIM_SLEEP: &str = "86397";

#[test]
fn a_killed_run_leaves_nothing_behind_after_the_next_one() -> Result<()> {
    let victim = std::env::var_os(VICTIM_VARIABLE);
    let needs = Needs::default();
    if namespace::is_inside() {
        return namespace::test(&needs, || match victim {
            Some(folder) => be_the_victim(Path::new(&folder)),
            None => Ok(()),
        });
    }
    let can_kill = victim.is_none() && namespace::missing().is_none();
    let group = can_kill.then(kill_a_run).transpose()?;
    // The next run, or the one that is killed.
    namespace::test(&needs, || Ok(()))?;
    ensure!(
        !loop_devices()?.contains(VICTIM_DISK),
        "{}",
        loop_devices()?
    );
    let is_left = group.is_some_and(|group| group.exists());
    ensure!(!is_left, "a control group is left");
    Ok(())
}

/// A control group of the victim, in one of the hierarchies.
fn victim_group() -> Result<PathBuf> {
    let (one, several) = (
        Path::new("/sys/fs/cgroup"),
        Path::new("/sys/fs/cgroup/pids"),
    );
    let hierarchy = if several.exists() { several } else { one };
    Ok(hierarchy.join(namespace::control_group("victim")?))
}

/// Gives its control group.
fn kill_a_run() -> Result<PathBuf> {
    let mut directory = TestDirectory::new("victim")?;
    let test = "a_killed_run_leaves_nothing_behind_after_the_next_one";
    let log = directory.path().join("victim.log");
    let victim = ProcessSpec::new("victim", std::env::current_exe()?, log)
        .args([test, "--exact"])
        .env(VICTIM_VARIABLE, directory.path());
    let mut victim = Process::spawn(victim)?;
    let ready = directory.path().join("ready");
    // Another run may be going on, and comes first.
    wait_for("the victim", Duration::from_secs(600), || ready.exists())?;
    let group = PathBuf::from(fs::read_to_string(&ready)?);
    ensure!(
        loop_devices()?.contains(VICTIM_DISK),
        "the victim has no disk"
    );
    victim.kill();
    wait_for(
        "the end of all processes inside",
        Duration::from_secs(10),
        || !is_running(VICTIM_SLEEP),
    )?;
    directory.passed();
    Ok(group)
}

/// Leaves what a node leaves: a process without a parent, a volume's loop
/// device with the kubelet's over it, a control group.
fn be_the_victim(folder: &Path) -> Result<()> {
    let (group, disk) = (victim_group()?, namespace::disk_name()?);
    let disk = format!("/run/node/{VICTIM_DISK}{disk}");
    let made = group.display();
    let script = format!(
        "set -e
         sleep {VICTIM_SLEEP} &
         mkdir -p {made} && echo $! > {made}/cgroup.procs
         truncate -s 10M {disk}
         device=$(losetup --find --show {disk})
         touch /run/published && mount --bind $device /run/published
         losetup --find /run/published"
    );
    let status = Command::new("sh").args(["-c", &script]).status()?;
    ensure!(status.success(), "cannot make what a node leaves");
    let ready = folder.join("writing");
    fs::write(&ready, group.to_str().context("a name that is not UTF-8")?)?;
    fs::rename(ready, folder.join("ready"))?;
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

fn loop_devices() -> Result<String> {
    let output = Command::new("losetup").arg("--list").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_running(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut lines = processes.filter_map(|one| fs::read(one.path().join("cmdline")).ok());
    lines.any(|line| line == format!("sleep\0{argument}\0").into_bytes())
}

fn wait_for(what: &str, limit: Duration, is_so: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        let waited = started.elapsed() < limit;
        waited
            .then_some(())
            .with_context(|| format!("waited for {what}"))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

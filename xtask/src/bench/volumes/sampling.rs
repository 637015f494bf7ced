//! What movers and the operator cost, by looking for their processes: pods run in
//! this kernel, and what they run has its name in `/proc`.
//!
//! A mover is looked at until it ends, so what it does after the last look is not
//! seen: less than [`POLL`]. Its processor time is its pod's control group's where
//! there is one, which outlives it for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use lifebuoy_testkit::process::Usage;

/// How often they are looked at.
const POLL: Duration = Duration::from_millis(200);
/// Where control groups of the controller that counts processor time are, in version 1.
const ACCOUNTS: &str = "/sys/fs/cgroup/cpuacct";
const MIB: f64 = (1_u64 << 20) as f64;

/// What was seen in one operation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Movers that were seen.
    pub(super) movers: usize,
    /// From the first look at a mover to the last.
    pub(super) movers_s: f64,
    /// Processor time of all movers.
    pub(super) cpu_s: f64,
    /// The largest peak of a mover.
    pub(super) mover_peak_mib: f64,
    /// The largest peak of a process of the operator.
    pub(super) operator_peak_mib: f64,
    /// Processes of the operator that began meanwhile.
    pub(super) operators_begun: usize,
}

/// Looks until it is stopped.
pub(super) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Sampler {
    /// Begins; the peak of the operator counts from now.
    pub(super) fn start() -> Self {
        let operators: BTreeSet<u32> = processes("operator").collect();
        for pid in &operators {
            // One that has just ended has no peak.
            drop(fs::write(format!("/proc/{pid}/clear_refs"), "5"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut looks = Looks {
                operators,
                ..Looks::default()
            };
            while !stopped.load(Ordering::Relaxed) {
                looks.look();
                std::thread::sleep(POLL);
            }
            looks.seen()
        });
        Self { stop, thread }
    }

    /// Ends, and gives what was seen.
    pub(super) fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow!("the thread that looks at movers panicked");
        self.thread.join().map_err(panicked)
    }
}

/// One mover, as last seen.
#[derive(Debug)]
struct Mover {
    group: Option<PathBuf>,
    cpu_s: f64,
    peak_bytes: u64,
}

#[derive(Debug, Default)]
struct Looks {
    movers: BTreeMap<u32, Mover>,
    first: Option<Instant>,
    last: Option<Instant>,
    operator_peak_bytes: u64,
    /// The operator's processes at first, and those that came later.
    operators: BTreeSet<u32>,
    operators_begun: BTreeSet<u32>,
}

impl Looks {
    fn look(&mut self) {
        for pid in processes("mover") {
            // It may end between two calls.
            let Ok(usage) = Usage::of(pid) else { continue };
            let now = Instant::now();
            self.first.get_or_insert(now);
            self.last = Some(now);
            let mover = self.movers.entry(pid).or_insert_with(|| Mover {
                group: group_of_pod(pid),
                cpu_s: 0.0,
                peak_bytes: 0,
            });
            mover.cpu_s = mover.cpu_s.max(usage.processor.as_secs_f64());
            mover.peak_bytes = mover.peak_bytes.max(usage.peak_bytes);
        }
        for mover in self.movers.values_mut() {
            let cpu_s = mover.group.as_deref().and_then(processor_seconds);
            mover.cpu_s = mover.cpu_s.max(cpu_s.unwrap_or_default());
        }
        let operators: BTreeSet<u32> = processes("operator").collect();
        let peaks = operators
            .iter()
            .filter_map(|pid| Some(Usage::of(*pid).ok()?.peak_bytes));
        let peak = peaks.max().unwrap_or_default();
        self.operators_begun.extend(&operators - &self.operators);
        self.operator_peak_bytes = self.operator_peak_bytes.max(peak);
    }

    fn seen(&self) -> Seen {
        let movers = self.movers.values();
        let peak = movers.clone().map(|mover| mover.peak_bytes).max();
        let took = self.first.zip(self.last);
        Seen {
            movers: movers.len(),
            movers_s: took.map_or(0.0, |(first, last)| (last - first).as_secs_f64()),
            cpu_s: movers.map(|mover| mover.cpu_s).sum(),
            mover_peak_mib: peak.unwrap_or_default() as f64 / MIB,
            operator_peak_mib: self.operator_peak_bytes as f64 / MIB,
            operators_begun: self.operators_begun.len(),
        }
    }
}

/// The processes that run `lifebuoy` with this as their first argument.
fn processes(command: &'static str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        is_ours(&line, command).then_some(pid)
    })
}

fn is_ours(command_line: &[u8], command: &str) -> bool {
    let mut words = command_line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next();
    name == Some(&b"lifebuoy"[..]) && words.next() == Some(command.as_bytes())
}

/// The control group of the pod of a process: that above the container's.
fn group_of_pod(pid: u32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let (root, group) = account(&groups)?;
    let pod = Path::new(group).parent()?;
    let is_pods = pod.file_name()?.to_str()?.starts_with("pod");
    is_pods.then(|| Path::new(root).join(pod.strip_prefix("/").unwrap_or(pod)))
}

/// Where processor time is counted, of all lines of `/proc/PID/cgroup`.
fn account(groups: &str) -> Option<(&'static str, &str)> {
    let of = |wanted: &str| {
        groups.lines().find_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            let found = controllers.split(',').any(|one| one == wanted);
            found.then_some(group)
        })
    };
    match of("cpuacct") {
        Some(group) => Some((ACCOUNTS, group)),
        None => Some(("/sys/fs/cgroup", of("")?)),
    }
}

fn processor_seconds(group: &Path) -> Option<f64> {
    if let Ok(nanoseconds) = fs::read_to_string(group.join("cpuacct.usage")) {
        return Some(nanoseconds.trim().parse::<f64>().ok()? / 1e9);
    }
    let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(line.trim().parse::<f64>().ok()? / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_program_with_the_command_is_ours() {
        assert!(is_ours(b"/usr/local/bin/lifebuoy\0mover\0", "mover"));
        assert!(!is_ours(b"/usr/local/bin/lifebuoy\0operator\0", "mover"));
        assert!(!is_ours(b"grep\0lifebuoy\0mover\0", "mover"));
        assert!(!is_ours(b"", "mover"));
    }

    #[test]
    fn processor_time_is_counted_in_either_version_of_control_groups() {
        let one = "4:memory:/m\n2:cpu,cpuacct:/nodes/pod1/c\n0::/\n";
        assert_eq!(account(one), Some((ACCOUNTS, "/nodes/pod1/c")));
        let two = "0::/nodes/pod1/c\n";
        assert_eq!(account(two), Some(("/sys/fs/cgroup", "/nodes/pod1/c")));
    }
}

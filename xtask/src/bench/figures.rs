//! The figures of one size, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

/// What was measured at one size. Times are seconds of wall clock, medians
/// where a thing was measured several times.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    /// Objects made, namespaces not counted.
    pub(super) objects: usize,
    /// Secrets of 1 MB on top.
    pub(super) big_secrets: usize,
    /// Objects that the backup holds.
    pub(super) objects_saved: i64,
    /// Listing everything page by page over one raw connection.
    pub(super) list_floor_s: f64,
    /// Bytes of that listing.
    pub(super) list_floor_bytes: u64,
    /// Plain creates over 24 raw connections.
    pub(super) create_floor_s: f64,
    /// The first backup, from creating the request to its end.
    pub(super) backup_s: f64,
    /// A backup of the unchanged cluster.
    pub(super) backup_unchanged_s: f64,
    /// PUTs of that backup.
    pub(super) backup_unchanged_puts: u64,
    /// A backup after one object in a hundred changed.
    pub(super) backup_changed_s: f64,
    /// A restore of everything into an empty cluster.
    pub(super) restore_s: f64,
    /// The largest peak of an operator process.
    pub(super) peak_memory_mib: f64,
    /// `backup_s / list_floor_s`.
    pub(super) backup_per_floor: f64,
    /// `backup_unchanged_s / list_floor_s`.
    pub(super) backup_unchanged_per_floor: f64,
    /// `restore_s / create_floor_s`.
    pub(super) restore_per_floor: f64,
    /// More about each phase.
    pub(super) phases: Vec<Phase>,
}

/// What one phase cost.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Phase {
    /// Which one.
    pub(super) name: String,
    /// Each run, in seconds.
    pub(super) wall_s: Vec<f64>,
    /// Processor time of the operator in the last run.
    pub(super) operator_cpu_s: f64,
    /// Peak memory of the operator until its end.
    pub(super) operator_peak_mib: f64,
    /// Requests to the API server by verb in the last run, whoever made them.
    pub(super) api_requests: BTreeMap<String, u64>,
    /// Requests to the store by verb in the last run.
    pub(super) store_requests: BTreeMap<String, u64>,
    /// Bytes sent to the store in the last run.
    pub(super) store_bytes_up: u64,
    /// Bytes read from the store in the last run.
    pub(super) store_bytes_down: u64,
}

impl Figures {
    /// Fills in what follows from the rest.
    pub(super) fn finish(mut self) -> Self {
        self.backup_per_floor = self.backup_s / self.list_floor_s;
        self.backup_unchanged_per_floor = self.backup_unchanged_s / self.list_floor_s;
        self.restore_per_floor = self.restore_s / self.create_floor_s;
        self
    }

    /// A table for a person.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{} objects and {} Secrets of 1 MB; {} objects in the backup\n",
            self.objects, self.big_secrets, self.objects_saved
        );
        let mut row = |name: &str, value: f64, note: &str| {
            let _ = writeln!(text, "  {name:<28} {value:>9.2}  {note}");
        };
        row(
            "list floor, s",
            self.list_floor_s,
            "every page of every type over one connection",
        );
        row(
            "create floor, s",
            self.create_floor_s,
            "plain creates over 24 connections",
        );
        row("backup, s", self.backup_s, &times(self.backup_per_floor));
        row(
            "backup unchanged, s",
            self.backup_unchanged_s,
            &times(self.backup_unchanged_per_floor),
        );
        row("  its PUTs", self.backup_unchanged_puts as f64, "");
        row("backup after 1 % changed, s", self.backup_changed_s, "");
        row("restore, s", self.restore_s, &times(self.restore_per_floor));
        row(
            "peak memory, MiB",
            self.peak_memory_mib,
            "the largest operator process",
        );
        for phase in &self.phases {
            let _ = writeln!(text, "  {}", phase.line());
        }
        text
    }
}

impl Phase {
    fn line(&self) -> String {
        format!(
            "{}: {:.2?} s, CPU {:.2} s, peak {:.0} MiB, API {:?}, store {:?}, {} KiB up, {} KiB down",
            self.name,
            self.wall_s,
            self.operator_cpu_s,
            self.operator_peak_mib,
            self.api_requests,
            self.store_requests,
            self.store_bytes_up / 1024,
            self.store_bytes_down / 1024,
        )
    }
}

fn times(ratio: f64) -> String {
    format!("{ratio:.2} × the floor")
}

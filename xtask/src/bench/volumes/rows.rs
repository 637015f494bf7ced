//! The medians of all runs, as rows of JSON and as a table.

use std::fmt::Write;

use serde::Serialize;

use super::sampling::Seen;

/// One operation in one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) case: &'static str,
    pub(super) op: &'static str,
    pub(super) wall_s: f64,
    pub(super) seen: Seen,
    pub(super) bytes_sent: u64,
}

/// The figures of one operation: medians of all runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    case: &'static str,
    op: &'static str,
    /// From creating the Backup to its end.
    wall_s: f64,
    movers: usize,
    /// From the first look at a mover to the last.
    movers_s: f64,
    cpu_s: f64,
    mover_peak_mib: f64,
    operator_peak_mib: f64,
    bytes_sent: u64,
}

pub(super) fn medians(taken: &[Taken]) -> Vec<Row> {
    let mut kinds = Vec::new();
    for one in taken {
        if !kinds.contains(&(one.case, one.op)) {
            kinds.push((one.case, one.op));
        }
    }
    let row = |(case, op): (&'static str, &'static str)| {
        let of_kind = |one: &&Taken| one.case == case && one.op == op;
        let median = |value: fn(&Taken) -> f64| {
            let mut values: Vec<f64> = taken.iter().filter(of_kind).map(value).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        Row {
            case,
            op,
            wall_s: median(|one| one.wall_s),
            movers: median(|one| one.seen.movers as f64) as usize,
            movers_s: median(|one| one.seen.movers_s),
            cpu_s: median(|one| one.seen.cpu_s),
            mover_peak_mib: median(|one| one.seen.mover_peak_mib),
            operator_peak_mib: median(|one| one.seen.operator_peak_mib),
            bytes_sent: median(|one| one.bytes_sent as f64) as u64,
        }
    };
    kinds.into_iter().map(row).collect()
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<6} {:<12} {:>8} {:>9} {:>7} {:>10} {:>13} {:>9}\n",
        "case", "op", "wall s", "movers s", "cpu s", "mover MiB", "operator MiB", "sent MiB"
    );
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<6} {:<12} {:>8.2} {:>9.2} {:>7.2} {:>10.0} {:>13.0} {:>9.1}",
            row.case,
            row.op,
            row.wall_s,
            row.movers_s,
            row.cpu_s,
            row.mover_peak_mib,
            row.operator_peak_mib,
            row.bytes_sent as f64 / f64::from(1 << 20),
        );
    }
    text
}

//! The medians of all runs, and a table in which each tool stands beside the best.

use std::fmt::Write;

use super::{Row, Taken, tools::Tool};

pub(super) fn medians(tool: &(Tool, String), taken: &[Taken], data_mib: f64) -> Vec<Row> {
    let mut kinds = Vec::new();
    for one in taken {
        let kind = (one.dataset.as_str(), one.op);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let row = |(dataset, op): (&str, super::Operation)| {
        let of_kind = || {
            taken
                .iter()
                .filter(move |one| one.dataset == dataset && one.op == op)
        };
        let sorted = |value: fn(&Taken) -> f64| {
            let mut values: Vec<f64> = of_kind().map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |value: fn(&Taken) -> f64| {
            let values = sorted(value);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let walls = sorted(|one| one.cost.wall_s);
        let end = |value: Option<&f64>| value.copied().unwrap_or_default();
        Row {
            dataset: dataset.to_owned(),
            tool: tool.0.name(),
            version: tool.1.clone(),
            op,
            wall_s: median(|one| one.cost.wall_s),
            wall_spread_s: [end(walls.first()), end(walls.last())],
            cpu_s: median(|one| one.cost.cpu_s),
            peak_mib: median(|one| one.cost.peak_mib),
            repo_mib: median(|one| one.repo_mib),
            added_mib: median(|one| one.added_mib),
            data_mib,
            requests: of_kind().next_back().and_then(|one| one.requests),
        }
    };
    kinds.into_iter().map(row).collect()
}

/// The rows of a data set, with how many times the best of the others each is.
pub(super) fn table(rows: &[Row], dataset: &str) -> String {
    let of_set: Vec<&Row> = rows
        .iter()
        .filter(|row| row.dataset.starts_with(dataset))
        .collect();
    let mut text = format!(
        "{:<20} {:<8} {:<9} {:>8} {:>15} {:>8} {:>7} {:>7} {:>9} {:>9} {:>8}\n",
        "data set",
        "op",
        "tool",
        "wall s",
        "spread",
        "× best",
        "cpu s",
        "× best",
        "peak MiB",
        "repo MiB",
        "added"
    );
    for row in &of_set {
        let best = |value: fn(&Row) -> f64| {
            let others = of_set.iter().filter(|other| {
                other.op == row.op && other.dataset == row.dataset && other.tool != row.tool
            });
            let best = others
                .map(|other| value(other))
                .fold(f64::INFINITY, f64::min);
            value(row) / best
        };
        let _ = writeln!(
            text,
            "{:<20} {:<8} {:<9} {:>8.2} {:>7.2}-{:<7.2} {:>8.2} {:>7.2} {:>7.2} {:>9.0} {:>9.1} {:>8.1}",
            row.dataset,
            format!("{:?}", row.op).to_lowercase(),
            row.tool,
            row.wall_s,
            row.wall_spread_s[0],
            row.wall_spread_s[1],
            best(|row| row.wall_s),
            row.cpu_s,
            best(|row| row.cpu_s),
            row.peak_mib,
            row.repo_mib,
            row.added_mib,
        );
    }
    text
}

//! `lifebuoy repo save|restore|ls|cat|diff`: files and block devices, direct on a
//! repository.

use std::{
    fs,
    io::{self, Write},
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use lifebuoy_data::{
    Change, DataSummary, Diff, Entry, Excludes, Existing, Kind, Listed, Listing, Progress as Done,
    RestoreDeviceRequest, RestoreRequest, SaveDeviceRequest, SaveRequest, TreePath, What,
    read_file, restore as restore_files, restore_device, save as save_files, save_device,
    snapshots,
};
use lifebuoy_engine::point;
use lifebuoy_repo::{Purpose, Repository, SessionId, SessionRequest};
use serde_json::{Value, json};

use crate::{
    args::{CatData, DiffData, Format, ListData, RestoreData, SaveData},
    error::Error,
    exit::Exit,
    output::{Description, Progress, Table, Terminal, document},
    store,
};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) async fn save(args: &SaveData, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.store, &store::direct_only(&args.store)?).await?;
    let host = args.host.clone().unwrap_or_else(host_name);
    let place = fs::canonicalize(&args.path).map_err(|source| Error::Io {
        what: format!("find {}", args.path.display()),
        source,
    })?;
    let kind = if args.device {
        What::Device
    } else {
        What::Files
    };
    let path = place.to_string_lossy().into_owned();
    let summary = DataSummary::new(kind, host, path, Utc::now());
    let before = newest_like(&repo, &summary).await?;
    let done = Arc::new(Done::default());
    let session = || SessionRequest {
        id: SessionId::random(&mut rand::rng()),
        cluster: repo.cluster_key(&machine(&summary.host)),
        purpose: Purpose::Backup,
        label: summary.path.clone().into_bytes().into(),
    };
    let saved = loop {
        let (summary, before) = (summary.clone(), before.clone().map(|one| one.snapshot));
        let saving = async {
            if args.device {
                let changed = args.changed.as_deref().map(regions).transpose()?;
                let request = SaveDeviceRequest {
                    place: place.clone(),
                    summary,
                    before: before.zip(changed),
                };
                return Ok(save_device(&repo, session(), request, Arc::clone(&done)).await?);
            }
            let patterns = args.exclude.iter().map(String::as_str);
            let request = SaveRequest {
                place: place.clone(),
                summary,
                excludes: Excludes::new(patterns)
                    .map_err(|error| Error::usage(error.to_string(), "give another --exclude"))?,
                one_file_system: args.one_file_system,
                before: before.filter(|_| !args.read_all),
            };
            Ok(save_files(&repo, session(), request, Arc::clone(&done)).await?)
        };
        match watch(terminal, "saving", &done, saving).await {
            // A collection began at the same moment.
            Err(Error::Data(lifebuoy_data::Error::Repository(
                lifebuoy_repo::Error::Outdated { .. },
            ))) => {}
            saved => break saved?,
        }
    };
    let listed = Listed {
        snapshot: saved.snapshot,
        summary: saved.summary,
    };
    show_one(&listed, &done, args.output.format, terminal)
}

/// The newest snapshot of the same place.
async fn newest_like(repo: &Repository, summary: &DataSummary) -> Result<Option<Listed>, Error> {
    let (listed, _) = snapshots(repo).await?;
    let mut newest_first = listed.into_iter().rev();
    Ok(newest_first.find(|one| one.summary.is_of_one_line(summary)))
}

/// What stands for a cluster's UID: a machine has sequences of its own, as a cluster has.
fn machine(host: &str) -> String {
    format!("machine {host}")
}

fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

/// Reads lines of "first byte, number of bytes".
fn regions(file: &Path) -> Result<Vec<Range<u64>>, Error> {
    let wrong = |message: String| Error::File {
        path: file.display().to_string(),
        message,
    };
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let region = |line: &str| {
        let (begin, length) = line
            .trim()
            .split_once(|c: char| c == ',' || c.is_whitespace())?;
        let begin: u64 = begin.trim().parse().ok()?;
        let length: u64 = length.trim().parse().ok()?;
        Some(begin..begin.checked_add(length)?)
    };
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            region(line)
                .ok_or_else(|| wrong(format!("`{line}` is not: first byte, number of bytes")))
        })
        .collect()
}

/// Shows how far something is until it has ended.
async fn watch<T>(
    terminal: Terminal,
    verb: &str,
    done: &Done,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut shown = Progress::begin(terminal);
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return ended,
            _ = ticks.tick() => {
                let now = done.done();
                let text = format!("{verb} {}", pace(&now, begun.elapsed()));
                shown.update(&text, now.bytes, now.bytes_total);
            }
        }
    }
}

fn pace(now: &lifebuoy_data::Done, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let (done, total) = (now.bytes as f64, now.bytes_total as f64);
    let rate = done / seconds;
    let mut text = format!("{} entries, {}, {}/s", now.entries, size(done), size(rate));
    if total > done && rate > 0.0 {
        text.push_str(&format!(", {:.0} s left", (total - done) / rate));
    }
    text
}

fn size(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

pub(crate) async fn restore(args: &RestoreData, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.store, &store::direct_only(&args.store)?).await?;
    let Listed { snapshot, summary } = chosen(&repo, &args.snapshot).await?;
    let existing = if args.resume {
        Existing::Resume
    } else {
        Existing::Refuse
    };
    let done = Arc::new(Done::default());
    let (of, place) = (snapshot.clone(), args.target.clone());
    let restoring = async {
        Ok(match summary.kind {
            What::Files => {
                let request = RestoreRequest {
                    snapshot: of,
                    path: tree_path(&args.path)?,
                    place,
                    existing,
                };
                restore_files(&repo, request, Arc::clone(&done)).await?
            }
            What::Device => {
                let request = RestoreDeviceRequest {
                    snapshot: of,
                    place,
                    existing,
                };
                restore_device(&repo, request, Arc::clone(&done)).await?
            }
        })
    };
    let hold = point::hold(&repo, snapshot.session, &machine(&host_name())).await?;
    let restored = watch(terminal, "restoring", &done, restoring).await;
    if let Some(hold) = hold {
        hold.release().await;
    }
    let listed = Listed {
        snapshot,
        summary: restored?,
    };
    show_one(&listed, &done, args.output.format, terminal)
}

fn tree_path(text: &str) -> Result<TreePath, Error> {
    let inner = text.trim_matches('/');
    TreePath::new(inner.into())
        .map_err(|error| Error::usage(format!("{text}: {error}"), "give a path as `ls` prints it"))
}

/// The snapshot that a person means.
async fn chosen(repo: &Repository, name: &str) -> Result<Listed, Error> {
    let (mut listed, _) = snapshots(repo).await?;
    if name == "latest" {
        listed.sort_by_key(|one| one.summary.taken_at);
        return listed.pop().ok_or_else(|| {
            Error::usage(
                "there is no snapshot of files in this repository",
                "make one: `lifebuoy repo save`",
            )
        });
    }
    let mut like = listed
        .into_iter()
        .filter(|one| one.snapshot.session.to_string().starts_with(name));
    match (like.next(), like.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Error::usage(
            format!("there is no snapshot of files `{name}`"),
            "list them: `lifebuoy repo ls`",
        )),
        _ => Err(Error::usage(
            format!("several snapshots begin with `{name}`"),
            "give more of the id",
        )),
    }
}

fn show_one(one: &Listed, done: &Done, format: Format, terminal: Terminal) -> Result<Exit, Error> {
    let now = done.done();
    let problems = done.problems_in_words();
    let mut value = snapshot_value(one);
    value["doneEntries"] = json!(now.entries);
    value["doneBytes"] = json!(now.bytes);
    value["unchangedBytes"] = json!(now.unchanged);
    value["problems"] = json!(problems);
    value["problemsTotal"] = json!(now.problems);
    let table = || {
        let mut text = Description::default();
        text.line("Snapshot", one.snapshot.session)
            .line("Path", &one.summary.path)
            .line("Entries", now.entries)
            .line("Bytes", now.bytes)
            .line("Bytes unchanged", now.unchanged)
            .line("Problems", now.problems);
        let mut table = Table::new(&["PATH", "PROBLEM"]);
        for problem in &problems {
            table.row(vec![problem.path.clone(), problem.what.clone()]);
        }
        if !table.is_empty() {
            text.section("What is missing", table);
        }
        text.to_string()
    };
    let name = || format!("{}\n", one.snapshot.session);
    terminal.print(&document(format, &value, table, name)?)?;
    Ok(if now.problems == 0 {
        Exit::Done
    } else {
        Exit::Partial
    })
}

fn snapshot_value(one: &Listed) -> Value {
    let Listed { snapshot, summary } = one;
    json!({
        "snapshot": snapshot.session.to_string(),
        "kind": summary.kind,
        "host": summary.host,
        "path": summary.path,
        "takenAt": summary.taken_at,
        "entries": summary.entries,
        "bytes": summary.bytes,
        "problems": summary.problems,
    })
}

pub(crate) async fn list(args: &ListData, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.store, &store::direct_only(&args.store)?).await?;
    match &args.snapshot {
        None => list_snapshots(&repo, args.output.format, terminal).await,
        Some(name) => {
            let one = chosen(&repo, name).await?;
            let path = tree_path(&args.path)?;
            let mut listing = Listing::of(&repo, &one.snapshot, path).await?;
            let format = args.output.format;
            let mut out = io::BufWriter::new(io::stdout().lock());
            // As they come: a snapshot may have more entries than memory has room for.
            while let Some(entry) = listing.next().await? {
                write_entry(&mut out, &entry, format).map_err(Error::Output)?;
            }
            out.flush().map_err(Error::Output)?;
            Ok(Exit::Done)
        }
    }
}

async fn list_snapshots(
    repo: &Repository,
    format: Format,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let (listed, unreadable) = snapshots(repo).await?;
    let value = Value::Array(listed.iter().map(snapshot_value).collect());
    let table = || {
        let mut table = Table::new(&[
            "SNAPSHOT", "KIND", "HOST", "PATH", "TAKEN", "ENTRIES", "BYTES",
        ]);
        for Listed { snapshot, summary } in &listed {
            table.row(vec![
                snapshot.session.to_string(),
                format!("{:?}", summary.kind),
                summary.host.clone(),
                summary.path.clone(),
                summary.taken_at.to_rfc3339(),
                summary.entries.to_string(),
                summary.bytes.to_string(),
            ]);
        }
        table.to_string()
    };
    let names = || {
        let ids = listed
            .iter()
            .map(|one| format!("{}\n", one.snapshot.session));
        ids.collect()
    };
    terminal.print(&document(format, &value, table, names)?)?;
    for (session, why) in &unreadable {
        terminal.say(&format!("error: snapshot {session} cannot be read: {why}"));
    }
    Ok(if unreadable.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    })
}

/// JSON and YAML are a document a line: there is no end of a list to wait for.
fn write_entry(out: &mut impl Write, entry: &Entry, format: Format) -> io::Result<()> {
    let (letter, size, target) = kind(entry);
    match format {
        Format::Name => writeln!(out, "{}", entry.path),
        Format::Json | Format::Yaml => writeln!(out, "{}", entry_value(entry)),
        Format::Table => {
            let arrow = if target.is_empty() { "" } else { " -> " };
            writeln!(
                out,
                "{letter} {:04o} {:>6} {:>6} {size:>14} {} {}{arrow}{target}",
                entry.meta.mode,
                entry.meta.uid,
                entry.meta.gid,
                time(entry),
                entry.path,
            )
        }
    }
}

fn time(entry: &Entry) -> String {
    let modified = entry.meta.modified;
    chrono::DateTime::from_timestamp(modified.seconds, modified.nanoseconds)
        .map_or_else(|| modified.seconds.to_string(), |time| time.to_rfc3339())
}

/// A letter as of `ls`, the size in bytes, and what it points to.
fn kind(entry: &Entry) -> (char, u64, String) {
    match &entry.kind {
        Kind::Directory => ('d', 0, String::new()),
        Kind::File { size, .. } => ('-', *size, String::new()),
        Kind::Symlink(target) => ('l', 0, String::from_utf8_lossy(target).into_owned()),
        Kind::Fifo => ('p', 0, String::new()),
        Kind::Socket => ('s', 0, String::new()),
        Kind::CharDevice { major, minor } => ('c', 0, format!("{major}:{minor}")),
        Kind::BlockDevice { major, minor } => ('b', 0, format!("{major}:{minor}")),
        Kind::HardLink(first) => ('h', 0, first.to_string()),
    }
}

fn entry_value(entry: &Entry) -> Value {
    let (letter, size, target) = kind(entry);
    json!({
        "path": entry.path.to_string(),
        "kind": letter,
        "size": size,
        "target": target,
        "mode": format!("{:04o}", entry.meta.mode),
        "uid": entry.meta.uid,
        "gid": entry.meta.gid,
        "modified": time(entry),
    })
}

pub(crate) async fn cat(args: &CatData) -> Result<Exit, Error> {
    let repo = store::open(&args.store, &store::direct_only(&args.store)?).await?;
    let one = chosen(&repo, &args.snapshot).await?;
    let path = tree_path(&args.path)?;
    let mut write = |bytes: &[u8]| io::stdout().lock().write_all(bytes);
    read_file(&repo, &one.snapshot, &path, &mut write).await?;
    io::stdout().lock().flush().map_err(Error::Output)?;
    Ok(Exit::Done)
}

pub(crate) async fn diff(args: &DiffData) -> Result<Exit, Error> {
    let repo = store::open(&args.store, &store::direct_only(&args.store)?).await?;
    let before = chosen(&repo, &args.before).await?;
    let after = chosen(&repo, &args.after).await?;
    let path = tree_path(&args.path)?;
    let mut diff = Diff::of(&repo, &before.snapshot, &after.snapshot, &path).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    while let Some((change, entry)) = diff.next().await? {
        let (letter, word) = match change {
            Change::Added => ('+', "added"),
            Change::Removed => ('-', "removed"),
            Change::Contents => ('M', "contents"),
            Change::Meta => ('m', "metadata"),
        };
        match args.output.format {
            Format::Table => writeln!(out, "{letter} {}", entry.path),
            Format::Name => writeln!(out, "{}", entry.path),
            Format::Json | Format::Yaml => {
                let mut value = entry_value(&entry);
                value["change"] = json!(word);
                writeln!(out, "{value}")
            }
        }
        .map_err(Error::Output)?;
    }
    out.flush().map_err(Error::Output)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_by_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "0 4096\n\n8192, 100\n").unwrap();
        assert_eq!(regions(file.path()).unwrap(), [0..4096, 8192..8292]);
        fs::write(&file, "0\n").unwrap();
        assert!(regions(file.path()).is_err());
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(0.0), "0.0 B");
        assert_eq!(size(1536.0), "1.5 KiB");
        assert_eq!(size(5e15), "4547.5 TiB");
    }
}

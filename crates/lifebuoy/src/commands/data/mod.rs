//! `lifebuoy repo save|restore|ls|cat|diff`: files and block devices, direct on a
//! repository.

mod choose;
mod entries;
mod volume;

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    ops::Range,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use lifebuoy_data::{
    DataSummary, Diff, Excludes, Existing, Listed, Listing, PARTS_EVERY, Problem, Progress as Done,
    RestoreDeviceRequest, RestoreRequest, SaveDeviceRequest, SaveRequest, TreePath, VerifyRequest,
    What, escaped, of_data, read_file, restore as restore_files, restore_device,
    save as save_files, save_device, snapshots, verify,
};
use lifebuoy_engine::point;
use lifebuoy_repo::{Hold, Purpose, Reader, Repository, SessionId, SessionRequest, Snapshot};
use serde_json::{Value, json};

use crate::{
    args::{CatData, DiffData, Format, ListData, RestoreData, SaveData, Whose},
    error::Error,
    exit::Exit,
    output::{Description, Progress, Table, Terminal, document},
    store,
};

use entries::{write_change, write_entry};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) async fn save(args: &SaveData, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.direct.store, &store::direct_only(&args.direct.store)?).await?;
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
        let (summary, before) = (
            summary.clone(),
            before.as_ref().map(|one| one.snapshot.root),
        );
        let saving = async {
            if args.device {
                let changed = args.changed.as_deref().map(regions).transpose()?;
                let request = SaveDeviceRequest {
                    place: place.clone(),
                    summary,
                    before: before.zip(changed),
                    parts_every: PARTS_EVERY,
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
                parts_every: PARTS_EVERY,
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
    show_one(&listed, &done, None, args.direct.output.format, terminal)
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
    let repo = store::open(&args.direct.store, &store::direct_only(&args.direct.store)?).await?;
    // What is chosen, and all that it needs, stays until it was read.
    let hold = point::hold_all(&repo, &machine(&host_name())).await?;
    let restored = restore_held(&repo, hold.as_ref(), args, terminal).await;
    if let Some(hold) = hold {
        hold.release().await;
    }
    let Restored {
        listed,
        done,
        compared,
    } = restored?;
    let format = args.direct.output.format;
    show_one(&listed, &done, compared.as_deref(), format, terminal)
}

struct Restored {
    listed: Listed,
    done: Arc<Done>,
    compared: Option<Arc<Done>>,
}

async fn restore_held(
    repo: &Repository,
    hold: Option<&Hold>,
    args: &RestoreData,
    terminal: Terminal,
) -> Result<Restored, Error> {
    let Listed { snapshot, summary } = match (hold, &args.whose.volume) {
        (Some(hold), None) => {
            let (listed, _) = of_data(hold.snapshots().await?);
            choose::named(&args.snapshot, &args.whose, listed, &host_name())?
        }
        _ => chosen(repo, &args.snapshot, &args.whose).await?,
    };
    let reader = Arc::new(match hold {
        Some(hold) => hold.reader(),
        None => repo.reader().await?,
    });
    let path = tree_path(&args.path)?;
    let done = Arc::new(Done::default());
    let bringing = bring_back(&reader, args, &snapshot, &path, summary.kind, &done);
    let summary = watch(terminal, "restoring", &done, bringing).await?;
    let compared = args.verify.then(Arc::<Done>::default);
    if let Some(compared) = &compared {
        let request = VerifyRequest {
            root: snapshot.root,
            path,
            place: args.target.clone(),
        };
        let comparing = async { Ok(verify(reader, request, Arc::clone(compared)).await?) };
        watch(terminal, "verifying", compared, comparing).await?;
    }
    Ok(Restored {
        listed: Listed { snapshot, summary },
        done,
        compared,
    })
}

async fn bring_back(
    reader: &Arc<Reader>,
    args: &RestoreData,
    snapshot: &Snapshot,
    path: &TreePath,
    kind: What,
    done: &Arc<Done>,
) -> Result<DataSummary, Error> {
    let (root, place) = (snapshot.root, args.target.clone());
    let existing = if args.resume {
        Existing::Resume
    } else {
        Existing::Refuse
    };
    let summary = match kind {
        What::Files => {
            let request = RestoreRequest {
                root,
                path: path.clone(),
                place,
                existing,
            };
            restore_files(Arc::clone(reader), request, Arc::clone(done)).await?
        }
        What::Device => {
            let request = RestoreDeviceRequest {
                root,
                place,
                existing,
            };
            restore_device(Arc::clone(reader), request, Arc::clone(done)).await?
        }
    };
    Ok(summary)
}

/// A path in a snapshot as a person gives it, whatever bytes it holds.
fn tree_path(given: &OsStr) -> Result<TreePath, Error> {
    let names = given.as_bytes().split(|byte| *byte == b'/');
    let names: Vec<&[u8]> = names
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    TreePath::new(names.join(&b'/')).map_err(|error| {
        let given = escaped(given.as_bytes());
        Error::usage(format!("{given}: {error}"), "give a path of the snapshot")
    })
}

/// The snapshot that a person means.
async fn chosen(repo: &Repository, name: &str, whose: &Whose) -> Result<Listed, Error> {
    if let Some(claim) = &whose.volume {
        return volume::find(repo, name, claim).await;
    }
    let (listed, _) = snapshots(repo).await?;
    choose::named(name, whose, listed, &host_name())
}

/// Shows a snapshot that was saved or restored, and what came of its comparison.
fn show_one(
    one: &Listed,
    done: &Done,
    compared: Option<&Done>,
    format: Format,
    terminal: Terminal,
) -> Result<Exit, Error> {
    for warning in done.warnings() {
        terminal.say(&format!("warning: {warning}"));
    }
    let now = done.done();
    let problems = done.problems_in_words();
    let differing = compared.map(Done::problems_in_words).unwrap_or_default();
    let mut value = snapshot_value(one);
    value["doneEntries"] = json!(now.entries);
    value["doneBytes"] = json!(now.bytes);
    value["unchangedBytes"] = json!(now.unchanged);
    value["problems"] = json!(problems);
    value["problemsTotal"] = json!(now.problems);
    if let Some(compared) = compared.map(Done::done) {
        value["compared"] = json!({
            "entries": compared.entries,
            "bytes": compared.bytes,
            "problems": differing,
            "problemsTotal": compared.problems,
        });
    }
    let compared = compared.map(Done::done);
    let table = || {
        let mut text = Description::default();
        text.line("Snapshot", one.snapshot.session)
            .line("Path", escaped(one.summary.path.as_bytes()))
            .line("Entries", now.entries)
            .line("Bytes", now.bytes)
            .line("Bytes unchanged", now.unchanged)
            .line("Problems", now.problems)
            .maybe("Entries equal", compared.map(|done| done.entries))
            .maybe("Differences", compared.map(|done| done.problems));
        for (heading, problems) in [("What is missing", &problems), ("What differs", &differing)] {
            if !problems.is_empty() {
                text.section(heading, problem_table(problems));
            }
        }
        text.to_string()
    };
    let name = || format!("{}\n", one.snapshot.session);
    terminal.print(&document(format, &value, table, name)?)?;
    let missing = now.problems + compared.map_or(0, |done| done.problems);
    Ok(if missing == 0 {
        Exit::Done
    } else {
        Exit::Partial
    })
}

fn problem_table(problems: &[Problem]) -> Table {
    let mut table = Table::new(&["PATH", "PROBLEM"]);
    for Problem { path, what } in problems {
        table.row(vec![path.clone(), what.clone()]);
    }
    table
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
    let repo = store::open(&args.direct.store, &store::direct_only(&args.direct.store)?).await?;
    match &args.snapshot {
        None => list_snapshots(&repo, args, terminal).await,
        Some(name) => {
            let one = chosen(&repo, name, &args.whose).await?;
            let path = tree_path(&args.path)?;
            let mut listing = Listing::of(&repo, &one.snapshot, path).await?;
            let format = args.direct.output.format;
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
    args: &ListData,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let (listed, unreadable) = snapshots(repo).await?;
    let listed = choose::of(&args.whose, listed);
    let format = args.direct.output.format;
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
                escaped(summary.path.as_bytes()),
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

pub(crate) async fn cat(args: &CatData) -> Result<Exit, Error> {
    let repo = store::open(&args.store, &store::direct_only(&args.store)?).await?;
    let one = chosen(&repo, &args.snapshot, &args.whose).await?;
    let path = tree_path(&args.path)?;
    let mut write = |bytes: &[u8]| io::stdout().lock().write_all(bytes);
    read_file(&repo, &one.snapshot, &path, &mut write).await?;
    io::stdout().lock().flush().map_err(Error::Output)?;
    Ok(Exit::Done)
}

pub(crate) async fn diff(args: &DiffData) -> Result<Exit, Error> {
    let repo = store::open(&args.direct.store, &store::direct_only(&args.direct.store)?).await?;
    let before = chosen(&repo, &args.before, &args.whose).await?;
    let after = chosen(&repo, &args.after, &args.whose).await?;
    let path = tree_path(&args.path)?;
    let mut diff = Diff::of(&repo, &before.snapshot, &after.snapshot, &path).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    while let Some((change, entry)) = diff.next().await? {
        write_change(&mut out, change, &entry, args.direct.output.format).map_err(Error::Output)?;
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
    fn paths_are_taken_as_people_give_them() {
        let path = |bytes: &[u8]| tree_path(OsStr::from_bytes(bytes)).map_err(|_| ());
        let same = |bytes: &[u8]| TreePath::new(bytes.to_vec()).map_err(|_| ());
        assert_eq!(path(b"/a//b/./c/"), same(b"a/b/c"));
        assert_eq!(path(b"."), same(b""));
        assert_eq!(path(b"odd \xff\n"), same(b"odd \xff\n"));
        assert_eq!(path(b"a/../b"), Err(()));
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(0.0), "0.0 B");
        assert_eq!(size(1536.0), "1.5 KiB");
        assert_eq!(size(5e15), "4547.5 TiB");
    }
}

//! `lifebuoy repo check|repair|upgrade|collect`: the care of a repository by hand.

use std::sync::{Arc, Mutex, PoisonError};

use lifebuoy_engine::AllContents;
use lifebuoy_repo::{
    CheckLevel, CheckOptions, CheckReport, CollectOptions, CollectReport, FORMAT_VERSION,
    RepackReport, Repository,
};
use serde_json::{Value, json};

use crate::{
    args::{CheckRepo, CollectRepo, DirectArgs, Format, Level},
    error::Error,
    exit::Exit,
    output::{Description, Progress, Table, Terminal, document},
    store,
};

/// Under whose name copies are written by hand: no cluster has this uid.
const BY_HAND: &str = "lifebuoy repo, by hand";
/// Bytes that one command copies at most out of packs with little that lives.
const REPACK_BYTES_MAX: u64 = 16 << 30;

fn options(args: &CheckRepo, terminal: Terminal) -> CheckOptions {
    let (part, of) = (args.part, args.of);
    let level = match args.level {
        Level::Structure => CheckLevel::Structure,
        Level::Share => CheckLevel::Share { part, of },
        Level::All => CheckLevel::All,
    };
    let shown = Mutex::new(Progress::begin(terminal));
    let mut options = CheckOptions::new(level);
    options.progress = Some(Arc::new(move |what, done, total| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.update(what, done, total);
    }));
    options
}

pub(crate) async fn check(args: &CheckRepo, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.direct.store, &store::direct_only(&args.direct.store)?).await?;
    let options = options(args, terminal);
    let report = repo.check(&AllContents, &options).await?;
    drop(options);
    let value = check_value(&report);
    let table = || describe_check(&report).to_string();
    terminal.print(&document(args.direct.output.format, &value, table, || {
        names(&report)
    })?)?;
    Ok(exit(&report))
}

pub(crate) async fn repair(args: &CheckRepo, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.direct.store, &store::direct_only(&args.direct.store)?).await?;
    let options = options(args, terminal);
    let cluster = repo.cluster_key(BY_HAND);
    let report = repo.repair(&AllContents, cluster, &options).await?;
    drop(options);
    let value = json!({
        "indices": report.indices,
        "packsSetAside": report.packs_set_aside,
        "chunksCopied": report.chunks_copied,
        "bytesStored": report.bytes_stored,
        "left": check_value(&report.left),
    });
    let table = || {
        let mut text = Description::default();
        text.line("Indices made", report.indices)
            .line("Set aside", report.packs_set_aside)
            .line("Chunks copied", report.chunks_copied)
            .line("Bytes stored", report.bytes_stored)
            .section("Left", describe_check(&report.left));
        text.to_string()
    };
    terminal.print(&document(args.direct.output.format, &value, table, || {
        names(&report.left)
    })?)?;
    Ok(exit(&report.left))
}

fn exit(report: &CheckReport) -> Exit {
    if report.is_clean() {
        Exit::Done
    } else {
        Exit::Partial
    }
}

fn names(report: &CheckReport) -> String {
    let keys = report.problems.iter().map(|problem| &*problem.key);
    keys.map(|key| format!("{key}\n")).collect()
}

fn check_value(report: &CheckReport) -> Value {
    let problems = report.problems.iter();
    let problems: Vec<Value> = problems
        .map(|problem| json!({"key": problem.key, "message": problem.message}))
        .collect();
    let affected = report.affected.iter();
    let affected: Vec<Value> = affected
        .map(|one| {
            json!({
                "snapshot": one.session.to_string(),
                "items": one.items,
                "itemsTotal": one.items_total,
            })
        })
        .collect();
    json!({
        "clean": report.is_clean(),
        "objects": report.objects,
        "packs": report.packs,
        "packsRead": report.packs_read,
        "bytesRead": report.bytes_read,
        "snapshots": report.snapshots,
        "orphanedPacks": report.orphaned_packs,
        "healed": report.healed,
        "problems": problems,
        "problemsTotal": report.problems_total,
        "affected": affected,
    })
}

fn describe_check(report: &CheckReport) -> Description {
    let mut text = Description::default();
    text.line("Objects", report.objects)
        .line("Packs", report.packs)
        .line("Packs read", report.packs_read)
        .line("Bytes read", report.bytes_read)
        .line("Points", report.snapshots)
        .line("Problems", report.problems_total);
    let mut problems = Table::new(&["OBJECT", "PROBLEM"]);
    for problem in &report.problems {
        problems.row(vec![problem.key.clone(), problem.message.clone()]);
    }
    if !problems.is_empty() {
        text.section("What is wrong", problems);
    }
    let mut affected = Table::new(&["SNAPSHOT", "CANNOT BE RESTORED"]);
    for one in &report.affected {
        for item in &one.items {
            affected.row(vec![one.session.to_string(), item.clone()]);
        }
    }
    if !affected.is_empty() {
        text.section("What that means", affected);
    }
    text
}

pub(crate) async fn upgrade(args: &DirectArgs, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.store, &store::direct_only(&args.store)?).await?;
    let before = repo.format_version();
    let after = repo.upgrade().await?.format_version();
    let value = json!({"before": before, "after": after, "newest": FORMAT_VERSION});
    let table = || {
        if before == after {
            format!("the repository has the newest format already: {after}\n")
        } else {
            format!("the repository was upgraded from format {before} to format {after}\n")
        }
    };
    let name = || format!("{after}\n");
    terminal.print(&document(args.output.format, &value, table, name)?)?;
    Ok(Exit::Done)
}

pub(crate) async fn collect(args: &CollectRepo, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.direct.store, &store::direct_only(&args.direct.store)?).await?;
    let repacked = if args.delete && args.repack_below_percent > 0 {
        repack(&repo, args).await?
    } else {
        RepackReport::default()
    };
    let options = CollectOptions {
        delete: args.delete,
        grace: args.grace,
        keep_at_least: args.keep_at_least,
        delete_percent_max: args.delete_at_most_percent,
        stall: args.stall,
        ..CollectOptions::default()
    };
    terminal.say(if args.delete {
        "collecting; this waits for sessions that are at work"
    } else {
        "counting what nothing needs; --delete deletes it"
    });
    let report = repo.collect(&AllContents, &options).await?;
    let text = show_collection(args.direct.output.format, &report, &repacked)?;
    terminal.print(&text)?;
    Ok(Exit::Done)
}

async fn repack(repo: &Repository, args: &CollectRepo) -> Result<RepackReport, Error> {
    let cluster = repo.cluster_key(BY_HAND);
    loop {
        let below = args.repack_below_percent;
        let done = repo
            .repack(&AllContents, cluster, below, REPACK_BYTES_MAX)
            .await;
        match done {
            Err(lifebuoy_repo::Error::Outdated { .. }) => {}
            done => return Ok(done?),
        }
    }
}

fn show_collection(
    format: Format,
    report: &CollectReport,
    repacked: &RepackReport,
) -> Result<String, Error> {
    let value = json!({
        "generation": report.generation,
        "packs": report.packs,
        "bytes": report.bytes,
        "plainBytes": report.plain_bytes,
        "garbagePacks": report.garbage_packs,
        "garbageBytes": report.garbage_bytes,
        "disputedPacks": report.disputed_packs,
        "snapshots": report.snapshots,
        "forgotten": report.forgotten,
        "deletedPacks": report.deleted_packs,
        "deletedBytes": report.deleted_bytes,
        "deletedRecords": report.deleted_records,
        "fencedSessions": report.fenced,
        "repackedPacks": repacked.packs,
    });
    let table = || {
        let generation = report.generation.map(|n| n.to_string());
        let mut text = Description::default();
        text.line("Collection", generation.as_deref().unwrap_or("none"))
            .line("Packs", report.packs)
            .line("Bytes", report.bytes)
            .line("Garbage packs", report.garbage_packs)
            .line("Garbage bytes", report.garbage_bytes)
            .line("Points", report.snapshots)
            .line("Forgotten", report.forgotten)
            .line("Packs repacked", repacked.packs)
            .line("Packs deleted", report.deleted_packs)
            .line("Bytes deleted", report.deleted_bytes);
        text.to_string()
    };
    document(format, &value, table, || {
        report
            .generation
            .map_or_else(String::new, |n| format!("{n}\n"))
    })
}

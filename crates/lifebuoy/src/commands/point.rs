//! `lifebuoy recoverypoint`

use chrono::{DateTime, Utc};
use kube::ResourceExt;
use lifebuoy_api::{RecoveryPoint, time::from_kube};
use lifebuoy_engine::{
    archive::{Archive, Fidelity, Manifest},
    point::{self, Point},
    volumes::SavedBy,
};
use serde_json::{Value, json};

use crate::{
    args::{ClusterArgs, Format, ListPoints, MarkPoint, PointCommand, StoreArgs},
    cluster::Cluster,
    direct,
    error::Error,
    exit::Exit,
    output::{Description, Table, Terminal, age, document, listed},
    store::{self, Way},
};

pub(crate) async fn run(
    args: &ClusterArgs,
    command: PointCommand,
    terminal: Terminal,
) -> Result<Exit, Error> {
    match command {
        PointCommand::Pin(mark) => set_mark(&mark, Mark::Pinned, terminal).await,
        PointCommand::Unpin(mark) => set_mark(&mark, Mark::Unpinned, terminal).await,
        PointCommand::Forget(mark) => set_mark(&mark, Mark::Forgotten, terminal).await,
        PointCommand::List(list) => match store::way_here(&list.store, list.repository.is_some()) {
            Way::Operator => mirrored(args, &list, terminal).await,
            Way::Direct(url) => stored(&list, &url, terminal).await,
        },
        PointCommand::Describe(named) => match store::way_here(&named.store, false) {
            Way::Operator => {
                let cluster = Cluster::connect(args).await?;
                let point: RecoveryPoint = cluster.get(&named.point).await?;
                let text = match named.output.format {
                    Format::Table => describe_mirrored(&point).to_string(),
                    format => listed(format, &[point], true, || Table::new(&[]))?,
                };
                terminal.print(&text)?;
                Ok(Exit::Done)
            }
            Way::Direct(url) => {
                let text =
                    describe_stored(&named.store, &url, &named.point, named.output.format).await?;
                terminal.print(&text)?;
                Ok(Exit::Done)
            }
        },
    }
}

/// What is to be remembered of a point.
#[derive(Clone, Copy)]
enum Mark {
    Pinned,
    Unpinned,
    Forgotten,
}

async fn set_mark(args: &MarkPoint, mark: Mark, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.store, &store::direct_only(&args.store)?).await?;
    let (session, word) = match mark {
        Mark::Pinned => {
            let session = match args.point.parse() {
                // One that was forgotten can be pinned, and is not listed.
                Ok(session) => session,
                Err(_) => direct::find_snapshot(&repo, &args.point).await?.session,
            };
            repo.pin(session, &args.reason).await?;
            (session, "pinned")
        }
        Mark::Unpinned => {
            let session = direct::find_snapshot(&repo, &args.point).await?.session;
            repo.unpin(session, &args.reason).await?;
            (session, "unpinned")
        }
        Mark::Forgotten => {
            let snapshot = direct::find_snapshot(&repo, &args.point).await?;
            let session = snapshot.session;
            if snapshot.pinned {
                return Err(Error::Refused {
                    what: "forgetting".to_owned(),
                    message: format!("recovery point {session} is pinned"),
                    hint: "take the pin back first: `lifebuoy recoverypoint unpin`".to_owned(),
                });
            }
            repo.forget(session, &args.reason).await?;
            (session, "forgotten")
        }
    };
    terminal.print(&format!("recoverypoint {session} {word}"))?;
    Ok(Exit::Done)
}

/// What the cluster mirrors.
async fn mirrored(
    args: &ClusterArgs,
    list: &ListPoints,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let cluster = Cluster::connect(args).await?;
    let mut points: Vec<RecoveryPoint> = cluster.list("").await?;
    points.retain(|point| {
        let spec = &point.spec;
        list.repository
            .as_ref()
            .is_none_or(|name| spec.repository == *name)
            && wanted(list, &spec.cluster.name, &spec.schedule)
    });
    points.sort_by_key(|point| {
        let spec = &point.spec;
        (
            spec.cluster.clone(),
            spec.schedule.clone(),
            std::cmp::Reverse(from_kube(&spec.taken_at)),
        )
    });
    let table = || mirrored_table(&points, Utc::now());
    terminal.print(&listed(list.output.format, &points, false, table)?)?;
    Ok(Exit::Done)
}

fn wanted(list: &ListPoints, cluster: &str, schedule: &str) -> bool {
    list.cluster.as_ref().is_none_or(|name| cluster == name)
        && list.schedule.as_ref().is_none_or(|name| schedule == name)
}

/// What the repository holds.
async fn stored(list: &ListPoints, url: &str, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&list.store, url).await?;
    let found = point::points(&repo).await?;
    let points: Vec<Point> = found
        .points
        .into_iter()
        .filter(|point| wanted(list, &point.summary.cluster.name, &point.summary.schedule))
        .collect();
    let values: Vec<Value> = points.iter().map(value).collect();
    let text = document(
        list.output.format,
        &values,
        || {
            let table = stored_table(&points, Utc::now());
            if table.is_empty() {
                "nothing found\n".to_owned()
            } else {
                table.to_string()
            }
        },
        || {
            points
                .iter()
                .map(|point| format!("{}\n", point.snapshot.session))
                .collect()
        },
    )?;
    terminal.print(&text)?;
    for (record, why) in &found.unreadable {
        terminal.say(&format!("error: {record} cannot be read: {why}"));
    }
    Ok(if found.unreadable.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    })
}

async fn describe_stored(
    args: &StoreArgs,
    url: &str,
    name: &str,
    format: Format,
) -> Result<String, Error> {
    let repo = store::open(args, url).await?;
    let point = direct::find(&repo, name).await?;
    let archive = Archive::open(&repo, point.snapshot.session).await?;
    let mut whole = value(&point);
    whole["manifest"] = serde_json::to_value(&archive.manifest)
        .map_err(|error| Error::document("the manifest", error))?;
    document(
        format,
        &whole,
        || {
            let mut text = describe(&point);
            describe_manifest(&mut text, &archive.manifest);
            text.to_string()
        },
        || format!("{}\n", point.snapshot.session),
    )
}

/// A point that was just made or found; `more` is for people.
///
/// # Errors
/// None in practice: every value has a JSON form.
pub(super) fn shown(
    format: Format,
    point: &Point,
    more: Option<&Description>,
) -> Result<String, Error> {
    let table = || {
        let mut text = describe(point).to_string();
        text.push_str(&more.map(ToString::to_string).unwrap_or_default());
        text
    };
    document(format, &value(point), table, || {
        format!("{}\n", point.snapshot.session)
    })
}

fn value(point: &Point) -> Value {
    let summary = &point.summary;
    json!({
        "snapshot": point.snapshot.session.to_string(),
        "sequence": point.snapshot.seq,
        "cluster": summary.cluster,
        "schedule": summary.schedule,
        "backup": summary.backup,
        "takenAt": summary.taken_at,
        "completeness": summary.completeness,
        "consistency": summary.consistency,
        "objects": summary.objects,
        "kubernetesVersion": summary.kubernetes_version,
        "pinned": point.snapshot.pinned,
        "forgotten": point.snapshot.forgotten,
    })
}

/// What people said of a point: one that is forgotten is only listed while a pin
/// keeps it.
fn marks(point: &Point) -> &'static str {
    match (point.snapshot.pinned, point.snapshot.forgotten) {
        (false, false) => "",
        (true, false) => "pinned",
        (false, true) => "forgotten",
        (true, true) => "pinned, forgotten",
    }
}

fn describe(point: &Point) -> Description {
    let summary = &point.summary;
    let mut text = Description::default();
    text.line("Snapshot", point.snapshot.session)
        .line(
            "Cluster",
            format!("{} ({})", summary.cluster.name, summary.cluster.uid),
        )
        .line("Kubernetes", &summary.kubernetes_version)
        .line("Schedule", &summary.schedule)
        .line("Backup", &summary.backup)
        .line("Taken", summary.taken_at.format("%Y-%m-%d %H:%M:%S UTC"))
        .line("Completeness", format!("{:?}", summary.completeness))
        .line("Consistency", format!("{:?}", summary.consistency))
        .line("Objects", summary.objects)
        .line("Marks", marks(point));
    text
}

fn describe_manifest(text: &mut Description, manifest: &Manifest) {
    let mut types = Table::new(&["TYPE", "VERSION", "OBJECTS", "BYTES", "READ"]);
    for of in manifest
        .types
        .iter()
        .filter(|of| of.objects > 0 || of.fidelity != Fidelity::Exact)
    {
        let read = match &of.fidelity {
            Fidelity::Exact => "exact".to_owned(),
            Fidelity::Fuzzy { reason } => format!("fuzzy: {reason}"),
            Fidelity::Unavailable { reason } => format!("unavailable: {reason}"),
        };
        types.row(vec![
            of.id().to_string(),
            of.version.clone(),
            of.objects.to_string(),
            of.bytes.to_string(),
            read,
        ]);
    }
    let claims: String = manifest
        .volumes_not_saved
        .iter()
        .map(|claim| format!("{claim}\n"))
        .collect();
    let mut volumes = Table::new(&["VOLUME", "CLASS", "MODE", "WAY", "BYTES", "STORED", "WHY"]);
    for volume in &manifest.volumes_saved {
        let stored = match &volume.saved {
            SavedBy::Move(data) | SavedBy::FileSystem(data) => data.bytes_stored.to_string(),
            // None of it is in the repository.
            SavedBy::Snapshot(_) => "0".to_owned(),
        };
        let kept = volume
            .saved
            .kept()
            .map(|kept| format!("{}: {kept}", volume.reason));
        volumes.row(vec![
            volume.claim.to_string(),
            volume.storage_class.clone(),
            format!("{:?}", volume.volume_mode),
            volume.saved.way().to_owned(),
            volume.saved.bytes().to_string(),
            stored,
            kept.unwrap_or_else(|| volume.reason.clone()),
        ]);
    }
    text.maybe("Revision", manifest.revision.as_ref())
        .section("Types", types);
    if !volumes.is_empty() {
        text.section("Volumes", volumes);
    }
    text.section("Claims without their data", claims).problems(
        &manifest.problems,
        i64::try_from(manifest.problems.len()).unwrap_or(i64::MAX),
    );
}

fn stored_table(points: &[Point], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&[
        "SNAPSHOT",
        "CLUSTER",
        "SCHEDULE",
        "BACKUP",
        "COMPLETENESS",
        "CONSISTENCY",
        "OBJECTS",
        "MARKS",
        "AGE",
    ]);
    for point in points {
        let summary = &point.summary;
        table.row(vec![
            point.snapshot.session.to_string(),
            summary.cluster.name.clone(),
            summary.schedule.clone(),
            summary.backup.clone(),
            format!("{:?}", summary.completeness),
            format!("{:?}", summary.consistency),
            summary.objects.to_string(),
            marks(point).to_owned(),
            age(summary.taken_at, now),
        ]);
    }
    table
}

fn mirrored_table(points: &[RecoveryPoint], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "REPOSITORY",
        "CLUSTER",
        "SCHEDULE",
        "COMPLETENESS",
        "CONSISTENCY",
        "OBJECTS",
        "AGE",
    ]);
    for point in points {
        let spec = &point.spec;
        table.row(vec![
            point.name_any(),
            spec.repository.clone(),
            spec.cluster.name.clone(),
            spec.schedule.clone(),
            format!("{:?}", spec.completeness),
            format!("{:?}", spec.consistency),
            spec.objects.to_string(),
            age(from_kube(&spec.taken_at), now),
        ]);
    }
    table
}

fn describe_mirrored(point: &RecoveryPoint) -> Description {
    let spec = &point.spec;
    let mut text = Description::default();
    text.line("Name", point.name_any())
        .line("Repository", &spec.repository)
        .line("Snapshot", &spec.snapshot)
        .line(
            "Cluster",
            format!("{} ({})", spec.cluster.name, spec.cluster.uid),
        )
        .line("Kubernetes", &spec.kubernetes_version)
        .line("Schedule", &spec.schedule)
        .line("Backup", &spec.backup)
        .line("Taken", spec.taken_at.0)
        .line("Completeness", format!("{:?}", spec.completeness))
        .line("Consistency", format!("{:?}", spec.consistency))
        .line("Objects", spec.objects);
    if let Some(status) = &point.status {
        text.conditions(&status.conditions);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrored_points_are_listed_and_described() {
        let point: RecoveryPoint =
            serde_saphyr::from_str(include_str!("../../tests/objects/recovery_point.yaml"))
                .unwrap();
        let now = DateTime::from_timestamp(1_795_478_400, 0).unwrap();
        insta::assert_snapshot!("points", mirrored_table(std::slice::from_ref(&point), now));
        insta::assert_snapshot!("point", describe_mirrored(&point));
    }
}

//! `lifebuoy restore`

use chrono::{DateTime, Utc};
use kube::ResourceExt;
use lifebuoy_api::{
    FOR_LABEL, Restore, RestoreCounts, RestoreSource, RestoreVolumes, VolumeRestore,
};
use lifebuoy_engine::{
    restore::{Plan, report::Report},
    volumes::Size,
};
use serde_json::{Value, json};

use super::{backup::took, bounded, data};
use crate::{
    args::{ClusterArgs, CreateRestore, Format, RestoreCommand, RestoreRequest},
    cluster::Cluster,
    direct::{Opened, Run},
    documents,
    error::Error,
    exit::Exit,
    follow::{conclude, follow},
    output::{Description, Table, Terminal, age_of, document, listed},
    requests,
    store::{self, Way},
};

pub(crate) async fn run(
    args: &ClusterArgs,
    command: RestoreCommand,
    terminal: Terminal,
) -> Result<Exit, Error> {
    match command {
        RestoreCommand::Plan(request) => match way(&request)? {
            Way::Operator => plan_through_operator(args, &request, terminal).await,
            Way::Direct(url) => plan_direct(args, &request, &url, terminal).await,
        },
        RestoreCommand::Create(create) => match way(&create.request)? {
            Way::Operator => create_through_operator(args, &create, terminal).await,
            Way::Direct(url) => create_direct(args, &create, &url, terminal).await,
        },
        RestoreCommand::Files(files) => {
            if files.whose.volume.is_none() {
                return Err(Error::usage(
                    "which volume?",
                    "give --volume with the namespace and name of its claim",
                ));
            }
            data::restore(&files, terminal).await
        }
        RestoreCommand::List(list) => {
            let restores: Vec<Restore> = Cluster::connect(args).await?.list("").await?;
            let table = || table(&restores, Utc::now());
            terminal.print(&listed(list.output.format, &restores, false, table)?)?;
            Ok(Exit::Done)
        }
        RestoreCommand::Describe(named) => {
            let cluster = Cluster::connect(args).await?;
            let restore: Restore = cluster.get(&named.name).await?;
            terminal.print(&shown(&cluster, named.output.format, &restore).await?)?;
            Ok(Exit::Done)
        }
    }
}

fn way(request: &RestoreRequest) -> Result<Way, Error> {
    let names_objects = requests::names_objects(request)?;
    match store::way_here(&request.store, names_objects) {
        Way::Operator if !names_objects => Err(Error::usage(
            "what is to be restored?",
            "give --from-point or --repository to go through the operator, or --repo to work direct",
        )),
        way => Ok(way),
    }
}

async fn plan_through_operator(
    args: &ClusterArgs,
    request: &RestoreRequest,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let cluster = Cluster::connect(args).await?;
    let made = cluster.create(&requests::plan(request)?).await?;
    terminal.say(&format!(
        "restore {} created, which only plans",
        made.name_any()
    ));
    let (ended, verdict) = follow(&cluster, &made, request.wait.timeout, terminal).await?;
    let documents = Documents::read(&cluster, &ended).await?;
    if let Some(plan) = &documents.plan {
        terminal.print(&shown_plan(request.output.format, plan)?)?;
    }
    conclude(&ended, verdict)
}

async fn create_through_operator(
    args: &ClusterArgs,
    create: &CreateRestore,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let request = &create.request;
    let cluster = Cluster::connect(args).await?;
    let made = cluster.create(&requests::restore(create)?).await?;
    if !request.wait.wait {
        let made = [made];
        let table = || table(&made, Utc::now());
        terminal.print(&listed(request.output.format, &made, true, table)?)?;
        return Ok(Exit::Done);
    }
    terminal.say(&format!("restore {} created", made.name_any()));
    let (ended, verdict) = follow(&cluster, &made, request.wait.timeout, terminal).await?;
    terminal.print(&shown(&cluster, request.output.format, &ended).await?)?;
    conclude(&ended, verdict)
}

async fn planned(
    args: &ClusterArgs,
    request: &RestoreRequest,
    restore: Restore,
    url: &str,
    terminal: Terminal,
) -> Result<Run, Error> {
    let cluster = Cluster::connect(args).await?;
    let repo = store::open(&request.store, url).await?;
    let opened = Opened::open(&repo, restore.spec).await?;
    terminal.say(&format!("restoring {}", opened.describe()));
    opened.plan(&cluster.client, terminal).await
}

async fn plan_direct(
    args: &ClusterArgs,
    request: &RestoreRequest,
    url: &str,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let restore = requests::plan(request)?;
    let run = bounded(
        "the plan",
        request.wait.timeout,
        async |cancel| {
            let work = planned(args, request, restore, url, terminal);
            match cancel.run_until_cancelled(work).await {
                Some(planned) => planned,
                None => Err(lifebuoy_engine::Error::Cancelled.into()),
            }
        },
        "nothing was changed; give it more time",
    )
    .await?;
    terminal.print(&shown_plan(request.output.format, &run.plan)?)?;
    run.refusal()?;
    Ok(Exit::Done)
}

async fn create_direct(
    args: &ClusterArgs,
    create: &CreateRestore,
    url: &str,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let request = &create.request;
    let restore = requests::restore(create)?;
    let digest = restore.spec.plan_digest.clone();
    let report = bounded(
        "the restore",
        request.wait.timeout,
        async |cancel| {
            let work = planned(args, request, restore, url, terminal);
            let run = match cancel.run_until_cancelled(work).await {
                Some(planned) => planned?,
                None => return Err(lifebuoy_engine::Error::Cancelled.into()),
            };
            let report = run.apply(digest.as_deref(), &cancel, terminal).await?;
            if report.cancelled {
                terminal.say(&report.table());
                return Err(lifebuoy_engine::Error::Cancelled.into());
            }
            Ok(report)
        },
        "what was restored stays; the same command goes on from there",
    )
    .await?;
    terminal.print(&shown_report(request.output.format, &report)?)?;
    Ok(exit_of(&report.counts))
}

/// Whether something that was asked for is missing.
fn exit_of(counts: &RestoreCounts) -> Exit {
    if counts.failed > 0 || counts.withheld > 0 {
        Exit::Partial
    } else {
        Exit::Done
    }
}

fn shown_plan(format: Format, plan: &Plan) -> Result<String, Error> {
    document(
        format,
        &plan_value(plan)?,
        || plan.table(),
        || format!("{}\n", plan.digest),
    )
}

fn plan_value(plan: &Plan) -> Result<Value, Error> {
    let mut lines = documents::lines("the plan", &plan.to_bytes()?)?;
    let head = if lines.is_empty() {
        Value::Null
    } else {
        lines.remove(0)
    };
    Ok(json!({
        "digest": plan.digest.as_str(),
        "summary": plan.summary(),
        "plan": head,
        "objects": lines,
    }))
}

fn shown_report(format: Format, report: &Report) -> Result<String, Error> {
    document(
        format,
        &report_value(report)?,
        || report.table(),
        || {
            let subjects = report
                .outcomes
                .iter()
                .map(|outcome| report.subject(outcome));
            subjects.map(|subject| format!("{subject}\n")).collect()
        },
    )
}

fn report_value(report: &Report) -> Result<Value, Error> {
    let mut lines = documents::lines("the report", &report.to_bytes()?)?;
    let head = if lines.is_empty() {
        Value::Null
    } else {
        lines.remove(0)
    };
    Ok(json!({"report": head, "objects": lines}))
}

/// The plan and the report of a Restore, as far as there are any.
#[derive(Default)]
struct Documents {
    plan: Option<Plan>,
    report: Option<Report>,
}

impl Documents {
    async fn read(cluster: &Cluster, restore: &Restore) -> Result<Self, Error> {
        let Some(status) = &restore.status else {
            return Ok(Self::default());
        };
        let plan = documents::read(cluster, &status.plan_secrets).await?;
        let report = documents::read(cluster, &status.report_secrets).await?;
        Ok(Self {
            plan: plan.map(|bytes| Plan::from_bytes(&bytes)).transpose()?,
            report: report.map(|bytes| Report::from_bytes(&bytes)).transpose()?,
        })
    }
}

async fn shown(cluster: &Cluster, format: Format, restore: &Restore) -> Result<String, Error> {
    if format == Format::Name {
        return listed(format, std::slice::from_ref(restore), true, || {
            Table::new(&[])
        });
    }
    let Documents { plan, report } = Documents::read(cluster, restore).await?;
    let volumes = volumes_of(cluster, restore).await?;
    let mut object = restore.clone();
    object.metadata.managed_fields = None;
    let value = json!({
        "restore": object,
        "volumes": volumes,
        "plan": plan.as_ref().map(plan_value).transpose()?,
        "report": report.as_ref().map(report_value).transpose()?,
    });
    let table = || {
        let mut text = describe(restore);
        if !volumes.is_empty() {
            text.section("Volumes", volume_table(&volumes));
        }
        // The report says what became of the plan.
        match (&report, &plan) {
            (Some(report), _) => text.section("Report", report.table()),
            (None, Some(plan)) => text.section("Plan", plan.table()),
            (None, None) => &mut text,
        };
        text.to_string()
    };
    document(format, &value, table, String::new)
}

fn table(restores: &[Restore], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&["NAME", "PHASE", "MODE", "PLANNED", "DONE", "FAILED", "AGE"]);
    for restore in restores {
        let status = restore.status.clone().unwrap_or_default();
        table.row(vec![
            restore.name_any(),
            status.phase,
            format!("{:?}", restore.spec.mode),
            status.counts.planned.to_string(),
            status.counts.done.to_string(),
            status.counts.failed.to_string(),
            age_of(restore.metadata.creation_timestamp.as_ref(), now),
        ]);
    }
    table
}

fn describe(restore: &Restore) -> Description {
    let status = restore.status.clone().unwrap_or_default();
    let counts = &status.counts;
    let mut text = Description::default();
    text.line("Name", restore.name_any())
        .line("Namespace", restore.namespace().unwrap_or_default())
        .line("From", source(&restore.spec.from))
        .line("Mode", format!("{:?}", restore.spec.mode))
        .line("Phase", &status.phase)
        .maybe("Snapshot", status.snapshot.as_ref())
        .maybe("Plan digest", status.plan_digest.as_ref())
        .maybe("Started", status.start_time.as_ref().map(|at| at.0))
        .maybe(
            "Took",
            took(status.start_time.as_ref(), status.completion_time.as_ref()),
        )
        .line("Attempts", status.attempts)
        .line(
            "Objects",
            format!("{} of {} done", counts.done, counts.planned),
        )
        .line(
            "Outcomes",
            format!(
                "{} created, {} merged, {} replaced, {} left alone, {} withheld, {} failed",
                counts.created,
                counts.merged,
                counts.replaced,
                counts.skipped,
                counts.withheld,
                counts.failed
            ),
        )
        .maybe("Volumes", status.volumes.as_ref().map(volumes))
        .conditions(&status.conditions)
        .problems(&status.problems, status.problem_count);
    text
}

/// The VolumeRestores of a Restore; none are asked for where it has no volumes.
async fn volumes_of(cluster: &Cluster, restore: &Restore) -> Result<Vec<VolumeRestore>, Error> {
    let some = restore.status.as_ref().is_some_and(|s| s.volumes.is_some());
    match restore.uid() {
        Some(uid) if some => {
            let mut found: Vec<VolumeRestore> = cluster.list(&format!("{FOR_LABEL}={uid}")).await?;
            for volume in &mut found {
                volume.metadata.managed_fields = None;
            }
            Ok(found)
        }
        _ => Ok(Vec::new()),
    }
}

fn volume_table(volumes: &[VolumeRestore]) -> Table {
    let mut table = Table::new(&["CLAIM", "PHASE", "DATA", "NODE", "MESSAGE"]);
    for volume in volumes {
        let status = volume.status.clone().unwrap_or_default();
        let claim = &volume.spec.claim;
        let size = |bytes: i64| Size(u64::try_from(bytes).unwrap_or(0));
        let progress = &status.progress;
        // All conditions of a request have the message of where it is.
        let message = status.conditions.last().map(|c| c.message.clone());
        table.row(vec![
            format!("{}/{}", claim.namespace, claim.name),
            status.phase,
            format!("{} of {}", size(progress.bytes), size(progress.bytes_total)),
            status.node.unwrap_or_default(),
            message.unwrap_or_default(),
        ]);
    }
    table
}

fn volumes(volumes: &RestoreVolumes) -> String {
    let RestoreVolumes {
        total,
        done,
        overwritten,
        failed,
        waiting,
        bytes,
        bytes_total,
    } = volumes;
    let size = |bytes: &i64| Size(u64::try_from(*bytes).unwrap_or(0));
    let over = match overwritten {
        0 => String::new(),
        some => format!(" ({some} of them overwritten)"),
    };
    format!(
        "{done} of {total} filled{over}, {failed} failed, {waiting} waiting for pods; {} of {}",
        size(bytes),
        size(bytes_total)
    )
}

fn source(from: &RestoreSource) -> String {
    let RestoreSource {
        recovery_point,
        repository,
        snapshot,
        cluster,
        schedule,
    } = from;
    let parts = [
        ("recovery point", recovery_point),
        ("repository", repository),
        ("snapshot", snapshot),
        ("cluster", cluster),
        ("schedule", schedule),
    ];
    parts
        .iter()
        .filter_map(|(what, name)| name.as_ref().map(|name| format!("{what} {name}")))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Restore {
        serde_saphyr::from_str(include_str!("../../tests/objects/restore.yaml")).unwrap()
    }

    #[test]
    fn a_restore_is_described_and_listed() {
        let now = DateTime::from_timestamp(1_795_478_400, 0).unwrap();
        insta::assert_snapshot!("restore", describe(&some()));
        insta::assert_snapshot!("restores", table(&[some()], now));
    }

    #[test]
    fn volumes_are_listed_with_what_they_wait_for() {
        let yaml = include_str!("../../tests/objects/volumerestore.yaml");
        let volume: VolumeRestore = serde_saphyr::from_str(yaml).unwrap();
        insta::assert_snapshot!(volume_table(&[volume]), @r"
        CLAIM             PHASE     DATA                 NODE       MESSAGE
        store/data-db-0   Running   1.5 GiB of 3.0 GiB   worker-1   it is being filled
        ");
    }

    #[test]
    fn what_is_missing_shows_in_the_exit_code() {
        let counts = |failed, withheld| RestoreCounts {
            failed,
            withheld,
            ..Default::default()
        };
        assert_eq!(exit_of(&counts(0, 0)), Exit::Done);
        assert_eq!(exit_of(&counts(1, 0)), Exit::Partial);
        assert_eq!(exit_of(&counts(0, 1)), Exit::Partial);
    }
}

//! `lifebuoy backup`

use chrono::{DateTime, Utc};
use kube::ResourceExt;
use lifebuoy_api::{Backup, Completeness, SCHEDULE_LABEL, Schedule, Severity, time::from_kube};
use lifebuoy_engine::capture::Captured;

use super::{bounded, point};
use crate::{
    args::{BackupCommand, ClusterArgs, CreateBackup},
    cluster::Cluster,
    conditions::verdict,
    direct::{self, Saving},
    error::Error,
    exit::Exit,
    follow::{conclude, follow},
    output::{Description, Table, Terminal, age_of, duration, listed},
    requests,
    store::{self, Way},
};

pub(crate) async fn run(
    args: &ClusterArgs,
    command: BackupCommand,
    terminal: Terminal,
) -> Result<Exit, Error> {
    match command {
        BackupCommand::Create(create) => match way(&create)? {
            Way::Operator => through_operator(args, &create, terminal).await,
            Way::Direct(url) => direct(args, &create, &url, terminal).await,
        },
        BackupCommand::List(list) => {
            let cluster = Cluster::connect(args).await?;
            let labels = list.schedule.map(|name| format!("{SCHEDULE_LABEL}={name}"));
            let backups: Vec<Backup> = cluster.list(labels.as_deref().unwrap_or_default()).await?;
            let table = || table(&backups, Utc::now());
            terminal.print(&listed(list.output.format, &backups, false, table)?)?;
            Ok(Exit::Done)
        }
        BackupCommand::Describe(named) => {
            let cluster = Cluster::connect(args).await?;
            let backup: Backup = cluster.get(&named.name).await?;
            terminal.print(&shown(named.output.format, &backup)?)?;
            Ok(Exit::Done)
        }
    }
}

fn way(create: &CreateBackup) -> Result<Way, Error> {
    let names_objects = create.repository.is_some() || create.from_schedule.is_some();
    match store::way_here(&create.store, names_objects) {
        Way::Operator if !names_objects => Err(Error::usage(
            "where is it to be saved?",
            "give --repository or --from-schedule to go through the operator, or --repo to work \
             direct",
        )),
        way => Ok(way),
    }
}

async fn through_operator(
    args: &ClusterArgs,
    create: &CreateBackup,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let cluster = Cluster::connect(args).await?;
    let name = create.name.as_deref();
    let backup = match (&create.from_schedule, &create.repository) {
        (Some(schedule), _) => requests::backup_of(&cluster.get::<Schedule>(schedule).await?, name),
        (None, repository) => {
            let repository = repository.as_deref().unwrap_or_default();
            requests::backup(name, requests::backup_spec(create, repository))
        }
    };
    let made = cluster.create(&backup).await?;
    if !create.wait.wait {
        terminal.print(&listed(
            create.output.format,
            std::slice::from_ref(&made),
            true,
            || table(std::slice::from_ref(&made), Utc::now()),
        )?)?;
        return Ok(Exit::Done);
    }
    terminal.say(&format!("backup {} created", made.name_any()));
    let (ended, verdict) = follow(&cluster, &made, create.wait.timeout, terminal).await?;
    terminal.print(&shown(create.output.format, &ended)?)?;
    conclude(&ended, verdict)
}

async fn direct(
    args: &ClusterArgs,
    create: &CreateBackup,
    url: &str,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let cluster_name = create.cluster_name.clone().ok_or_else(|| {
        Error::usage(
            "--cluster-name is missing",
            "recovery points are found under the name of their cluster: choose a unique one, and \
             keep to it",
        )
    })?;
    check_cluster_name(&cluster_name)?;
    let cluster = Cluster::connect(args).await?;
    let repo = store::open(&create.store, url).await?;
    let at = Utc::now();
    let name = create
        .name
        .clone()
        .unwrap_or_else(|| format!("direct-{}", at.format("%Y%m%d%H%M%S")));
    let saving = Saving {
        name,
        cluster_name,
        own_namespace: cluster.namespace.clone(),
        spec: requests::backup_spec(create, ""),
        at,
    };
    let captured = bounded(
        "the backup",
        create.wait.timeout,
        async |cancel| direct::save(&cluster.client, &repo, saving, &cancel, terminal).await,
        "nothing was saved; give it more time",
    )
    .await?;
    terminal.print(&point::shown(
        create.output.format,
        &captured.point,
        Some(&text_of(&captured)),
    )?)?;
    Ok(exit_of(&captured))
}

/// As the installation's `clusterName` must be: a DNS label.
fn check_cluster_name(name: &str) -> Result<(), Error> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&name.len())
        && name.bytes().all(fits)
        && !name.starts_with('-')
        && !name.ends_with('-')
    {
        return Ok(());
    }
    Err(Error::usage(
        format!("--cluster-name: `{name}` is no DNS label"),
        "use at most 63 lower-case letters, digits and hyphens",
    ))
}

fn text_of(captured: &Captured) -> Description {
    let mut text = Description::default();
    let stats = &captured.stats;
    text.line(
        "Stored",
        format!("{} bytes in {} objects", stats.bytes_stored, stats.puts),
    )
    .problems(
        &captured.problems,
        i64::try_from(captured.problems.len()).unwrap_or(i64::MAX),
    );
    text
}

fn exit_of(captured: &Captured) -> Exit {
    let missing = captured
        .problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    if missing || captured.point.summary.completeness == Completeness::Partial {
        Exit::Partial
    } else {
        Exit::Done
    }
}

fn table(backups: &[Backup], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "PHASE",
        "REPOSITORY",
        "SCHEDULE",
        "OBJECTS",
        "POINT",
        "AGE",
    ]);
    for backup in backups {
        let status = backup.status.clone().unwrap_or_default();
        table.row(vec![
            backup.name_any(),
            status.phase,
            backup.spec.repository.clone(),
            backup
                .labels()
                .get(SCHEDULE_LABEL)
                .cloned()
                .unwrap_or_default(),
            status.progress.objects.to_string(),
            status.recovery_point.unwrap_or_default(),
            age_of(backup.metadata.creation_timestamp.as_ref(), now),
        ]);
    }
    table
}

fn shown(format: crate::args::Format, backup: &Backup) -> Result<String, Error> {
    use crate::args::Format;
    match format {
        Format::Table => Ok(describe(backup).to_string()),
        _ => listed(format, std::slice::from_ref(backup), true, || {
            Table::new(&[])
        }),
    }
}

fn describe(backup: &Backup) -> Description {
    let status = backup.status.clone().unwrap_or_default();
    let progress = &status.progress;
    let mut text = Description::default();
    text.line("Name", backup.name_any())
        .line("Namespace", backup.namespace().unwrap_or_default())
        .line("Repository", &backup.spec.repository)
        .maybe("Schedule", backup.labels().get(SCHEDULE_LABEL))
        .line("Phase", &status.phase)
        .maybe("Started", status.start_time.as_ref().map(|at| at.0))
        .maybe(
            "Took",
            took(status.start_time.as_ref(), status.completion_time.as_ref()),
        )
        .line("Attempts", status.attempts)
        .line(
            "Types",
            format!("{} of {}", progress.types, progress.types_total),
        )
        .line(
            "Objects",
            format!("{} ({} bytes)", progress.objects, progress.bytes),
        )
        .line(
            "Stored",
            format!(
                "{} bytes in {} objects",
                progress.bytes_stored, progress.puts
            ),
        )
        .maybe(
            "Consistency",
            status
                .consistency
                .map(|consistency| format!("{consistency:?}")),
        )
        .maybe("Snapshot", status.snapshot.as_ref())
        .maybe("Point", status.recovery_point.as_ref())
        .conditions(&status.conditions)
        .problems(&status.problems, status.problem_count);
    if verdict(&status.conditions).is_none() && backup.spec.cancel {
        text.line("Cancel", "asked for");
    }
    text
}

/// How long something took that has begun and ended.
pub(super) fn took(
    start: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    end: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
) -> Option<String> {
    let span = from_kube(end?) - from_kube(start?);
    Some(duration(span.to_std().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Backup {
        serde_saphyr::from_str(include_str!("../../tests/objects/backup.yaml")).unwrap()
    }

    #[test]
    fn a_backup_is_described() {
        insta::assert_snapshot!(describe(&some()));
    }

    #[test]
    fn backups_are_listed() {
        let now = DateTime::from_timestamp(1_795_478_400, 0).unwrap();
        insta::assert_snapshot!(table(&[some()], now));
    }

    #[test]
    fn a_cluster_name_is_a_dns_label() {
        for name in ["a", "frankfurt-1", "0"] {
            assert!(check_cluster_name(name).is_ok(), "{name}");
        }
        for name in ["", "A", "a.b", "-a", "a-", "ä"] {
            assert!(check_cluster_name(name).is_err(), "{name}");
        }
    }
}

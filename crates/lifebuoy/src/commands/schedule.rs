//! `lifebuoy schedule`

use chrono::Utc;
use kube::ResourceExt;
use lifebuoy_api::{ConditionType, Repository, Schedule, find};
use serde_json::json;

use crate::{
    args::{ClusterArgs, ScheduleCommand},
    cluster::Cluster,
    error::Error,
    exit::Exit,
    output::{Table, Terminal, age_of, listed},
};

pub(crate) async fn run(
    args: &ClusterArgs,
    command: ScheduleCommand,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let cluster = Cluster::connect(args).await?;
    match command {
        ScheduleCommand::List(list) => {
            let schedules: Vec<Schedule> = cluster.list("").await?;
            let text = listed(list.output.format, &schedules, false, || {
                table(&schedules, Utc::now())
            })?;
            terminal.print(&text)?;
        }
        ScheduleCommand::Suspend(args) => {
            switch(&cluster, &args.name, true).await?;
            terminal.print(&format!("schedule.lifebuoy.dev/{} suspended", args.name))?;
        }
        ScheduleCommand::Resume(args) => {
            let schedule = switch(&cluster, &args.name, false).await?;
            terminal.print(&format!("schedule.lifebuoy.dev/{} resumed", args.name))?;
            warn_of_repository(&cluster, &schedule, terminal).await?;
        }
    }
    Ok(Exit::Done)
}

async fn switch(cluster: &Cluster, name: &str, suspend: bool) -> Result<Schedule, Error> {
    // A patch of what is not there is answered less clearly.
    cluster.get::<Schedule>(name).await?;
    cluster
        .patch(name, &json!({"spec": {"suspend": suspend}}))
        .await
}

/// A Schedule that saves to a suspended Repository saves nothing.
async fn warn_of_repository(
    cluster: &Cluster,
    schedule: &Schedule,
    terminal: Terminal,
) -> Result<(), Error> {
    let name = &schedule.spec.template.spec.repository;
    let repositories: Vec<Repository> = cluster.list("").await?;
    match repositories
        .iter()
        .find(|repository| repository.name_any() == *name)
    {
        None => terminal.say(&format!("warning: there is no Repository `{name}`")),
        Some(repository) if repository.spec.suspend => terminal.say(&format!(
            "warning: the Repository `{name}` is suspended: `lifebuoy repo resume {name}`"
        )),
        Some(_) => {}
    }
    Ok(())
}

fn table(schedules: &[Schedule], now: chrono::DateTime<Utc>) -> Table {
    let mut table = Table::new(&[
        "NAME", "CRON", "TIMEZONE", "SUSPEND", "READY", "LAST", "NEXT", "AGE",
    ]);
    for schedule in schedules {
        let status = schedule.status.clone().unwrap_or_default();
        let ready = find(&status.conditions, ConditionType::Ready);
        let ago = |at: Option<&_>| at.map(|_| age_of(at, now)).unwrap_or_default();
        table.row(vec![
            schedule.name_any(),
            schedule.spec.cron.clone(),
            schedule.spec.time_zone.clone(),
            schedule.spec.suspend.to_string(),
            ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
            ago(status.last_successful_time.as_ref()),
            status
                .next_schedule_time
                .map(|at| at.0.to_string())
                .unwrap_or_default(),
            age_of(schedule.metadata.creation_timestamp.as_ref(), now),
        ]);
    }
    table
}

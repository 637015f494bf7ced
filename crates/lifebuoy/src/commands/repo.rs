//! `lifebuoy repo`

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use kube::ResourceExt;
use lifebuoy_api::{ConditionType, PointCluster, Repository, find};
use lifebuoy_engine::point::points;
use lifebuoy_repo::{Access, KdfCost, Repository as Opened, StoreAbilities};
use serde_json::{Value, json};

use super::{care, data};
use crate::{
    args::{ClusterArgs, Format, RepoCommand, RepoStatus, StoreArgs},
    cluster::Cluster,
    error::Error,
    exit::Exit,
    output::{Description, Table, Terminal, age_of, document, listed},
    store::{self, Way},
};

pub(crate) async fn run(
    args: &ClusterArgs,
    command: RepoCommand,
    terminal: Terminal,
) -> Result<Exit, Error> {
    match command {
        RepoCommand::Init(init) => init_repository(&init.store, init.output.format, terminal).await,
        RepoCommand::Status(status) => {
            match store::way_here(&status.direct.store, status.name.is_some()) {
                Way::Operator => in_cluster(args, &status, terminal).await,
                Way::Direct(url) => straight(&status, &url, terminal).await,
            }
        }
        RepoCommand::Check(check) => care::check(&check, terminal).await,
        RepoCommand::Repair(check) => care::repair(&check, terminal).await,
        RepoCommand::Upgrade(upgrade) => care::upgrade(&upgrade, terminal).await,
        RepoCommand::Collect(collect) => care::collect(&collect, terminal).await,
        RepoCommand::Save(args) => data::save(&args, terminal).await,
        RepoCommand::Restore(args) => data::restore(&args, terminal).await,
        RepoCommand::Ls(args) => data::list(&args, terminal).await,
        RepoCommand::Cat(args) => data::cat(&args).await,
        RepoCommand::Diff(args) => data::diff(&args).await,
        RepoCommand::Suspend(named) => switch(args, &named.name, true, terminal).await,
        RepoCommand::Resume(named) => switch(args, &named.name, false, terminal).await,
    }
}

async fn init_repository(
    args: &StoreArgs,
    format: Format,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let Way::Direct(url) = store::way_here(args, false) else {
        return Err(Error::usage(
            "where is the repository to be made?",
            "give --repo; a Repository in the cluster makes its own by `initialize: IfMissing`",
        ));
    };
    let passphrase = store::passphrase(args)?;
    let objects = store::objects(args, &url)?;
    let repo = Opened::init(objects, &passphrase, KdfCost::default()).await?;
    terminal.say("repository made: keep the passphrase in a second place, nobody can replace it");
    let view = View {
        url,
        abilities: Some(repo.probe().await?),
        clusters: BTreeMap::new(),
    };
    show(&repo, &view, format, terminal)
}

/// What is shown of an open repository, besides what its handle says.
struct View {
    url: String,
    abilities: Option<StoreAbilities>,
    /// How many points there are of each cluster.
    clusters: BTreeMap<PointCluster, u64>,
}

async fn straight(args: &RepoStatus, url: &str, terminal: Terminal) -> Result<Exit, Error> {
    let repo = store::open(&args.direct.store, url).await?;
    let found = points(&repo).await?;
    let mut clusters = BTreeMap::new();
    for point in &found.points {
        *clusters.entry(point.summary.cluster.clone()).or_default() += 1;
    }
    let abilities = if args.probe {
        Some(repo.probe().await?)
    } else {
        None
    };
    let view = View {
        url: url.to_owned(),
        abilities,
        clusters,
    };
    let exit = show(&repo, &view, args.direct.output.format, terminal)?;
    for (record, why) in &found.unreadable {
        terminal.say(&format!("error: {record} cannot be read: {why}"));
    }
    Ok(if found.unreadable.is_empty() {
        exit
    } else {
        Exit::Partial
    })
}

fn show(repo: &Opened, view: &View, format: Format, terminal: Terminal) -> Result<Exit, Error> {
    let id = repo.id().to_string();
    let access = match repo.access() {
        Access::ReadWrite => "ReadWrite".to_owned(),
        Access::ReadOnly(reason) => format!("ReadOnly: {reason}"),
    };
    let clusters: Vec<Value> = view
        .clusters
        .iter()
        .map(|(cluster, points)| {
            json!({
                "name": cluster.name,
                "uid": cluster.uid,
                "key": repo.cluster_key(&cluster.uid).to_string(),
                "recoveryPoints": points,
            })
        })
        .collect();
    let value = json!({
        "url": view.url,
        "id": id,
        "formatVersion": repo.format_version(),
        "access": access,
        "clusters": clusters,
        "store": view.abilities.map(abilities_value),
    });
    let table = || {
        let mut text = Description::default();
        text.line("URL", &view.url)
            .line("Id", &id)
            .line("Format", repo.format_version())
            .line("Access", &access);
        if let Some(abilities) = view.abilities {
            describe_store(&mut text, abilities);
        }
        let mut clusters = Table::new(&["CLUSTER", "UID", "KEY", "POINTS"]);
        for (cluster, points) in &view.clusters {
            clusters.row(vec![
                cluster.name.clone(),
                cluster.uid.clone(),
                repo.cluster_key(&cluster.uid).to_string(),
                points.to_string(),
            ]);
        }
        if !clusters.is_empty() {
            text.section("Recovery points", clusters);
        }
        text.to_string()
    };
    terminal.print(&document(format, &value, table, || format!("{id}\n"))?)?;
    let unsafe_store = view
        .abilities
        .is_some_and(|found| found.atomic_create == Some(false));
    if unsafe_store {
        terminal.say(
            "error: the store does not create atomically: two writers could lose a backup; use \
             another store",
        );
    }
    Ok(if unsafe_store {
        Exit::Partial
    } else {
        Exit::Done
    })
}

fn describe_store(text: &mut Description, abilities: StoreAbilities) {
    let word = |can: bool| if can { "yes" } else { "no" };
    text.line("Can write", word(abilities.can_write))
        .line("Can list", word(abilities.can_list))
        .line(
            "Atomic create",
            abilities.atomic_create.map_or("not tried", word),
        );
}

fn abilities_value(abilities: StoreAbilities) -> Value {
    let StoreAbilities {
        can_write,
        can_list,
        atomic_create,
    } = abilities;
    json!({"canWrite": can_write, "canList": can_list, "atomicCreate": atomic_create})
}

async fn in_cluster(
    args: &ClusterArgs,
    status: &RepoStatus,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let cluster = Cluster::connect(args).await?;
    let text = match &status.name {
        Some(name) => {
            let repository: Repository = cluster.get(name).await?;
            match status.direct.output.format {
                Format::Table => describe(&repository).to_string(),
                format => listed(format, &[repository], true, || Table::new(&[]))?,
            }
        }
        None => {
            let repositories: Vec<Repository> = cluster.list("").await?;
            listed(status.direct.output.format, &repositories, false, || {
                table(&repositories, Utc::now())
            })?
        }
    };
    terminal.print(&text)?;
    Ok(Exit::Done)
}

async fn switch(
    args: &ClusterArgs,
    name: &str,
    suspend: bool,
    terminal: Terminal,
) -> Result<Exit, Error> {
    let cluster = Cluster::connect(args).await?;
    cluster.get::<Repository>(name).await?;
    cluster
        .patch::<Repository>(name, &json!({"spec": {"suspend": suspend}}))
        .await?;
    let word = if suspend { "suspended" } else { "resumed" };
    terminal.print(&format!("repository.lifebuoy.dev/{name} {word}"))?;
    Ok(Exit::Done)
}

fn table(repositories: &[Repository], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&["NAME", "READY", "REASON", "ACCESS", "POINTS", "URL", "AGE"]);
    for repository in repositories {
        let status = repository.status.clone().unwrap_or_default();
        let ready = find(&status.conditions, ConditionType::Ready);
        table.row(vec![
            repository.name_any(),
            ready.map(|ready| ready.status.clone()).unwrap_or_default(),
            ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
            status
                .access
                .map(|access| format!("{access:?}"))
                .unwrap_or_default(),
            status
                .recovery_points
                .map(|points| points.to_string())
                .unwrap_or_default(),
            repository.spec.url.clone(),
            age_of(repository.metadata.creation_timestamp.as_ref(), now),
        ]);
    }
    table
}

fn describe(repository: &Repository) -> Description {
    let spec = &repository.spec;
    let status = repository.status.clone().unwrap_or_default();
    let mut clusters = Table::new(&["CLUSTER", "UID", "POINTS"]);
    for cluster in &status.clusters {
        clusters.row(vec![
            cluster.name.clone(),
            cluster.uid.clone(),
            cluster.recovery_points.to_string(),
        ]);
    }
    let mut text = Description::default();
    text.line("Name", repository.name_any())
        .line("Namespace", repository.namespace().unwrap_or_default())
        .line("URL", &spec.url)
        .maybe("Endpoint", spec.endpoint.as_ref())
        .line("Suspended", spec.suspend)
        .maybe("Id", status.id.as_ref())
        .maybe("Format", status.format_version)
        .maybe("Access", status.access.map(|access| format!("{access:?}")))
        .maybe("Points", status.recovery_points)
        .maybe("Probed", status.last_probe_time.as_ref().map(|at| at.0))
        .conditions(&status.conditions);
    if !clusters.is_empty() {
        text.section("Clusters", clusters);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_listed_and_described() {
        let repository: Repository =
            serde_saphyr::from_str(include_str!("../../tests/objects/repository.yaml")).unwrap();
        let now = DateTime::from_timestamp(1_795_478_400, 0).unwrap();
        insta::assert_snapshot!(
            "repositories",
            table(std::slice::from_ref(&repository), now)
        );
        insta::assert_snapshot!("repository", describe(&repository));
    }
}

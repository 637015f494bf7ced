//! The command against a real API server with the CustomResourceDefinitions and
//! no operator: the test plays it, by writing status.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use lifebuoy_api::{Backup, ConditionType, Reason, Schedule, condition};
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// How long something may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

struct World {
    cluster: ControlPlane,
    client: Client,
}

impl World {
    async fn start() -> Result<Self> {
        let cluster = ControlPlane::start(ControlPlaneOptions::bare("following")).await?;
        let client = cluster.admin();
        let metadata = ObjectMeta {
            name: Some("lifebuoy".into()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in lifebuoy_api::all_crds() {
            definitions
                .create(&PostParams::default(), &definition)
                .await?;
        }
        let world = Self { cluster, client };
        until("the kinds are served", async || {
            Ok(world.schedules().list(&Default::default()).await.is_ok()
                && world.backups().list(&Default::default()).await.is_ok())
        })
        .await?;
        Ok(world)
    }

    fn backups(&self) -> Api<Backup> {
        Api::namespaced(self.client.clone(), "lifebuoy")
    }

    fn schedules(&self) -> Api<Schedule> {
        Api::namespaced(self.client.clone(), "lifebuoy")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_lifebuoy")));
        command
            .args(line.split_whitespace())
            .env_clear()
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn start_command(&self, line: &str) -> Result<Child> {
        Ok(self.command(line).spawn()?)
    }

    async fn run(&self, line: &str, code: i32) -> Result<Said> {
        said(line, self.command(line).output().await?, code)
    }

    /// Writes what the operator would.
    async fn status(&self, name: &str, status: Value) -> Result<()> {
        let change = json!({"status": status});
        self.backups()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&change))
            .await?;
        Ok(())
    }

    async fn exists(&self, name: &str) -> Result<()> {
        until(&format!("{name} is created"), async || {
            Ok(self.backups().get_opt(name).await?.is_some())
        })
        .await
    }
}

struct Said {
    out: String,
    err: String,
}

fn said(line: &str, output: Output, code: i32) -> Result<Said> {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(code),
        "{line}: {}\n{out}\n{err}",
        output.status
    );
    Ok(Said { out, err })
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds().await? {
        ensure!(start.elapsed() < SOON, "{what}: not after {SOON:?}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn ended(kind: ConditionType, reason: Reason, message: &str) -> Value {
    json!({
        "phase": reason.as_str(),
        "attempts": 1,
        "conditions": [condition(kind, true, reason, message, Some(1), Utc::now())],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_follow_requests_and_say_how_they_ended() -> Result<()> {
    let mut world = World::start().await?;
    exit_codes_tell_how_a_request_ended(&world).await?;
    a_timeout_leaves_the_request(&world).await?;
    a_deleted_request_is_not_waited_for(&world).await?;
    what_is_refused_is_in_one_line(&world).await?;
    schedules_are_suspended_and_followed_by_hand(&world).await?;
    following_survives_the_api_server(&mut world).await
}

async fn exit_codes_tell_how_a_request_ended(world: &World) -> Result<()> {
    use ConditionType::{Complete, Failed, Stalled};
    for (name, kind, reason, code) in [
        ("good", Complete, Reason::Succeeded, 0),
        ("bad", Failed, Reason::StoreUnreachable, 1),
        ("part", Failed, Reason::Partial, 3),
        ("no", Stalled, Reason::InvalidSpec, 4),
    ] {
        let line = format!("backup create {name} --repository main --wait");
        let child = world.start_command(&line)?;
        world.exists(name).await?;
        world
            .status(name, json!({"phase": "Running", "attempts": 1}))
            .await?;
        world
            .status(name, ended(kind, reason, "as the test says"))
            .await?;
        let said = said(&line, child.wait_with_output().await?, code)?;
        ensure!(said.out.contains(reason.as_str()), "{}", said.out);
        ensure!(
            code == 0 || said.err.contains("as the test says"),
            "{}",
            said.err
        );
    }
    let names = world.run("backup list -o name", 0).await?.out;
    ensure!(
        names.lines().count() == 4 && names.contains("backup.lifebuoy.dev/part"),
        "{names}"
    );
    let one: Value =
        serde_json::from_str(&world.run("backup describe part -o json", 0).await?.out)?;
    ensure!(
        one["kind"] == "Backup" && one["metadata"].get("managedFields").is_none(),
        "{one}"
    );
    Ok(())
}

async fn a_timeout_leaves_the_request(world: &World) -> Result<()> {
    let said = world
        .run(
            "backup create slow --repository main --wait --timeout 1s",
            5,
        )
        .await?;
    ensure!(
        said.err.contains("hint: the request goes on"),
        "{}",
        said.err
    );
    world.exists("slow").await
}

async fn a_deleted_request_is_not_waited_for(world: &World) -> Result<()> {
    let line = "backup create gone --repository main --wait";
    let child = world.start_command(line)?;
    world.exists("gone").await?;
    world.backups().delete("gone", &Default::default()).await?;
    let said = said(line, child.wait_with_output().await?, 1)?;
    ensure!(said.err.contains("was deleted"), "{}", said.err);
    Ok(())
}

async fn what_is_refused_is_in_one_line(world: &World) -> Result<()> {
    let said = world.run("backup create slow --repository main", 4).await?;
    let lines: Vec<&str> = said.err.lines().collect();
    ensure!(
        lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "),
        "{}",
        said.err
    );
    let said = world
        .run("restore create --repository main --snapshot nonsense", 4)
        .await?;
    ensure!(said.err.contains("spec.from.snapshot"), "{}", said.err);
    let said = world.run("backup describe nothing", 1).await?;
    ensure!(
        said.err.contains("there is no Backup `nothing`"),
        "{}",
        said.err
    );
    world.run("backup create", 2).await?;
    world
        .run("backup create --repository main --cluster-scoped some", 2)
        .await?;
    world.run("backup list --context nowhere", 1).await?;
    Ok(())
}

async fn schedules_are_suspended_and_followed_by_hand(world: &World) -> Result<()> {
    let schedule: Schedule = serde_json::from_value(json!({
        "apiVersion": "lifebuoy.dev/v1alpha1",
        "kind": "Schedule",
        "metadata": {"name": "nightly"},
        "spec": {"cron": "0 2 * * *", "template": {"spec": {"repository": "main", "volumes": "Skip"}}},
    }))?;
    world
        .schedules()
        .create(&PostParams::default(), &schedule)
        .await?;
    world.run("schedule suspend nightly", 0).await?;
    ensure!(world.schedules().get("nightly").await?.spec.suspend);
    let list = world.run("schedule list", 0).await?.out;
    ensure!(list.contains("nightly") && list.contains("true"), "{list}");
    let said = world.run("schedule resume nightly", 0).await?;
    ensure!(
        said.err.contains("there is no Repository `main`"),
        "{}",
        said.err
    );
    ensure!(!world.schedules().get("nightly").await?.spec.suspend);
    world
        .run("backup create now --from-schedule nightly", 0)
        .await?;
    let made = world.backups().get("now").await?;
    let label = made.metadata.labels.context("no labels")?;
    ensure!(label.get("lifebuoy.dev/schedule").map(String::as_str) == Some("nightly"));
    let list = world
        .run("backup list --schedule nightly -o name", 0)
        .await?
        .out;
    ensure!(list == "backup.lifebuoy.dev/now\n", "{list}");
    Ok(())
}

async fn following_survives_the_api_server(world: &mut World) -> Result<()> {
    let line = "backup create long --repository main --wait --timeout 2m";
    let child = world.start_command(line)?;
    world.exists("long").await?;
    world.cluster.restart_apiserver().await?;
    until("the API server is back", async || {
        Ok(world.backups().get("long").await.is_ok())
    })
    .await?;
    world
        .status(
            "long",
            ended(ConditionType::Complete, Reason::Succeeded, "after all"),
        )
        .await?;
    said(line, child.wait_with_output().await?, 0)?;
    Ok(())
}

//! `cargo xtask demo`: the main job, end to end, on two real clusters.
//!
//! It shows; it never decides whether the product works by anything but an
//! independent comparison of what was in A and what is in B.

mod hold;
mod timeline;
mod volumes;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifebuoy_api::{
    BackupTemplate, ConcurrencyPolicy, Restore, RestoreVolumePolicy, Retention, Schedule,
    ScheduleSpec, TemplateMetadata,
};
use lifebuoy_scenarios::{
    Ended, Installation, InstallationOptions, OPERATOR_NAMESPACE, Store, application, backup,
    create, mapping, newest_of, prepare_target, remapping, repository_ready, restore, run, until,
};
use lifebuoy_testkit::compare::{Difference, Picture, differences};
use lifebuoy_testkit::tools::{self, workspace_root};
use lifebuoy_testkit::{S3Server, Tool, install_tls_provider, sample};

use timeline::Timeline;

/// How long one part may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The demonstration.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Demo {
    /// Leaves the clusters and the S3 server running.
    #[arg(long)]
    keep: bool,
    /// Stops what a demo with --keep has left running.
    #[arg(long, conflicts_with = "keep")]
    stop: bool,
    /// Shows databases that move to another cluster with their volumes, on real nodes; as
    /// root on Debian.
    #[arg(long, conflicts_with_all = ["keep", "stop"])]
    volumes: bool,
}

impl Demo {
    /// Runs the demo; success only if the comparison holds.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        if self.volumes {
            return volumes::run().map(|()| ExitCode::SUCCESS);
        }
        if self.stop {
            return hold::stop(&folder());
        }
        if self.keep && !hold::is_holder() {
            return hold::run_and_leave(&folder());
        }
        install_tls_provider();
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            let stage = demonstrate().await?;
            hold::hold_if_asked(stage.succeeded).await;
            Ok(ExitCode::from(u8::from(!stage.succeeded)))
        })
    }
}

/// Where everything is, and stays.
fn folder() -> PathBuf {
    workspace_root().join("target/demo")
}

/// What runs as long as this lives.
struct Stage {
    succeeded: bool,
    _b: Installation,
    _s3: S3Server,
}

async fn demonstrate() -> Result<Stage> {
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    let mut timeline = Timeline::new();
    tools::ensure(&Tool::ALL, &|line| timeline::say(line))?;
    crate::build::operator()?;
    timeline.done("everything is built", "");

    let s3 = S3Server::start(folder.join("s3")).await?;
    std::os::unix::fs::symlink(s3.bucket_directory(), folder.join("bucket"))?;
    let (a, b) = tokio::try_join!(cluster("a"), cluster("b"))?;
    timeline.done(
        "two clusters, an S3 server and the operator in each are up",
        "",
    );

    sample::deploy(&a.client()).await?;
    prepare_target(&b.client()).await?;
    let before = Picture::read(&a.client(), &application()).await?;
    timeline.done(
        "the application runs in A",
        &format!("{} objects to compare", before.len()),
    );

    let store = Store::at(&s3, "demo");
    for (installation, name) in [(&a, "A"), (&b, "B")] {
        store
            .declare(&installation.client(), OPERATOR_NAMESPACE, "demo")
            .await?;
        repository_ready(&installation.client(), OPERATOR_NAMESPACE, "demo", LIMIT)
            .await
            .with_context(|| format!("the repository is not ready in {name}"))?;
    }
    timeline.done("both clusters share one repository", &store.url);

    save(&a, &mut timeline).await?;
    drop(a);
    timeline.done(
        "cluster A is lost",
        "its API server and its etcd are killed",
    );

    let done = run(&b.client(), OPERATOR_NAMESPACE, remapped(), LIMIT).await?;
    ensure!(
        done.complete(),
        "the restore ended with {}: {:?}",
        done.verdict(),
        done.status
    );
    let counts = done.status.map(|status| status.counts).unwrap_or_default();
    timeline.done(
        "the application is restored in B, remapped",
        &format!(
            "{} created, {} skipped, {} failed",
            counts.created, counts.skipped, counts.failed
        ),
    );

    let expected = before.expected(&remapping());
    let found = Picture::read(&b.client(), &application().remapped(&remapping())).await?;
    let different = differences(&expected, &found);
    timeline.done(
        "what was in A and what is in B are compared",
        &format!(
            "{} objects, {} differences",
            expected.len(),
            different.len()
        ),
    );
    timeline.print();
    print_comparison(&before, &different);
    Ok(Stage {
        succeeded: different.is_empty(),
        _b: b,
        _s3: s3,
    })
}

async fn cluster(name: &str) -> Result<Installation> {
    let mut options = InstallationOptions::named(&format!("demo-{name}"));
    options.cluster.directory = Some(folder().join(name));
    let installation = Installation::start(options).await?;
    let kubeconfig = folder().join(format!("{name}.kubeconfig"));
    fs::copy(installation.cluster.kubeconfig(), kubeconfig)?;
    Ok(installation)
}

/// Lets a Schedule take a backup at its next tick.
async fn save(a: &Installation, timeline: &mut Timeline) -> Result<()> {
    let client = a.client();
    let mut spec = backup("unused", "demo").spec;
    spec.selection.namespaces = sample::NAMESPACES.map(str::to_owned).to_vec();
    let schedule = Schedule::new(
        "every-minute",
        ScheduleSpec {
            cron: "* * * * *".to_owned(),
            time_zone: "Etc/UTC".to_owned(),
            suspend: false,
            starting_deadline_seconds: None,
            concurrency_policy: ConcurrencyPolicy::Forbid,
            template: BackupTemplate {
                metadata: TemplateMetadata::default(),
                spec,
            },
            retention: Retention {
                keep_last: Some(10),
                ..Retention::default()
            },
            successful_backups_history_limit: 3,
            failed_backups_history_limit: 3,
        },
    );
    create(&client, OPERATOR_NAMESPACE, schedule).await?;
    until(
        &client,
        OPERATOR_NAMESPACE,
        "every-minute",
        LIMIT,
        |schedule: &Schedule| {
            schedule.status.as_ref().is_some_and(|status| {
                !status.active.is_empty() || status.last_successful_time.is_some()
            })
        },
    )
    .await?;
    timeline.done(
        "the Schedule's tick has come",
        "at most a minute of waiting",
    );
    until(
        &client,
        OPERATOR_NAMESPACE,
        "every-minute",
        LIMIT,
        |schedule: &Schedule| {
            schedule
                .status
                .as_ref()
                .is_some_and(|status| status.last_successful_time.is_some())
        },
    )
    .await?;
    let points = lifebuoy_scenarios::points(&client, OPERATOR_NAMESPACE).await?;
    let point = points
        .first()
        .context("the backup left no recovery point")?;
    timeline.done(
        "the Schedule has taken a backup",
        &format!(
            "{} objects, {:?}, {:?}",
            point.spec.objects, point.spec.completeness, point.spec.consistency
        ),
    );
    Ok(())
}

fn remapped() -> Restore {
    let mut request = restore("failover", newest_of("demo", "demo-a"));
    request.spec.volumes = RestoreVolumePolicy::Empty;
    request.spec.mapping = mapping();
    request
}

fn print_comparison(before: &Picture, different: &[Difference]) {
    timeline::say("");
    timeline::say("Compared, by kind:");
    for (kind, count) in before.kinds() {
        timeline::say(&format!("  {count:>4}  {kind}"));
    }
    if different.is_empty() {
        timeline::say("B holds what A held, with the new names. State and logs: target/demo/");
    }
    for difference in different {
        timeline::say(&format!("  DIFFERENT: {difference}"));
    }
}

//! Measures backup and restore through the operator, as the chart installs it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::Client;
use lifebuoy_scenarios::{
    Ended, Installation, InstallationOptions, OPERATOR_NAMESPACE, Store, backup, newest_of,
    repository_ready, restore, run,
};
use lifebuoy_testkit::load::{
    LoadSpec, change_one_percent, create_big_secrets, create_floor, list_floor,
};
use lifebuoy_testkit::{CountingProxy, S3Server, TestDirectory};

use super::Options;
use super::figures::{Figures, Phase};

/// How long one phase may take.
const LIMIT: Duration = Duration::from_secs(1800);

const BIG_SECRET_BYTES: usize = 740_000; // 1 MB as base64 in JSON

/// Measures one size.
pub(super) async fn measure(options: &Options, objects: usize) -> Result<Figures> {
    let folder = TestDirectory::new("bench")?;
    let s3 = S3Server::start(folder.path().join("s3")).await?;
    let proxy = CountingProxy::start(&s3.endpoint()).await?;
    let store = Store::at(&s3, "bench").through(proxy.endpoint());
    let a = cluster("a", &store, &folder).await?;
    let access = a.cluster.access()?;
    let mut figures = Figures {
        objects,
        big_secrets: options.big_secrets,
        ..Figures::default()
    };

    say("filling the cluster: this is the create floor");
    let spec = LoadSpec {
        objects,
        seed: options.seed,
    };
    figures.create_floor_s = create_floor(&access, spec).await?.duration.as_secs_f64();
    if options.big_secrets > 0 {
        create_big_secrets(
            &access,
            "big",
            options.big_secrets,
            BIG_SECRET_BYTES,
            options.seed,
        )
        .await?;
    }
    settle().await;

    say("listing: this is the list floor");
    let mut floors = Vec::new();
    for _ in 0..options.runs {
        let floor = list_floor(&access).await?;
        figures.list_floor_bytes = floor.bytes;
        floors.push(floor.duration.as_secs_f64());
    }
    figures.list_floor_s = median(&floors);

    let bench = Bench {
        installation: &a,
        proxy: &proxy,
    };
    say("first backup");
    let first = bench.backups("backup", 1).await?;
    figures.objects_saved = first.1;
    figures.backup_s = median(&first.0.wall_s);
    say("backups of the unchanged cluster");
    let unchanged = bench.backups("unchanged", options.runs).await?.0;
    figures.backup_unchanged_s = median(&unchanged.wall_s);
    figures.backup_unchanged_puts = unchanged.store_requests.get("PUT").copied().unwrap_or(0);
    say("a backup after 1 % changed");
    change_one_percent(&access, spec, 1).await?;
    let changed = bench.backups("changed", 1).await?.0;
    figures.backup_changed_s = median(&changed.wall_s);

    let saved_by = a.cluster_name().to_owned();
    let peak_a = peak_mib(&a)?;
    drop(a);
    say("a restore into an empty cluster");
    let b = cluster("b", &store, &folder).await?;
    settle().await;
    let restored = Bench {
        installation: &b,
        proxy: &proxy,
    }
    .restore(&saved_by)
    .await?;
    figures.restore_s = median(&restored.wall_s);
    figures.peak_memory_mib = peak_a.max(peak_mib(&b)?);
    figures.phases = vec![first.0, unchanged, changed, restored];
    Ok(figures.finish())
}

async fn cluster(name: &str, store: &Store, folder: &TestDirectory) -> Result<Installation> {
    let mut options = InstallationOptions::named(&format!("bench-{name}"));
    options.cluster.directory = Some(folder.path().join(name));
    let installation = Installation::start(options).await?;
    let client = installation.client();
    store.declare(&client, OPERATOR_NAMESPACE, "main").await?;
    repository_ready(&client, OPERATOR_NAMESPACE, "main", LIMIT).await?;
    Ok(installation)
}

struct Bench<'a> {
    installation: &'a Installation,
    proxy: &'a CountingProxy,
}

impl Bench<'_> {
    /// Runs backups one after another; gives the figures and the objects saved.
    async fn backups(&self, name: &str, runs: usize) -> Result<(Phase, i64)> {
        let client = self.installation.client();
        let mut phase = Phase {
            name: name.to_owned(),
            ..Phase::default()
        };
        let mut objects = 0;
        for number in 0..runs {
            let meter = Meter::start(self, &client).await?;
            let request = backup(&format!("{name}-{number}"), "main");
            let done = run(&client, OPERATOR_NAMESPACE, request, LIMIT).await?;
            meter.stop(self, &client, &mut phase).await?;
            ensure!(done.complete(), "{}: {:?}", done.verdict(), done.status);
            objects = done.status.context("no status")?.progress.objects;
        }
        Ok((phase, objects))
    }

    async fn restore(&self, saved_by: &str) -> Result<Phase> {
        let client = self.installation.client();
        let mut phase = Phase {
            name: "restore".to_owned(),
            ..Phase::default()
        };
        let mut request = restore("everything", newest_of("main", saved_by));
        request.spec.selection.namespaces = vec!["load-*".to_owned(), "big".to_owned()];
        let meter = Meter::start(self, &client).await?;
        let done = run(&client, OPERATOR_NAMESPACE, request, LIMIT).await?;
        meter.stop(self, &client, &mut phase).await?;
        ensure!(done.complete(), "{}: {:?}", done.verdict(), done.status);
        Ok(phase)
    }
}

/// Reads the counters around one run.
struct Meter {
    start: Instant,
    cpu: Duration,
    api: BTreeMap<String, u64>,
}

impl Meter {
    async fn start(bench: &Bench<'_>, client: &Client) -> Result<Self> {
        let api = api_requests(client).await?;
        bench.proxy.reset();
        Ok(Self {
            cpu: cpu(bench.installation)?,
            api,
            start: Instant::now(),
        })
    }

    async fn stop(self, bench: &Bench<'_>, client: &Client, phase: &mut Phase) -> Result<()> {
        phase.wall_s.push(self.start.elapsed().as_secs_f64());
        let traffic = bench.proxy.traffic();
        phase.operator_cpu_s = (cpu(bench.installation)? - self.cpu).as_secs_f64();
        phase.operator_peak_mib = peak_mib(bench.installation)?;
        phase.api_requests = api_requests(client).await?;
        for (verb, count) in &mut phase.api_requests {
            *count -= self.api.get(verb).copied().unwrap_or(0);
        }
        phase.api_requests.retain(|_, count| *count > 0);
        phase.store_bytes_up = traffic.sent_bytes;
        phase.store_bytes_down = traffic.received_bytes;
        phase.store_requests = traffic.requests;
        Ok(())
    }
}

/// Requests that the API server has finished, by verb.
async fn api_requests(client: &Client) -> Result<BTreeMap<String, u64>> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let metrics = client.request_text(request).await?;
    let mut counts = BTreeMap::new();
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"))
    {
        let verb = line
            .split("verb=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let count = line
            .rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok());
        if let (Some(verb), Some(count)) = (verb, count) {
            *counts.entry(verb.to_owned()).or_default() += count as u64;
        }
    }
    Ok(counts)
}

fn cpu(installation: &Installation) -> Result<Duration> {
    let processes = installation
        .replicas()
        .iter()
        .filter_map(|replica| replica.process());
    processes
        .map(|process| Ok(process.usage()?.processor))
        .sum()
}

fn peak_mib(installation: &Installation) -> Result<f64> {
    let processes = installation
        .replicas()
        .iter()
        .filter_map(|replica| replica.process());
    let peaks: Vec<u64> = processes
        .map(|process| Ok(process.usage()?.peak_bytes))
        .collect::<Result<_>>()?;
    Ok(peaks.into_iter().max().unwrap_or(0) as f64 / (1024.0 * 1024.0))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Lets controllers finish with what was just made.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

fn say(what: &str) {
    println!("… {what}");
}

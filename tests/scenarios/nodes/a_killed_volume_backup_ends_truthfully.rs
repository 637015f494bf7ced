//! Movers, the operator, the kubelet and the store are struck at random moments
//! while volumes are saved, and restored elsewhere and in place. Every request ends,
//! and what it says is true; nobody is left quiesced; nothing that was made on the way
//! is left; the data is right. What is half-written in place stays held until another
//! restore has made it whole.
//!
//! `LIFEBUOY_TEST_BLOWS` says how often, `LIFEBUOY_SEED` at which moments.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lifebuoy_api::{
    Backup, ConditionType, ExistingVolumes, FOR_LABEL, Hook, HookFailure, NameMapping, Problem,
    Restore, Severity, VolumeRestore, VolumeWay, is_true,
};
use lifebuoy_scenarios::{
    Ended, NodeWorld, NodeWorlds, OPERATOR_NAMESPACE, Store, backup_of_volumes, copy_image_to_disk,
    create, eventually, extract, from_snapshot, node_scenario, restore, run, start_holder, until,
};
use lifebuoy_testkit::oddities::noise;
use lifebuoy_testkit::{S3Server, directory};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::blows::{Blow, Strike, excused};

const NAMESPACE: &str = "files";
/// Files of a megabyte, so that a move takes some seconds.
const LARGE_FILES: u64 = 200;
const SMALL_FILES: u64 = 2000;
const MIB: usize = 1 << 20;
/// What is written to the block device at a time.
const DISK_BYTES: usize = 32 * MIB;
const HOLDER: &str = "deployment/holder";
/// How many blows there are: half of them in backups, the others in restores elsewhere and
/// in place.
const BLOWS: usize = 4;
/// A request that ends before its blow is followed by another, which is struck sooner.
const TRIES: u32 = 4;
/// How long saving or restoring may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);
/// How long a kubelet takes to know its pods again.
const KUBELET_WITHIN: Duration = Duration::from_secs(60);
/// How long an application is held at most.
const HOOK_SECONDS: i64 = 30;
const RESUMED_WITHIN: Duration = Duration::from_secs(60);

/// A recovery point, and what is in it.
#[derive(Clone, Debug)]
struct Saved {
    snapshot: String,
    digests: Digests,
}

impl Saved {
    /// Fails unless it is what the volumes of a namespace hold.
    async fn is_on(&self, world: &NodeWorld, namespace: &str) -> Result<()> {
        let tree = world.content(namespace, "tree").await?;
        let disk = world.content(namespace, "disk").await?;
        let found = digests(&tree, &disk)?;
        same(&found.tree, &self.digests.tree, "tree")?;
        same(&found.disk, &self.digests.disk, "disk")
    }
}

/// Where a recovery point is restored to.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// A namespace of its own in the other cluster.
    Elsewhere,
    /// The volumes that it is of.
    InPlace,
}

/// The files of one volume, and the bytes of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Digests {
    tree: String,
    disk: String,
}

/// What the clusters share.
struct Story {
    s3: S3Server,
    store: Store,
    random: StdRng,
    /// How long a backup takes that nothing strikes.
    usual: Duration,
}

#[test]
fn killed_backups_and_restores_of_volumes_end_truthfully() {
    node_scenario(&NodeWorld::needs(&[]), async {
        let seed = number("LIFEBUOY_SEED").unwrap_or_else(rand::random);
        println!("seed: {seed} (set LIFEBUOY_SEED to replay)");
        let blows = number("LIFEBUOY_TEST_BLOWS").and_then(|blows| usize::try_from(blows).ok());
        let blows = blows.unwrap_or(BLOWS);
        let in_backups = blows.div_ceil(2);
        let in_place = (blows - in_backups) / 2;
        let elsewhere = blows - in_backups - in_place;
        let NodeWorlds { mut a, mut b, s3 } = NodeWorlds::start(&[]).await?;
        let mut story = Story {
            store: Store::at(&s3, "nodes"),
            s3,
            random: StdRng::seed_from_u64(seed),
            usual: Duration::ZERO,
        };
        let saved = story.strike_backups(&mut a, in_backups).await;
        let saved = a.recorded(saved).await?;
        let struck = story
            .strike_restores(&mut a, &saved, Target::InPlace, in_place)
            .await;
        a.recorded(struck).await?;
        let struck = story
            .strike_restores(&mut b, &saved, Target::Elsewhere, elsewhere)
            .await;
        b.recorded(struck).await
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

impl Story {
    /// Saves again and again, and gives what was saved whole.
    async fn strike_backups(&mut self, a: &mut NodeWorld, blows: usize) -> Result<Vec<Saved>> {
        start_holder(a, NAMESPACE, "1Gi").await?;
        let (first, _) = self.save(a, "undisturbed", None).await?;
        let mut saved = vec![first.context("nothing has struck, and something is missing")?];
        for (number, blow) in self.order(blows).into_iter().enumerate() {
            let mut attempt = 0;
            loop {
                let strike = self.strike(blow, attempt);
                let name = format!("struck-{number}-{attempt}");
                let done = self.save(a, &name, Some(strike)).await;
                let (done, struck) = done.with_context(|| format!("{name}, {strike:?}"))?;
                saved.extend(done);
                if struck {
                    break;
                }
                attempt += 1;
                ensure!(attempt < TRIES, "{blow:?} always comes too late");
            }
        }
        Ok(saved)
    }

    /// Restores what was saved.
    async fn strike_restores(
        &mut self,
        world: &mut NodeWorld,
        saved: &[Saved],
        target: Target,
        blows: usize,
    ) -> Result<()> {
        for (number, blow) in self.order(blows).into_iter().enumerate() {
            let mut attempt = 0;
            loop {
                let strike = self.strike(blow, attempt);
                let saved = saved.choose(&mut self.random);
                let saved = saved.context("nothing was saved")?.clone();
                let name = format!("restore-{number}-{attempt}");
                let struck = match target {
                    Target::Elsewhere => self.bring_back(world, &name, &saved, strike).await,
                    Target::InPlace => self.put_back(world, &name, &saved, strike).await,
                };
                if struck.with_context(|| format!("{name}, {strike:?}"))? {
                    break;
                }
                attempt += 1;
                ensure!(attempt < TRIES, "{blow:?} always comes too late");
            }
        }
        Ok(())
    }

    /// Blows of all kinds, none twice before all were dealt.
    fn order(&mut self, count: usize) -> Vec<Blow> {
        let mut order = Vec::new();
        while order.len() < count {
            let mut all = Blow::ALL;
            all.shuffle(&mut self.random);
            order.extend(all);
        }
        order.truncate(count);
        order
    }

    /// The moment of a blow; nearer to the beginning the more often it came too late.
    fn strike(&mut self, blow: Blow, attempt: u32) -> Strike {
        let within = blow.within().unwrap_or(self.usual);
        let share = self.random.random_range(0.0_f64..1.0) / f64::from(2_u32.pow(attempt));
        Strike {
            blow,
            after: within.mul_f64(share),
            away: Duration::from_millis(self.random.random_range(1000..6000)),
        }
    }

    /// Changes the data and saves it. What was saved, if that is all, and whether the
    /// blow came in time.
    async fn save(
        &mut self,
        a: &mut NodeWorld,
        name: &str,
        strike: Option<Strike>,
    ) -> Result<(Option<Saved>, bool)> {
        let digests = self.change(a).await?;
        create(&a.client(), OPERATOR_NAMESPACE, request(name)).await?;
        let begun = Instant::now();
        let struck = match strike {
            Some(strike) => strike.deal::<Backup>(a, &mut self.s3, name).await?,
            None => true,
        };
        let ended: Backup =
            until(&a.client(), OPERATOR_NAMESPACE, name, LIMIT, Ended::ended).await?;
        if strike.is_none() {
            self.usual = begun.elapsed();
        }
        say(name, strike, struck, begun, &ended.verdict());
        let status = ended.status.clone().unwrap_or_default();
        if !ended.complete() {
            excused(&ended, &status.problems, strike.as_ref())?;
        }
        let saved = status.snapshot.map(|snapshot| Saved { snapshot, digests });
        if let Some(saved) = &saved {
            self.compare(saved, &status.problems).await?;
        }
        let marker = a.content(NAMESPACE, "tree").await?.join("quiesced");
        eventually("nobody is held any more", RESUMED_WITHIN, async || {
            Ok((!marker.exists()).then_some(()))
        })
        .await?;
        a.nothing_is_left().await?;
        ensure!(!ended.complete() || saved.is_some(), "complete, and where?");
        Ok((saved.filter(|_| ended.complete()), struck))
    }

    /// Writes other data over most of what there is.
    async fn change(&mut self, a: &NodeWorld) -> Result<Digests> {
        let tree = a.content(NAMESPACE, "tree").await?;
        let data = tree.join("data");
        let is_new = !data.exists();
        fs::create_dir_all(&data)?;
        let sizes = [("large", LARGE_FILES, MIB), ("small", SMALL_FILES, 1000)];
        for (name, count, size) in sizes {
            for file in 0..count {
                if is_new || self.random.random_bool(0.8) {
                    let content = noise(self.random.random(), size);
                    fs::write(data.join(format!("{name}-{file}")), content)?;
                }
            }
        }
        fs::write(tree.join("image"), noise(self.random.random(), DISK_BYTES))?;
        // One that was struck knows its pods a while after it has started.
        let exec = ["exec", "-n", NAMESPACE, HOLDER, "--", "true"];
        eventually("the kubelet knows the pod", KUBELET_WITHIN, async || {
            Ok(a.kubectl(&exec).await.ok())
        })
        .await?;
        copy_image_to_disk(a, NAMESPACE).await?;
        digests(&tree, &a.content(NAMESPACE, "disk").await?)
    }

    /// Reads a recovery point by other ways than the operator's: what is not said to be
    /// missing is in it.
    async fn compare(&self, saved: &Saved, problems: &[Problem]) -> Result<()> {
        for claim in ["tree", "disk"] {
            let subject = format!("persistentvolumeclaims {NAMESPACE}/{claim}");
            let missing = |of: &Problem| of.severity == Severity::Error && of.subject == subject;
            if problems.iter().any(missing) {
                continue;
            }
            let volume = self.extract(&saved.snapshot, claim).await?;
            if claim == "tree" {
                ensure!(
                    volume.join("quiesced").exists(),
                    "the application was not held when the snapshot was cut"
                );
                same(&digest_of_files(&volume)?, &saved.digests.tree, claim)?;
                fs::remove_dir_all(&volume)?;
            } else {
                same(&digest_of_bytes(&volume)?, &saved.digests.disk, claim)?;
                fs::remove_file(&volume)?;
            }
        }
        Ok(())
    }

    async fn extract(&self, snapshot: &str, claim: &str) -> Result<PathBuf> {
        let target = directory::root().join(format!("extracted-{claim}"));
        let volume = format!("{NAMESPACE}/{claim}");
        extract(&self.store, snapshot, &volume, &target).await?;
        Ok(target)
    }

    /// Changes the data and restores a recovery point over it; once more, if the blow has
    /// left it half-written. Whether the blow came in time.
    async fn put_back(
        &mut self,
        a: &mut NodeWorld,
        name: &str,
        saved: &Saved,
        strike: Strike,
    ) -> Result<bool> {
        self.change(a).await?;
        let (complete, struck) = self.restore(a, in_place(name, saved), strike).await?;
        if !complete {
            let again = format!("{name}-again");
            let request = in_place(&again, saved);
            let healed = run(&a.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
            ensure!(healed.complete(), "{}", healed.verdict());
        }
        a.rolled_out(NAMESPACE, HOLDER).await?;
        saved.is_on(a, NAMESPACE).await?;
        a.nothing_is_left().await?;
        Ok(struck)
    }

    /// Strikes a Restore. Whether it is complete, and whether the blow came in time; what
    /// is missing follows from the blow.
    async fn restore(
        &mut self,
        world: &mut NodeWorld,
        request: Restore,
        strike: Strike,
    ) -> Result<(bool, bool)> {
        let name = request.name_any();
        create(&world.client(), OPERATOR_NAMESPACE, request).await?;
        let begun = Instant::now();
        let struck = strike.deal::<Restore>(world, &mut self.s3, &name).await?;
        let ended: Restore = until(
            &world.client(),
            OPERATOR_NAMESPACE,
            &name,
            LIMIT,
            Ended::ended,
        )
        .await?;
        say(&name, Some(strike), struck, begun, &ended.verdict());
        volumes_ended(world, &ended).await?;
        if !ended.complete() {
            let problems = ended.status.as_ref().map(|status| &status.problems[..]);
            excused(&ended, problems.unwrap_or_default(), Some(&strike))?;
        }
        Ok((ended.complete(), struck))
    }

    /// Restores a recovery point and takes it away again. Whether the blow came in time.
    async fn bring_back(
        &mut self,
        b: &mut NodeWorld,
        name: &str,
        saved: &Saved,
        strike: Strike,
    ) -> Result<bool> {
        let namespace = format!("{NAMESPACE}-{name}");
        let to = |from: &str, to: &str| NameMapping {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let mut request = restore(name, from_snapshot("main", &saved.snapshot));
        request.spec.selection.namespaces = vec![NAMESPACE.to_owned()];
        request.spec.mapping.namespaces = vec![to(NAMESPACE, &namespace)];
        request.spec.mapping.storage_classes = vec![to("fast", "slow")];
        let (complete, struck) = self.restore(b, request, strike).await?;
        if complete {
            b.rolled_out(&namespace, HOLDER).await?;
            saved.is_on(b, &namespace).await?;
        }
        b.kubectl(&["delete", "namespace", &namespace, "--timeout=180s"])
            .await?;
        b.nothing_is_left().await?;
        Ok(struck)
    }
}

fn say(name: &str, strike: Option<Strike>, struck: bool, begun: Instant, verdict: &str) {
    let blow = match strike {
        Some(strike) if struck => format!("{:?} after {:?}", strike.blow, strike.after),
        Some(strike) => format!("{:?} came too late", strike.blow),
        None => "nothing".to_owned(),
    };
    println!(
        "{name}: {blow}; ended after {:?}: {verdict}",
        begun.elapsed()
    );
}

/// Waits until all volumes of a Restore have ended, one way or the other.
async fn volumes_ended(b: &NodeWorld, restore: &Restore) -> Result<()> {
    let api: Api<VolumeRestore> = Api::namespaced(b.client(), OPERATOR_NAMESPACE);
    let label = format!("{FOR_LABEL}={}", restore.uid().unwrap_or_default());
    let params = ListParams::default().labels(&label);
    eventually("its volumes have ended", LIMIT, async || {
        let mut volumes = api.list(&params).await?.items.into_iter();
        let open = volumes.any(|volume| {
            let conditions = volume.status.unwrap_or_default().conditions;
            !is_true(&conditions, ConditionType::Complete)
                && !is_true(&conditions, ConditionType::Failed)
        });
        Ok((!open).then_some(()))
    })
    .await
}

fn same(found: &str, expected: &str, what: &str) -> Result<()> {
    ensure!(
        found == expected,
        "{what} has the digest {found}, not {expected}"
    );
    Ok(())
}

fn digests(tree: &Path, disk: &Path) -> Result<Digests> {
    Ok(Digests {
        tree: digest_of_files(tree)?,
        disk: digest_of_bytes(disk)?,
    })
}

fn digest_of_files(tree: &Path) -> Result<String> {
    let count = fs::read_dir(tree.join("data"))?.count() as u64;
    ensure!(count == LARGE_FILES + SMALL_FILES, "{count} files");
    let script = "find data image -type f -exec sha256sum {} + | LC_ALL=C sort | sha256sum";
    shell(script, tree, Stdio::null())
}

fn digest_of_bytes(disk: &Path) -> Result<String> {
    shell("sha256sum", Path::new("/"), fs::File::open(disk)?.into())
}

fn shell(script: &str, place: &Path, input: Stdio) -> Result<String> {
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(place)
        .stdin(input)
        .output()
        .context("cannot run sh")?;
    ensure!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A Restore over what is on both volumes.
fn in_place(name: &str, saved: &Saved) -> Restore {
    let mut request = restore(name, from_snapshot("main", &saved.snapshot));
    request.spec.selection.namespaces = vec![NAMESPACE.to_owned()];
    request.spec.existing_volumes = ExistingVolumes::Overwrite;
    // Of the same recovery point, again and again.
    request.spec.rerun = Some(name.to_owned());
    request
}

/// A Backup of both volumes, whose pod is held while the snapshots are cut: a file
/// says so, which is then in the snapshot.
fn request(name: &str) -> Backup {
    let mut request = backup_of_volumes(name, "main", NAMESPACE, VolumeWay::Move);
    request.spec.hooks = vec![Hook {
        namespaces: vec![NAMESPACE.to_owned()],
        label_selector: LabelSelector {
            match_labels: Some(BTreeMap::from([("app".to_owned(), "holder".to_owned())])),
            ..LabelSelector::default()
        },
        container: None,
        quiesce: "touch /tree/quiesced; sleep 1".to_owned(),
        resume: Some("rm -f /tree/quiesced".to_owned()),
        timeout_seconds: HOOK_SECONDS,
        on_failure: HookFailure::Fail,
    }];
    request
}

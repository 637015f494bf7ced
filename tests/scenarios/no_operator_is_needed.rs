//! The command line saves and restores straight between a cluster and a store,
//! with no operator anywhere; and says with its exit code how it went.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use lifebuoy_scenarios::{World, namespace, operator_binary, scenario, unique};
use lifebuoy_testkit::TestDirectory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// The command against the shared cluster and a repository in a directory.
fn lifebuoy(world: &World, directory: &Path, args: &[&str]) -> Result<Output> {
    let output = Command::new(operator_binary()?)
        .args(args)
        .arg("--repo")
        .arg(format!("file://{}", directory.display()))
        .env("KUBECONFIG", world.installation.cluster.kubeconfig())
        .env("LIFEBUOY_PASSPHRASE", "only for this test")
        .output()?;
    Ok(output)
}

fn succeeded(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

#[test]
fn a_directory_is_a_repository_too() {
    scenario(async {
        let world = World::shared().await?;
        let client = world.client();
        let folder = TestDirectory::new("direct")?;
        let source = namespace(&client, "direct").await?;
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &source);
        let configmap = ConfigMap {
            metadata: ObjectMeta {
                name: Some("kept".into()),
                ..ObjectMeta::default()
            },
            data: Some([("a".to_owned(), "1".to_owned())].into()),
            ..ConfigMap::default()
        };
        configmaps
            .create(&PostParams::default(), &configmap)
            .await?;

        succeeded(&lifebuoy(world, folder.path(), &["repo", "init"])?)?;
        let args = [
            "backup",
            "create",
            "--cluster-name=laptop",
            "--namespaces",
            &source,
        ];
        succeeded(&lifebuoy(world, folder.path(), &args)?)?;
        let points = lifebuoy(
            world,
            folder.path(),
            &["recoverypoint", "list", "-o", "json"],
        )?;
        let points: Value = serde_json::from_str(&succeeded(&points)?)?;
        ensure!(points.to_string().contains("laptop"), "{points}");

        let target = unique("direct-target");
        let mapping = format!("{source}={target}");
        let from = ["--cluster=laptop", "--map-namespace", &mapping];
        let plan = [&["restore", "plan"], from.as_slice()].concat();
        let plan = succeeded(&lifebuoy(world, folder.path(), &plan)?)?;
        ensure!(plan.contains("digest") || plan.contains("Digest"), "{plan}");
        let restored: Api<ConfigMap> = Api::namespaced(client, &target);
        ensure!(
            restored.get_opt("kept").await?.is_none(),
            "a plan changes nothing"
        );
        let run = [&["restore", "create"], from.as_slice()].concat();
        succeeded(&lifebuoy(world, folder.path(), &run)?)?;
        ensure!(restored.get("kept").await?.data == configmap.data);
        Ok(())
    });
}

#[test]
fn a_wrong_passphrase_and_a_missing_repository_end_with_a_hint() {
    scenario(async {
        let world = World::shared().await?;
        let folder = TestDirectory::new("hints")?;
        let missing = lifebuoy(world, folder.path(), &["recoverypoint", "list"])?;
        let said = String::from_utf8_lossy(&missing.stderr).into_owned();
        ensure!(
            !missing.status.success() && said.contains("hint:"),
            "{said}"
        );

        succeeded(&lifebuoy(world, folder.path(), &["repo", "init"])?)?;
        let wrong = Command::new(operator_binary()?)
            .args(["recoverypoint", "list", "--repo"])
            .arg(format!("file://{}", folder.path().display()))
            .env("LIFEBUOY_PASSPHRASE", "something else")
            .output()?;
        let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
        ensure!(wrong.status.code() == Some(1), "{:?}", wrong.status);
        ensure!(
            said.contains("passphrase") && !said.contains("something else"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn a_full_disk_fails_the_backup_and_keeps_what_was_saved() {
    scenario(async {
        let folder = TestDirectory::new("full")?;
        let Some(disk) = SmallDisk::mount(folder.path())? else {
            return Ok(());
        };
        let world = World::shared().await?;
        let client = world.client();
        let source = namespace(&client, "filling").await?;
        succeeded(&lifebuoy(world, disk.0, &["repo", "init"])?)?;
        let args = [
            "backup",
            "create",
            "--cluster-name=full",
            "--namespaces",
            &source,
        ];
        succeeded(&lifebuoy(world, disk.0, &args)?)?;

        let configmaps: Api<ConfigMap> = Api::namespaced(client, &source);
        let mut random = StdRng::seed_from_u64(7);
        for name in ["one", "two"] {
            let noise = (0..900_000)
                .map(|_| char::from(random.random_range(b' '..b'~')))
                .collect();
            let configmap = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name.into()),
                    ..ObjectMeta::default()
                },
                data: Some([("noise".to_owned(), noise)].into()),
                ..ConfigMap::default()
            };
            configmaps
                .create(&PostParams::default(), &configmap)
                .await?;
        }
        let full = lifebuoy(world, disk.0, &args)?;
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        ensure!(!full.status.success(), "the disk is not full");
        ensure!(said.contains("full") || said.contains("space"), "{said}");
        let points = lifebuoy(world, disk.0, &["recoverypoint", "list", "-o", "json"])?;
        let points: Value = serde_json::from_str(&succeeded(&points)?)?;
        let count = points.as_array().map_or(0, Vec::len);
        ensure!(
            count == 1,
            "the first backup is there and the second is not: {points}"
        );
        Ok(())
    });
}

/// A file system of 512 KiB.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Mounts it; only root can.
    fn mount(at: &'a Path) -> Result<Option<Self>> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(at)
            .output()?;
        if mounted.status.success() {
            return Ok(Some(Self(at)));
        }
        ensure!(
            std::env::var_os("CI").is_none(),
            "CI must run as root, to mount a small file system: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        println!("skipped: mounting a small file system takes root");
        Ok(None)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // What stays mounted goes with the machine; there is nobody to tell.
        drop(Command::new("umount").arg("--lazy").arg(self.0).status());
    }
}

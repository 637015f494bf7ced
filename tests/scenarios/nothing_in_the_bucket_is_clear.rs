//! Whoever reads the bucket without the passphrase learns nothing of what is
//! saved: every byte that `docs/format.md` does not list as clear is AEAD
//! output, and names of objects are random.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use lifebuoy_scenarios::{
    Ended, OPERATOR_NAMESPACE, SOON, World, backup, namespace, run, scenario,
};

use crate::support::format_reader::{Reader, Region};
use crate::support::repository;

/// A text that is in every place where a leak could be.
const MARKER: &str = "zanzibar-marmalade-quux";

#[test]
fn every_byte_is_listed_as_clear_or_sealed() {
    scenario(async {
        let world = World::start("clear-marker-cluster").await?;
        let client = world.client();
        let namespace = namespace(&client, MARKER).await?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        let metadata = ObjectMeta {
            name: Some(MARKER.into()),
            ..ObjectMeta::default()
        };
        let text = MARKER.repeat(2000);
        let secret = Secret {
            metadata: metadata.clone(),
            string_data: Some(BTreeMap::from([(MARKER.to_owned(), text.clone())])),
            ..Secret::default()
        };
        secrets.create(&PostParams::default(), &secret).await?;
        let configmap = ConfigMap {
            metadata,
            data: Some(BTreeMap::from([(MARKER.to_owned(), text)])),
            ..ConfigMap::default()
        };
        configmaps
            .create(&PostParams::default(), &configmap)
            .await?;
        for round in 0..3 {
            let name = format!("{MARKER}-{round}");
            let done = run(&client, OPERATOR_NAMESPACE, backup(&name, "main"), SOON).await?;
            ensure!(done.complete(), "{}", done.verdict());
        }
        let repository = repository(&world.store).await?;
        let all = lifebuoy_engine::point::points(&repository).await?;
        repository
            .forget(all.points[0].snapshot.session, MARKER)
            .await?;

        let bucket = world.s3.bucket_directory().join("clear-marker-cluster");
        let mut objects = BTreeMap::new();
        for file in files(&bucket)? {
            let key = file
                .strip_prefix(&bucket)?
                .to_str()
                .context("a key that is not UTF-8")?;
            objects.insert(key.to_owned(), fs::read(&file)?);
        }
        ensure!(objects.len() >= 10, "only {} objects", objects.len());
        let reader = Reader::new(&objects, &world.store.passphrase)?;
        let mut sealed = 0;
        for (key, bytes) in &objects {
            for needle in [
                MARKER,
                "configmaps",
                "apiVersion",
                "kube-system",
                "lifebuoy.dev",
            ] {
                ensure!(
                    !contains(bytes, needle.as_bytes()),
                    "{key} holds {needle:?}"
                );
            }
            has_a_random_name(key)?;
            let regions = reader
                .account(key, bytes)
                .with_context(|| format!("{key} is not as specified"))?;
            let mut end = 0;
            for region in regions {
                let range = match region {
                    Region::Clear(range) => range,
                    Region::Sealed(range) => {
                        sealed += range.len();
                        range
                    }
                };
                ensure!(
                    range.start == end,
                    "{key}: nobody accounts for {end}..{}",
                    range.start
                );
                end = range.end;
            }
            ensure!(
                end == bytes.len(),
                "{key}: nobody accounts for {end}..{}",
                bytes.len()
            );
        }
        ensure!(sealed > 10_000, "only {sealed} bytes are sealed");
        Ok(())
    });
}

/// Names consist of the folders of the format, counters, and hexadecimal ids.
fn has_a_random_name(key: &str) -> Result<()> {
    let parts = key.split(['/', '-', '.']);
    let folders = [
        "format", "keys", "packs", "index", "open", "end", "forget", "beat", "probe",
    ];
    for (position, part) in parts.enumerate() {
        let known = match position {
            0 => folders.contains(&part),
            _ => part == "data" || part == "meta" || part.bytes().all(|b| b.is_ascii_hexdigit()),
        };
        ensure!(known, "{key} tells {part:?}");
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => found.extend(files(&entry.path())?),
            false => found.push(entry.path()),
        }
    }
    Ok(found)
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

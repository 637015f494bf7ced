//! Objects at the edges of what the format holds. It only makes and changes
//! them; how they are stored is the engine's business.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use lifebuoy_repo::Writer;
use lifebuoy_testkit::sample;
use serde_json::json;

/// Where they are.
pub(super) const NAMESPACE: &str = "edges";
const OF_OTHER_TYPES: &str = include_str!("edges.yaml");
/// Names that begin a leaf of the search tree: with three of them, the tree has
/// an inner node.
const LEAVES: usize = 3;
const LEAF_RANK: u32 = 10;
/// Small objects between them.
const PLAIN: usize = 40;

/// Makes them.
pub(super) async fn create(client: &Client, writer: &Writer) -> Result<()> {
    let namespace = Namespace {
        metadata: named(NAMESPACE),
        ..Namespace::default()
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await?;
    sample::apply_yaml(client, OF_OTHER_TYPES).await?;
    let mut objects = vec![
        configmap("empty", &[]),
        configmap(&"a".repeat(253), &[("longest", "name")]),
        configmap(
            "text",
            &[("t", "z̈ürich\u{2028}\u{1}\u{7f}\"\\/</script>😀\r\n")],
        ),
        configmap("large", &[("noise", &noise(60_000))]),
    ];
    if let Some(large) = objects.last_mut() {
        let bytes = ByteString((0..=255).collect());
        large.binary_data = Some(BTreeMap::from([("bytes".to_owned(), bytes)]));
    }
    for n in 0..PLAIN {
        objects.push(configmap(&format!("plain-{n}"), &[("n", &n.to_string())]));
    }
    for name in leaf_names(writer) {
        objects.push(configmap(&name, &[("begins", "a leaf")]));
    }
    let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    for object in &objects {
        configmaps.create(&PostParams::default(), object).await?;
    }
    Ok(())
}

/// Changes a small and a large one, makes one, and deletes one. `round` counts from 1.
pub(super) async fn change(client: &Client, round: usize) -> Result<()> {
    let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    for (name, field) in [("plain-0", "n"), ("large", "noise")] {
        let patch = Patch::Merge(json!({"data": {field: format!("another, {round}")}}));
        configmaps
            .patch(name, &PatchParams::default(), &patch)
            .await?;
    }
    let new = configmap(&format!("new-{round}"), &[("a", "b")]);
    configmaps.create(&PostParams::default(), &new).await?;
    configmaps
        .delete(&format!("plain-{round}"), &DeleteParams::default())
        .await?;
    Ok(())
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

fn configmap(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<String, String> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    ConfigMap {
        metadata: named(name),
        data: (!data.is_empty()).then_some(data),
        ..ConfigMap::default()
    }
}

/// Text that does not compress to nothing, and is the same each time.
fn noise(bytes: usize) -> String {
    let blocks = (0_u64..).map(|n| blake3::hash(&n.to_le_bytes()).to_hex().to_string());
    let mut text: String = blocks.take(bytes / 64 + 1).collect();
    text.truncate(bytes);
    text
}

/// As `docs/format-archive.md` cuts.
fn leaf_names(writer: &Writer) -> Vec<String> {
    let secret = writer.chunk_id(b"lifebuoy archive: secret of the boundaries, version 1");
    let cut = blake3::keyed_hash(secret.as_bytes(), b"lifebuoy archive: cut");
    (0..)
        .map(|n| format!("leaf-{n}"))
        .filter(|name| {
            let key = format!("\0configmaps\0{NAMESPACE}\0{name}\0");
            let hash = blake3::keyed_hash(cut.as_bytes(), key.as_bytes());
            let mut low = [0; 8];
            low.copy_from_slice(&hash.as_bytes()[..8]);
            u64::from_le_bytes(low).trailing_zeros() >= LEAF_RANK
        })
        .take(LEAVES)
        .collect()
}

//! What is saved: versions of the same few objects, as the last release takes them
//! and as this one does, byte for byte alike.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chrono::DateTime;
use futures::TryStreamExt;
use lifebuoy_api::{Completeness, Consistency, PointCluster, Selection, VolumePolicy};
use lifebuoy_engine::archive::{
    Archive, ArchiveWriter, ArchivedObject, Fidelity, Manifest, ObjectKey, TypeId, TypeRecord,
};
use lifebuoy_engine::point::PointSummary;
use lifebuoy_repo::{
    ChunkKind, Error, Purpose, Repository, SessionId, SessionRequest, WriteStats, Writer,
};

const OBJECTS: usize = 150;

/// A ConfigMap. Each version changes a tenth of all.
fn object(n: usize, version: usize) -> (ArchivedObject, String) {
    let change = match n % 10 == version % 10 {
        true => version,
        false => 0,
    };
    let key = ObjectKey::new(format!("n{}", n % 2), format!("c{n}"));
    let metadata = format!(r#""name":"{}","namespace":"{}""#, key.name, key.namespace);
    let data = format!("{change} of {n}, ").repeat(40);
    let revision = format!(r#""resourceVersion":"{change}""#);
    let with = |metadata: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{{metadata}}},"data":{{"d":"{data}"}}}}"#
        )
    };
    let archived = ArchivedObject {
        key,
        stable: with(&metadata).into(),
        volatile: format!("{{{revision}}}").into(),
    };
    (archived, with(&format!("{metadata},{revision}")))
}

fn objects(version: usize) -> Vec<ArchivedObject> {
    let mut all: Vec<_> = (0..OBJECTS).map(|n| object(n, version).0).collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    all
}

/// Writes the file from which the last release takes a version.
pub(super) fn write_file(path: &Path, version: usize) -> Result<()> {
    let all: Vec<String> = (0..OBJECTS).map(|n| object(n, version).1).collect();
    let kind = r#""group":"","version":"v1","kind":"ConfigMap","resource":"configmaps""#;
    let text = format!(
        r#"{{"types":[{{{kind},"namespaced":true,"objects":[{}]}}]}}"#,
        all.join(",")
    );
    Ok(fs::write(path, text)?)
}

/// Saves a version with this release; anew if a collection begins just then.
pub(super) async fn save(
    repo: &Repository,
    cluster: &str,
    version: usize,
) -> Result<(SessionId, WriteStats)> {
    loop {
        let request = SessionRequest {
            id: SessionId::random(&mut rand::rng()),
            cluster: repo.cluster_key(cluster),
            purpose: Purpose::Backup,
            label: Bytes::new(),
        };
        match repo.begin(request).await {
            Err(Error::Outdated { .. }) => {}
            writer => return write(Arc::new(writer?), cluster, version).await,
        }
    }
}

async fn write(
    writer: Arc<Writer>,
    cluster: &str,
    version: usize,
) -> Result<(SessionId, WriteStats)> {
    let id = TypeId::new("", "configmaps");
    let mut type_writer = ArchiveWriter::new(Arc::clone(&writer)).begin(id);
    for ArchivedObject {
        key,
        stable,
        volatile,
    } in objects(version)
    {
        type_writer.push(key, &stable, &volatile).await?;
    }
    let totals = type_writer.finish().await?;
    let record = TypeRecord {
        group: String::new(),
        version: "v1".to_owned(),
        served_versions: vec!["v1".to_owned()],
        kind: "ConfigMap".to_owned(),
        resource: "configmaps".to_owned(),
        namespaced: true,
        fidelity: Fidelity::Exact,
        resource_version: Some("1".to_owned()),
        objects: totals.objects,
        bytes: totals.bytes,
        tree: totals.tree,
    };
    let manifest = manifest(cluster, record);
    let root = manifest.to_bytes()?;
    let root = writer.put(ChunkKind::Metadata, root).await?;
    let snapshot = writer.commit(root, manifest.summary.to_bytes()?).await?;
    Ok((snapshot.session, writer.stats()))
}

fn manifest(cluster: &str, record: TypeRecord) -> Manifest {
    Manifest {
        version: Manifest::version_for(&[]),
        summary: PointSummary {
            version: 1,
            cluster: PointCluster {
                name: cluster.to_owned(),
                uid: cluster.to_owned(),
            },
            schedule: String::new(),
            backup: "new".to_owned(),
            backup_uid: String::new(),
            taken_at: DateTime::UNIX_EPOCH,
            completeness: Completeness::Complete,
            consistency: Consistency::Exact,
            objects: record.objects,
            kubernetes_version: "v1.36.3".to_owned(),
        },
        revision: Some("1".to_owned()),
        selection: Selection::default(),
        volumes: VolumePolicy::Save,
        own_namespace: None,
        volumes_not_saved: Vec::new(),
        volumes_saved: Vec::new(),
        types: vec![record],
        unavailable_groups: Vec::new(),
        problems: Vec::new(),
    }
}

/// Reads a snapshot in full and compares it with its version.
pub(super) async fn compare(repo: &Repository, session: SessionId, version: usize) -> Result<()> {
    let archive = Archive::open(repo, session).await?;
    let record = archive.manifest.types.first().context("it has no type")?;
    let found: Vec<_> = archive.objects(record).try_collect().await?;
    ensure!(found == objects(version), "it holds other objects");
    Ok(())
}

//! Planning from an archive in a repository in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifebuoy_repo::{ChunkKind, Repository};
use serde_json::json;

use super::*;
use crate::archive::ArchiveWriter;
use crate::discovery::ServedType;
use crate::restore::NamespacePhase;
use crate::restore::kinds::test_objects::{object, record_of, remapped, rules, shop};
use crate::testing::{fake_manifest, repository, session};

/// Writes objects as a capture does.
async fn archive_of(repo: &Repository, objects: &[Value]) -> Archive {
    let (session, writer) = session(repo).await;
    let archive = ArchiveWriter::new(Arc::clone(&writer));
    let mut by_type: BTreeMap<TypeId, (TypeRecord, BTreeMap<ObjectKey, ArchivedObject>)> =
        BTreeMap::new();
    for body in objects {
        let (t, object) = (record_of(body), object(body));
        let of = by_type
            .entry(t.id())
            .or_insert_with(|| (t, BTreeMap::new()));
        of.1.insert(object.key.clone(), object);
    }
    let mut manifest = None;
    for (id, (mut t, objects)) in by_type {
        let mut of_type = archive.begin(id.clone());
        for (key, object) in objects {
            of_type
                .push(key, &object.stable, &object.volatile)
                .await
                .unwrap();
        }
        let totals = of_type.finish().await.unwrap();
        let manifest = manifest.get_or_insert_with(|| {
            let mut manifest = fake_manifest(&id, totals);
            manifest.types.clear();
            manifest
        });
        (t.objects, t.bytes, t.tree) = (totals.objects, totals.bytes, totals.tree);
        manifest.types.push(t);
    }
    let manifest = manifest.unwrap();
    let root = writer
        .put(ChunkKind::Metadata, manifest.to_bytes().unwrap())
        .await
        .unwrap();
    writer
        .commit(root, manifest.summary.to_bytes().unwrap())
        .await
        .unwrap();
    Archive::open(repo, session).await.unwrap()
}

/// A cluster that has nothing but the types of the archive.
fn empty_cluster(archive: &Archive) -> Target {
    let served = archive.manifest.types.iter().map(|t| ServedType {
        group: t.group.clone(),
        version: t.version.clone(),
        served_versions: vec![t.version.clone()],
        kind: t.kind.clone(),
        resource: t.resource.clone(),
        namespaced: t.namespaced,
        verbs: Vec::new(),
        short_names: Vec::new(),
        stale: false,
    });
    Target {
        served: served.collect(),
        namespaces: [("default".to_owned(), NamespacePhase::Active)].into(),
        ..Target::default()
    }
}

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn what_is_planned_is_what_is_prepared_again_when_the_plan_is_carried_out() {
    let repo = repository().await;
    let archive = archive_of(&repo, &shop()).await;
    let rules = rules(remapped());
    let target = empty_cluster(&archive);
    let plan = assert_send(plan(&archive, &rules, async |wanted: &Wanted| {
        assert!(wanted.namespaces.contains("store"));
        Ok(target)
    }))
    .await
    .unwrap();
    assert!(plan.entries.len() > 30, "{}", plan.table());
    let context = plan.context("restore-1", &archive.manifest);
    for entry in &plan.entries {
        let of = plan.type_of(entry);
        let t = archive
            .manifest
            .types
            .iter()
            .find(|t| t.id() == of.id)
            .unwrap();
        let object = archive
            .get(t, &entry.source.to_object_key())
            .await
            .unwrap()
            .unwrap();
        let Prepared::Write(draft) = prepare(&rules, &context, t, &object) else {
            panic!("{} is not written", plan.subject(entry));
        };
        assert_eq!(draft.hash, entry.body, "{}", plan.subject(entry));
        assert!(entry.target.is(&draft.target));
        for owner in &draft.owners {
            let known = plan.owner_entry(entry, owner);
            assert_eq!(known.is_some(), owner.name == "web", "{owner:?}");
        }
    }
}

#[tokio::test]
async fn a_selection_reads_and_asks_about_nothing_else() {
    let repo = repository().await;
    let archive = archive_of(&repo, &shop()).await;
    let keys = async |selection: Value| -> Vec<String> {
        let rules = rules(json!({"selection": selection}));
        let wanted = survey(&archive, &rules).await.unwrap().wanted();
        let keys = wanted
            .types
            .iter()
            .flat_map(|of| of.keys.iter().map(move |key| format!("{} {key}", of.id)));
        keys.collect()
    };
    let tools = ["namespaces tools", "services tools/gate"];
    let of_tools = json!({"namespaces": ["tools"], "resources": ["services"]});
    assert_eq!(keys(of_tools).await, tools);
    let no_shop = json!({"excludedNamespaces": ["shop"], "resources": ["services"]});
    assert_eq!(keys(no_shop).await, tools);
}

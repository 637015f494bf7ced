//! Looks at the target of a restore: what it serves, which of the wanted objects
//! exist, its namespaces and storage classes.
//!
//! Reads metadata only (but of claims whose volumes are overwritten) and keeps wanted keys only, so memory grows with what is
//! restored and not with the cluster. What cannot be read is named as such, and
//! never taken for "nothing there". Changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use lifebuoy_api::bounded;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::apply::{Http, JSON, METADATA_LIST, Place, put_escaped};
use super::{
    Existing, ExistingClaim, ExistingObjects, Key, NamespacePhase, Target, Wanted, WantedType,
};
use crate::Error;
use crate::archive::TypeId;
use crate::discovery::{self, ServedType};
use crate::volumes::{VolumeMode, bytes_of_quantity};

/// Lists at a time: the API server gives each up to ten seats.
const LISTS_AT_ONCE: usize = 4;
/// Items in a page.
const PAGE_ITEMS: u32 = 500;
/// Up to this many namespaces, each is listed on its own.
const NAMESPACES_APART_MAX: usize = 8;
/// How often a page is asked for.
const ATTEMPTS_MAX: u32 = 5;
/// How often a list begins anew because its revision was compacted.
const RESTARTS_MAX: u32 = 3;
/// The first wait before a page is asked for again.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest wait that a server can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How much of the server's words are kept.
const WORDS_BYTES_MAX: usize = 200;

/// Finds out what a plan has to know about the target.
///
/// # Errors
/// [`Error::Kube`] or [`Error::Api`] when the cluster does not say what it serves
/// or which namespaces it has. A type that cannot be listed is in
/// [`Target::unreadable`].
pub async fn observe(
    client: &kube::Client,
    wanted: &Wanted,
    restore_uid: &str,
) -> Result<Target, Error> {
    let http = Http::new(client);
    let (discovered, namespaces, storage_classes) = futures::try_join!(
        discovery::discover(client),
        namespaces(&http),
        storage_classes(&http),
    )?;
    let mut target = Target {
        served: discovered.types,
        kubernetes_version: discovered.kubernetes_version,
        namespaces,
        storage_classes,
        ..Target::default()
    };
    let served: BTreeMap<(&str, &str), &ServedType> = target
        .served
        .iter()
        .map(|of| ((of.group.as_str(), of.resource.as_str()), of))
        .collect();
    let mut lists = Vec::new();
    for of in wanted.types.iter().filter(|of| !of.keys.is_empty()) {
        match served.get(&(of.id.group.as_str(), of.id.resource.as_str())) {
            // Its objects cannot exist where it is not served.
            None => {}
            Some(served) if served.stale => {
                let why = format!("the server behind {} does not answer", served.api_version());
                target.unreadable.insert(of.id.clone(), why);
            }
            Some(served) => lists.extend(lists_of(of, served, &target.namespaces)),
        }
    }
    let mut found = stream::iter(lists)
        .map(|list| {
            let http = &http;
            async move { (list.of, look(http, &list, restore_uid).await) }
        })
        .buffer_unordered(LISTS_AT_ONCE);
    let mut existing = ExistingObjects::default();
    while let Some((of, keys)) = found.next().await {
        match keys {
            Ok(keys) => {
                for (key, ours) in keys {
                    existing.insert(&of.id, key, Existing { ours });
                }
            }
            Err(why) => {
                target.unreadable.insert(of.id.clone(), why);
            }
        }
    }
    drop(found);
    target.existing = existing;
    match claims(&http, &wanted.claims).await {
        Ok(claims) => target.claims = claims,
        Err(why) => {
            let id = TypeId::new("", "persistentvolumeclaims");
            target.unreadable.insert(id, why);
        }
    }
    Ok(target)
}

/// What the claims are like that exist among these.
async fn claims(
    http: &Http,
    wanted: &BTreeSet<Key>,
) -> Result<HashMap<Key, ExistingClaim>, String> {
    let namespaces: BTreeSet<&str> = wanted.iter().map(|key| &*key.namespace).collect();
    let place = Place::new(&TypeId::new("", "persistentvolumeclaims"), "v1", true);
    let mut found = HashMap::new();
    for namespace in namespaces {
        each(
            http,
            &place.list(namespace),
            JSON,
            |item: PersistentVolumeClaim| {
                let name = item.metadata.name.as_deref().unwrap_or_default();
                let key = Key::new(namespace, name);
                if wanted.contains(&key) {
                    found.insert(key, existing_claim(&item));
                }
            },
        )
        .await?;
    }
    Ok(found)
}

fn existing_claim(claim: &PersistentVolumeClaim) -> ExistingClaim {
    let status = claim.status.as_ref();
    let spec = claim.spec.as_ref();
    let is_bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = spec.and_then(|spec| spec.volume_name.clone());
    let owners = claim.metadata.owner_references.iter().flatten();
    let capacity = status.and_then(|status| status.capacity.as_ref()?.get("storage"));
    let mode = spec.and_then(|spec| spec.volume_mode.as_deref());
    ExistingClaim {
        volume: volume.filter(|volume| is_bound && !volume.is_empty()),
        terminating: claim.metadata.deletion_timestamp.is_some(),
        of_pod: owners.into_iter().any(|owner| owner.kind == "Pod"),
        mode: match mode {
            Some("Block") => VolumeMode::Block,
            _ => VolumeMode::Filesystem,
        },
        capacity_bytes: capacity.and_then(|capacity| bytes_of_quantity(&capacity.0)),
    }
}

/// One list: a type, in one namespace or in all.
struct List<'a> {
    of: &'a WantedType,
    path: String,
}

/// The lists that hold all wanted objects of a type. Namespaces that do not
/// exist hold none.
fn lists_of<'a>(
    of: &'a WantedType,
    served: &ServedType,
    namespaces: &BTreeMap<String, NamespacePhase>,
) -> Vec<List<'a>> {
    let place = Place::new(&of.id, &served.version, served.namespaced);
    let everywhere = || {
        vec![List {
            of,
            path: place.list(""),
        }]
    };
    if !served.namespaced || !of.namespaced {
        return everywhere();
    }
    let existing: BTreeSet<&str> = of
        .keys
        .iter()
        .map(|key| &*key.namespace)
        .filter(|namespace| namespaces.contains_key(*namespace))
        .collect();
    if existing.len() > NAMESPACES_APART_MAX {
        return everywhere();
    }
    existing
        .into_iter()
        .map(|namespace| List {
            of,
            path: place.list(namespace),
        })
        .collect()
}

/// The wanted keys that a list holds, and whether each is the restore's own.
async fn look(http: &Http, list: &List<'_>, restore_uid: &str) -> Result<Vec<(Key, bool)>, String> {
    let mut keys = Vec::new();
    each(http, &list.path, METADATA_LIST, |item: Item| {
        let Metadata {
            namespace,
            name,
            annotations,
        } = item.metadata;
        if let Some(key) = list.of.get(&namespace, &name) {
            let stamp = annotations.and_then(|all| all.restored_by);
            keys.push((key.clone(), stamp.as_deref() == Some(restore_uid)));
        }
    })
    .await?;
    Ok(keys)
}

async fn namespaces(http: &Http) -> Result<BTreeMap<String, NamespacePhase>, Error> {
    let mut namespaces = BTreeMap::new();
    let list = "/api/v1/namespaces";
    each(http, list, METADATA_LIST, |item: NamespaceItem| {
        let phase = if item.metadata.deletion_timestamp.is_some() {
            NamespacePhase::Terminating
        } else {
            NamespacePhase::Active
        };
        namespaces.insert(item.metadata.name, phase);
    })
    .await
    .map_err(|message| Error::Api {
        what: "list the namespaces of the target".to_owned(),
        message,
    })?;
    Ok(namespaces)
}

async fn storage_classes(http: &Http) -> Result<Option<BTreeSet<String>>, Error> {
    let mut classes = BTreeSet::new();
    let place = Place::new(
        &TypeId::new("storage.k8s.io", "storageclasses"),
        "v1",
        false,
    );
    let list = place.list("");
    let listed = each(http, &list, METADATA_LIST, |item: Item| {
        classes.insert(item.metadata.name);
    })
    .await;
    Ok(listed.is_ok().then_some(classes))
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    // An empty list of metadata has `"items": null`.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "lifebuoy.dev/restored-by", default)]
    restored_by: Option<String>,
}

#[derive(Deserialize)]
struct NamespaceItem {
    metadata: NamespaceMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NamespaceMetadata {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
}

/// Why a page did not come.
enum PageError {
    /// The revision of the list is gone: it has to begin anew.
    Expired,
    Refused(String),
}

/// Gives every item of a list in this form, page by page. After a compaction the list begins
/// anew, so an item can come twice.
async fn each<T: DeserializeOwned>(
    http: &Http,
    path: &str,
    form: &str,
    mut take: impl FnMut(T),
) -> Result<(), String> {
    let mut next = String::new();
    let mut restarts = 0;
    loop {
        let mut uri = format!("{path}?limit={PAGE_ITEMS}");
        if !next.is_empty() {
            uri.push_str("&continue=");
            put_escaped(&mut uri, &next);
        }
        match page::<T>(http, uri, form).await {
            Ok(page) => {
                page.items.into_iter().flatten().for_each(&mut take);
                next = page.metadata.next;
                if next.is_empty() {
                    return Ok(());
                }
            }
            Err(PageError::Expired) if restarts < RESTARTS_MAX => {
                restarts += 1;
                next.clear();
            }
            Err(PageError::Expired) => {
                return Err(
                    "the list takes longer than the API server keeps its revision".to_owned(),
                );
            }
            Err(PageError::Refused(message)) => return Err(message),
        }
    }
}

async fn page<T: DeserializeOwned>(
    http: &Http,
    uri: String,
    form: &str,
) -> Result<Page<T>, PageError> {
    let mut pause = PAUSE;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (message, after) = match http.read(uri.clone(), form).await {
            Ok(answer) if answer.code == 200 => {
                return serde_json::from_slice(&answer.body).map_err(|error| {
                    PageError::Refused(format!("the answer is no list: {error}"))
                });
            }
            Ok(answer) if answer.code == 410 => return Err(PageError::Expired),
            Ok(answer) => {
                let status: Status = serde_json::from_slice(&answer.body).unwrap_or_default();
                let words = bounded(&status.message, WORDS_BYTES_MAX);
                let message = format!("the API server answered {}: {words}", answer.code);
                if answer.code != 429 && answer.code < 500 {
                    return Err(PageError::Refused(message));
                }
                (message, answer.retry_after)
            }
            Err(lost) => (format!("no answer from the API server: {}", lost.0), None),
        };
        if attempt >= ATTEMPTS_MAX {
            return Err(PageError::Refused(message));
        }
        tokio::time::sleep(after.map_or(pause, |after| after.min(PAUSE_MAX).max(pause))).await;
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(namespaced: bool) -> ServedType {
        ServedType {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            served_versions: vec!["v1".to_owned()],
            kind: "Deployment".to_owned(),
            resource: "deployments".to_owned(),
            namespaced,
            verbs: Vec::new(),
            short_names: Vec::new(),
            stale: false,
        }
    }

    fn paths(wanted: usize, existing: usize) -> Vec<String> {
        let name = |n: usize| format!("ns-{n:02}");
        let of = WantedType {
            id: TypeId::new("apps", "deployments"),
            kind: "Deployment".to_owned(),
            version: "v1".to_owned(),
            namespaced: true,
            keys: (0..wanted).map(|n| Key::new(&name(n), "web")).collect(),
        };
        let namespaces = (0..existing)
            .map(|n| (name(n), NamespacePhase::Active))
            .collect();
        lists_of(&of, &served(true), &namespaces)
            .into_iter()
            .map(|list| list.path)
            .collect()
    }

    #[test]
    fn only_namespaces_that_exist_are_listed() {
        assert_eq!(paths(100, 0), [""; 0]);
        assert_eq!(
            paths(100, 1),
            ["/apis/apps/v1/namespaces/ns-00/deployments"]
        );
        assert_eq!(paths(100, 50), ["/apis/apps/v1/deployments"]);
    }

    #[test]
    fn items_are_read_whatever_else_they_hold() {
        let page: Page<Item> = serde_json::from_str(
            r#"{"metadata": {"continue": "t", "remainingItemCount": 3}, "items": [
                {"metadata": {"name": "a", "namespace": "n", "annotations": {"lifebuoy.dev/restored-by": "u"}, "managedFields": [{}]}},
                {"metadata": {"name": "b", "annotations": null}}]}"#,
        )
        .unwrap();
        assert_eq!(page.metadata.next, "t");
        let stamps: Vec<_> = page
            .items
            .unwrap_or_default()
            .into_iter()
            .map(|item| item.metadata.annotations.and_then(|all| all.restored_by))
            .collect();
        assert_eq!(stamps, [Some("u".to_owned()), None]);
        let terminating: NamespaceItem =
            serde_json::from_str(r#"{"metadata": {"name": "a", "deletionTimestamp": "now"}}"#)
                .unwrap();
        assert!(terminating.metadata.deletion_timestamp.is_some());
    }
}

//! Requests to an installed operator, and waiting for how they end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, Resource};
use lifebuoy_api::{
    Access, Backup, BackupSpec, ConditionType, ExistingRules, ExistingVolumes, Initialize,
    KeyReference, LocalReference, Maintenance, Mapping, Mirroring, RecoveryPoint, Repository,
    RepositorySpec, Restore, RestoreMode, RestoreSource, RestoreSpec, RestoreVolumePolicy,
    Schedule, Selection, VolumeMatch, VolumePolicy, VolumeRule, VolumeWay, find, is_true,
};
use lifebuoy_testkit::S3Server;
use lifebuoy_testkit::s3::S3User;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How often a waiting scenario looks.
const POLL: Duration = Duration::from_millis(50);

/// Where a repository is and how to get in, as a person would know it.
#[derive(Clone, Debug)]
pub struct Store {
    /// `s3://bucket/prefix`
    pub url: String,
    /// The S3 server, or a proxy before it.
    pub endpoint: String,
    /// Names and values as in the environment of the AWS SDK.
    pub credentials: BTreeMap<String, String>,
    /// What the repository is encrypted under.
    pub passphrase: String,
}

impl Store {
    /// A place of its own below the server's bucket, with the root credentials.
    #[must_use]
    pub fn at(s3: &S3Server, prefix: &str) -> Self {
        Self {
            url: format!("{}/{prefix}", s3.url().trim_end_matches('/')),
            endpoint: s3.endpoint(),
            credentials: credentials(s3.access_key(), s3.secret_key()),
            passphrase: "correct horse battery staple".to_owned(),
        }
    }

    /// The same place with another user's credentials.
    #[must_use]
    pub fn as_user(&self, user: &S3User) -> Self {
        Self {
            credentials: credentials(&user.access_key, &user.secret_key),
            ..self.clone()
        }
    }

    /// The same place through another endpoint, such as a counting proxy.
    #[must_use]
    pub fn through(&self, endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            ..self.clone()
        }
    }

    /// Everything a command line needs, as environment variables.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut environment = self.credentials.clone();
        environment.insert("LIFEBUOY_REPO_URL".into(), self.url.clone());
        environment.insert("LIFEBUOY_ENDPOINT".into(), self.endpoint.clone());
        environment.insert("LIFEBUOY_PASSPHRASE".into(), self.passphrase.clone());
        environment
    }

    /// Creates the Secrets and the Repository `name`; does not wait.
    ///
    /// # Errors
    /// When the API server refuses one of them.
    pub async fn declare(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<Repository> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let passphrase = BTreeMap::from([("passphrase".to_owned(), self.passphrase.clone())]);
        for (suffix, data) in [
            ("credentials", self.credentials.clone()),
            ("passphrase", passphrase),
        ] {
            let secret = Secret {
                metadata: named(&format!("{name}-{suffix}")),
                string_data: Some(data),
                ..Secret::default()
            };
            secrets.create(&PostParams::default(), &secret).await?;
        }
        create(
            client,
            namespace,
            Repository::new(name, self.repository_spec(name)),
        )
        .await
    }

    /// The spec of a Repository at this place, with Secrets named after it.
    #[must_use]
    pub fn repository_spec(&self, name: &str) -> RepositorySpec {
        RepositorySpec {
            url: self.url.clone(),
            endpoint: Some(self.endpoint.clone()),
            region: Some(lifebuoy_testkit::s3::REGION.to_owned()),
            allow_http: true,
            credentials_secret_ref: Some(LocalReference {
                name: format!("{name}-credentials"),
            }),
            passphrase_secret_ref: KeyReference {
                name: format!("{name}-passphrase"),
                key: "passphrase".to_owned(),
            },
            ca_secret_ref: None,
            proxy: None,
            access: Access::default(),
            initialize: Initialize::default(),
            mirror: Mirroring::default(),
            maintenance: Maintenance::default(),
            max_concurrent_movers: None,
            suspend: false,
        }
    }
}

fn credentials(access_key: &str, secret_key: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("AWS_ACCESS_KEY_ID".to_owned(), access_key.to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), secret_key.to_owned()),
    ])
}

/// One of our kinds, as far as these helpers care.
pub trait Kind:
    Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
    + Serialize
    + DeserializeOwned
    + Clone
    + std::fmt::Debug
{
}

impl<K> Kind for K where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug
{
}

/// A Backup of everything but the data of volumes.
#[must_use]
pub fn backup(name: &str, repository: &str) -> Backup {
    Backup::new(
        name,
        BackupSpec {
            repository: repository.to_owned(),
            selection: Selection::default(),
            volumes: VolumePolicy::Skip,
            volume_policies: Vec::new(),
            hooks: Vec::new(),
            active_deadline_seconds: None,
            ttl_seconds_after_finished: None,
            cancel: false,
        },
    )
}

/// A Backup of one namespace, with the data of all its volumes saved in this way.
#[must_use]
pub fn backup_of_volumes(name: &str, repository: &str, namespace: &str, way: VolumeWay) -> Backup {
    let mut backup = backup(name, repository);
    backup.spec.selection.namespaces = vec![namespace.to_owned()];
    backup.spec.volumes = VolumePolicy::Save;
    backup.spec.volume_policies = vec![VolumeRule {
        matching: VolumeMatch::default(),
        way,
        snapshot_class: None,
    }];
    backup
}

/// A Restore of what `from` says, with nothing changed.
#[must_use]
pub fn restore(name: &str, from: RestoreSource) -> Restore {
    Restore::new(
        name,
        RestoreSpec {
            from,
            mode: RestoreMode::default(),
            plan_digest: None,
            selection: Selection::default(),
            mapping: Mapping::default(),
            transforms: Vec::new(),
            existing: ExistingRules::default(),
            volumes: RestoreVolumePolicy::default(),
            existing_volumes: ExistingVolumes::default(),
            rerun: None,
            ttl_seconds_after_finished: None,
            cancel: false,
        },
    )
}

/// A source that is one snapshot of a repository.
#[must_use]
pub fn from_snapshot(repository: &str, snapshot: &str) -> RestoreSource {
    RestoreSource {
        repository: Some(repository.to_owned()),
        snapshot: Some(snapshot.to_owned()),
        ..RestoreSource::default()
    }
}

/// A source that is the newest complete snapshot of a cluster.
#[must_use]
pub fn newest_of(repository: &str, cluster: &str) -> RestoreSource {
    RestoreSource {
        repository: Some(repository.to_owned()),
        cluster: Some(cluster.to_owned()),
        ..RestoreSource::default()
    }
}

/// Creates an object.
///
/// # Errors
/// When the API server refuses it.
pub async fn create<K: Kind>(client: &Client, namespace: &str, object: K) -> Result<K> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    Ok(api.create(&PostParams::default(), &object).await?)
}

/// Creates a request and waits for its end.
///
/// # Errors
/// When it is refused or does not end within `limit`.
pub async fn run<K: Kind + Ended>(
    client: &Client,
    namespace: &str,
    request: K,
    limit: Duration,
) -> Result<K> {
    let name = request
        .meta()
        .name
        .clone()
        .context("a request has a name")?;
    create(client, namespace, request).await?;
    until(client, namespace, &name, limit, Ended::ended).await
}

/// Waits until the Repository is ready.
///
/// # Errors
/// When it is not within `limit`; the message has its status.
pub async fn repository_ready(
    client: &Client,
    namespace: &str,
    name: &str,
    limit: Duration,
) -> Result<Repository> {
    until(client, namespace, name, limit, |repository: &Repository| {
        is_true(repository.conditions(), ConditionType::Ready)
    })
    .await
}

/// Waits until `done` holds of the object.
///
/// # Errors
/// When it does not within `limit`; the message has the object as last seen.
pub async fn until<K: Kind>(
    client: &Client,
    namespace: &str,
    name: &str,
    limit: Duration,
    done: impl Fn(&K) -> bool,
) -> Result<K> {
    until_in(
        Api::namespaced(client.clone(), namespace),
        name,
        limit,
        done,
    )
    .await
}

/// Waits until `done` holds of the cluster-scoped object.
///
/// # Errors
/// As [`until`].
pub async fn until_cluster<K>(
    client: &Client,
    name: &str,
    limit: Duration,
    done: impl Fn(&K) -> bool,
) -> Result<K>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    until_in(Api::all(client.clone()), name, limit, done).await
}

async fn until_in<K>(
    api: Api<K>,
    name: &str,
    limit: Duration,
    done: impl Fn(&K) -> bool,
) -> Result<K>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < limit {
        // The API server itself may be away for a while in some scenarios.
        if let Ok(object) = api.get(name).await {
            if done(&object) {
                return Ok(object);
            }
            last = Some(object);
        }
        tokio::time::sleep(POLL).await;
    }
    let last = serde_json::to_string_pretty(&last)?;
    bail!(
        "{} {name} is not as expected after {limit:?}: {last}",
        K::kind(&())
    )
}

/// The recovery points that the cluster shows.
///
/// # Errors
/// When they cannot be listed.
pub async fn points(client: &Client, namespace: &str) -> Result<Vec<RecoveryPoint>> {
    let api: Api<RecoveryPoint> = Api::namespaced(client.clone(), namespace);
    Ok(api.list(&ListParams::default()).await?.items)
}

/// A request of which one can say how it ended.
pub trait Ended {
    /// Its conditions, as far as it has any.
    fn conditions(&self) -> &[Condition];

    /// Whether it has ended: it completed, failed, or cannot go on.
    fn ended(&self) -> bool {
        [
            ConditionType::Complete,
            ConditionType::Failed,
            ConditionType::Stalled,
        ]
        .into_iter()
        .any(|kind| is_true(self.conditions(), kind))
    }

    /// Whether it did all that was asked.
    fn complete(&self) -> bool {
        is_true(self.conditions(), ConditionType::Complete)
    }

    /// The reason and the message of the condition that ended it.
    fn verdict(&self) -> String {
        [
            ConditionType::Complete,
            ConditionType::Failed,
            ConditionType::Stalled,
        ]
        .into_iter()
        .filter_map(|kind| find(self.conditions(), kind))
        .find(|condition| condition.status == "True")
        .map_or_else(
            || "not ended".to_owned(),
            |c| format!("{}={}: {}", c.type_, c.reason, c.message),
        )
    }
}

macro_rules! has_conditions {
    ($($kind:ty),*) => {$(
        impl Ended for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map_or(&[], |status| &status.conditions)
            }
        }
    )*};
}
has_conditions!(Backup, Restore, Repository, Schedule);

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

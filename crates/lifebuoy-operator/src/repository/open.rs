//! Opening repositories with what their Secrets hold, and keeping them open
//! for as long as nothing about them changes. Secrets are read by name in the
//! own namespace, and their contents are in no message.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::Instant,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use lifebuoy_api::{self as api, Access, Initialize, KeyReference, Reason};
use lifebuoy_engine::volumes::RepositoryAccess;
use lifebuoy_repo::{
    Credentials, Error as RepoError, KdfCost, Location, LocationOptions, Passphrase, Repository,
    StoreAbilities,
};
use tokio::sync::Mutex;

use crate::error::sentence;

/// Why a repository cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is no such Repository.
    #[error("there is no Repository `{0}` in this namespace")]
    NotFound(String),
    /// It is suspended.
    #[error("the Repository `{0}` is suspended")]
    Suspended(String),
    /// A Secret or one of its keys is not there.
    #[error("{path}: {message}")]
    Secret { path: &'static str, message: String },
    /// The API server failed.
    #[error("cannot read a Secret")]
    Kube(#[source] kube::Error),
    /// The repository said no.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

impl OpenError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) => Reason::RepositoryNotFound,
            Self::Suspended(_) => Reason::RepositoryNotReady,
            Self::Secret { .. } => Reason::SecretNotFound,
            Self::Kube(_) => Reason::InternalError,
            Self::Repo(error) => reason(error),
        }
    }

    /// The whole sentence, with the way out.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Repo(RepoError::Location { field, problem }) => {
                let path = match *field {
                    "credentials" => "spec.credentialsSecretRef".to_owned(),
                    "ca" => "spec.caSecretRef".to_owned(),
                    other => format!("spec.{other}"),
                };
                format!("{path}: {problem}")
            }
            Self::Repo(error) => sentence(error, error.hint()),
            Self::NotFound(_) => format!("{self}; create it, or correct the name"),
            Self::Suspended(_) => format!("{self}; set `spec.suspend: false` on it"),
            Self::Secret { .. } => format!("{self}; create it, or correct the reference"),
            Self::Kube(_) => sentence(self, None),
        }
    }

    /// Whether the same may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Kube(_) | Self::Secret { .. } => true,
            Self::Repo(error) => error.is_transient(),
            Self::NotFound(_) | Self::Suspended(_) => false,
        }
    }
}

/// The word for what a repository said.
pub(crate) fn reason(error: &RepoError) -> Reason {
    match error {
        RepoError::Location { .. } => Reason::InvalidSpec,
        RepoError::EmptyPassphrase => Reason::SecretNotFound,
        _ => lifebuoy_engine::Error::from(error.clone()).reason(),
    }
}

/// A repository that is open, and what its store can do.
pub(crate) struct Opened {
    pub(crate) repo: Repository,
    /// When the store was probed, and what came of it.
    pub(crate) probed: SyncMutex<Option<(Instant, StoreAbilities)>>,
}

/// The open repositories, by the uid of their object.
#[derive(Default)]
pub(crate) struct Repositories {
    slots: SyncMutex<HashMap<String, Arc<Mutex<Slot>>>>,
}

type Slot = Option<(Key, Arc<Opened>)>;

/// What a handle depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    generation: Option<i64>,
    /// The resourceVersions of the Secrets.
    secrets: Vec<Option<String>>,
}

impl Repositories {
    /// The Repository of this name in this namespace, opened. Makes none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) async fn by_name(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<(api::Repository, Arc<Opened>), OpenError> {
        let objects: Api<api::Repository> = Api::namespaced(client.clone(), namespace);
        let object = objects
            .get_opt(name)
            .await
            .map_err(OpenError::Kube)?
            .ok_or_else(|| OpenError::NotFound(name.to_owned()))?;
        let opened = self.open(client, &object, false).await?;
        Ok((object, opened))
    }

    /// Opens a repository, or gives the handle that is open. With `initialize`,
    /// makes one where there is none and the spec allows it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) async fn open(
        &self,
        client: &Client,
        object: &api::Repository,
        initialize: bool,
    ) -> Result<Arc<Opened>, OpenError> {
        if object.spec.suspend {
            return Err(OpenError::Suspended(object.name_any()));
        }
        let inputs = Inputs::read(client, object).await?;
        let slot = self.slot(&object.uid().unwrap_or_default());
        // Held while opening: two that need it derive the key once.
        let mut slot = slot.lock().await;
        if let Some((key, opened)) = &*slot
            && *key == inputs.key
        {
            return Ok(opened.clone());
        }
        let repo = inputs.open(initialize && may_initialize(object)).await?;
        let opened = Arc::new(Opened {
            repo,
            probed: SyncMutex::default(),
        });
        *slot = Some((inputs.key, opened.clone()));
        Ok(opened)
    }

    fn slot(&self, uid: &str) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(uid.to_owned()).or_default().clone()
    }

    /// Closes a handle that turned out not to fit what is in the store.
    pub(crate) fn close(&self, uid: &str) {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}

fn may_initialize(object: &api::Repository) -> bool {
    object.spec.access == Access::ReadWrite && object.spec.initialize == Initialize::IfMissing
}

/// All that opens this repository, for a process elsewhere. It holds secrets.
///
/// # Errors
/// [`OpenError::Suspended`], [`OpenError::Secret`], [`OpenError::Kube`].
#[allow(dead_code, reason = "Backups and VolumeRestores are about to use it")]
pub(crate) async fn access(
    client: &Client,
    object: &api::Repository,
) -> Result<RepositoryAccess, OpenError> {
    if object.spec.suspend {
        return Err(OpenError::Suspended(object.name_any()));
    }
    let Contents {
        versions: _,
        passphrase,
        ca_pem,
        credentials,
    } = Contents::read(client, object).await?;
    let spec = &object.spec;
    let ca_pem = match (ca_pem, &spec.ca_secret_ref) {
        (Some(pem), Some(KeyReference { name, key })) => Some(text(CA_PATH, name, key, pem)?),
        _ => None,
    };
    Ok(RepositoryAccess {
        url: spec.url.clone(),
        endpoint: spec.endpoint.clone(),
        region: spec.region.clone(),
        ca_pem,
        proxy: spec.proxy.clone(),
        allow_http: spec.allow_http,
        credentials,
        passphrase,
    })
}

const CA_PATH: &str = "spec.caSecretRef";

/// What the Secrets of a repository hold.
struct Contents {
    /// Their resourceVersions.
    versions: Vec<Option<String>>,
    passphrase: String,
    ca_pem: Option<Vec<u8>>,
    credentials: BTreeMap<String, String>,
}

impl Contents {
    async fn read(client: &Client, object: &api::Repository) -> Result<Self, OpenError> {
        let spec = &object.spec;
        let mut secrets = Secrets::new(client, &object.namespace().unwrap_or_default());
        let passphrase = secrets
            .text("spec.passphraseSecretRef", &spec.passphrase_secret_ref)
            .await?;
        let ca_pem = match &spec.ca_secret_ref {
            Some(reference) => Some(secrets.bytes(CA_PATH, reference).await?),
            None => None,
        };
        let credentials = match &spec.credentials_secret_ref {
            Some(reference) => secrets.credentials(&reference.name).await?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            versions: secrets.versions,
            passphrase,
            ca_pem,
            credentials,
        })
    }
}

/// What is needed to open a repository.
struct Inputs {
    key: Key,
    location: Location,
    credentials: Credentials,
    passphrase: Passphrase,
}

impl Inputs {
    async fn read(client: &Client, object: &api::Repository) -> Result<Self, OpenError> {
        let Contents {
            versions,
            passphrase,
            ca_pem,
            credentials,
        } = Contents::read(client, object).await?;
        let spec = &object.spec;
        let options = LocationOptions {
            endpoint: spec.endpoint.clone(),
            region: spec.region.clone(),
            ca_pem,
            proxy: spec.proxy.clone(),
            allow_http: spec.allow_http,
            ..LocationOptions::default()
        };
        Ok(Self {
            key: Key {
                generation: object.metadata.generation,
                secrets: versions,
            },
            location: Location::parse(&spec.url, options)?,
            credentials: Credentials::new(credentials),
            passphrase: Passphrase::new(passphrase)?,
        })
    }

    async fn open(&self, initialize: bool) -> Result<Repository, OpenError> {
        let store = self.location.open(&self.credentials)?;
        match Repository::open(store.clone(), &self.passphrase).await {
            Err(RepoError::NotInitialized) if initialize => {}
            opened => return Ok(opened?),
        }
        match Repository::init(store.clone(), &self.passphrase, KdfCost::default()).await {
            // Another cluster made it at the same moment.
            Err(RepoError::AlreadyInitialized) => {
                Ok(Repository::open(store, &self.passphrase).await?)
            }
            made => Ok(made?),
        }
    }
}

/// Reads Secrets of one namespace, and remembers which versions it saw.
struct Secrets {
    api: Api<Secret>,
    versions: Vec<Option<String>>,
}

impl Secrets {
    fn new(client: &Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            versions: Vec::new(),
        }
    }

    async fn data(
        &mut self,
        path: &'static str,
        name: &str,
    ) -> Result<BTreeMap<String, Vec<u8>>, OpenError> {
        let secret = self
            .api
            .get_opt(name)
            .await
            .map_err(OpenError::Kube)?
            .ok_or_else(|| OpenError::Secret {
                path,
                message: format!("there is no Secret `{name}`"),
            })?;
        self.versions.push(secret.metadata.resource_version);
        Ok(secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.0))
            .collect())
    }

    async fn bytes(
        &mut self,
        path: &'static str,
        reference: &KeyReference,
    ) -> Result<Vec<u8>, OpenError> {
        let KeyReference { name, key } = reference;
        self.data(path, name)
            .await?
            .remove(key)
            .ok_or_else(|| OpenError::Secret {
                path,
                message: format!("the Secret `{name}` has no key `{key}`"),
            })
    }

    async fn text(
        &mut self,
        path: &'static str,
        reference: &KeyReference,
    ) -> Result<String, OpenError> {
        text(
            path,
            &reference.name,
            &reference.key,
            self.bytes(path, reference).await?,
        )
    }

    async fn credentials(&mut self, name: &str) -> Result<BTreeMap<String, String>, OpenError> {
        let path = "spec.credentialsSecretRef";
        let data = self.data(path, name).await?;
        let values = data.into_iter().map(|(key, value)| {
            // Editors leave a newline at the end; no credential has one.
            let value = text(path, name, &key, value)?
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            Ok((key, value))
        });
        values.collect()
    }
}

fn text(path: &'static str, name: &str, key: &str, value: Vec<u8>) -> Result<String, OpenError> {
    String::from_utf8(value).map_err(|_| OpenError::Secret {
        path,
        message: format!("the key `{key}` of the Secret `{name}` is not UTF-8 text"),
    })
}

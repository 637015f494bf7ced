//! A storage system for tests: volumes and snapshots in one sparse file, with
//! the CSI driver through which Kubernetes sees it.
//!
//! The file holds a btrfs, because a snapshot must be of one instant, as that
//! of a real storage system is, while pods go on writing: a copy of a
//! directory is not. Filesystem volumes are subvolumes, Block volumes are files
//! on loop devices, and making a snapshot takes no time.
//!
//! It runs in this process and needs root, the btrfs tools and a mount
//! namespace that the kubelet shares. It never enforces the size of a
//! Filesystem volume, knows one node, and expands nothing.

mod command;
mod controller;
mod identity;
mod messages;
mod mounts;
mod node;
mod registration;
mod services;
mod storage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::Router;

use controller::ControllerService;
use identity::IdentityService;
use node::NodeService;
use registration::RegistrationService;
use services::controller_server::ControllerServer;
use services::identity_server::IdentityServer;
use services::node_server::NodeServer;
use services::registration_server::RegistrationServer;
use storage::Storage;

pub use command::CommandError;
pub use storage::StorageError;

/// What the driver says its version is.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Which driver to be, for whom, and where.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Its name, as StorageClasses have it.
    pub name: String,
    /// The name of the node on which it publishes volumes.
    pub node: String,
    /// Where everything is kept; what an earlier driver left there is used.
    pub folder: PathBuf,
    /// The name of the file that a Block volume is. A loop device over a file of this name
    /// is this driver's, whoever looks.
    pub disk_name: String,
    /// The socket that the kubelet and the sidecars talk to. Its file's name
    /// has an `@`: a kubelet sends the path as the host that it asks for, and
    /// only what looks like a user before a host may hold escaped slashes.
    pub socket: PathBuf,
    /// The socket at which a kubelet finds it, below its `plugins_registry/`;
    /// with such a name too.
    pub registration: Option<PathBuf>,
}

/// What can go wrong before the driver runs.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The volumes cannot be kept.
    #[error("the storage below the driver cannot be used")]
    Storage(#[from] StorageError),
    /// A socket cannot be listened on.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A running driver. Dropping it stops it; volumes stay, also those in use.
#[derive(Debug)]
#[must_use = "dropping it stops the driver"]
pub struct Driver {
    tasks: Vec<JoinHandle<()>>,
    storage: Shared,
}

impl Driver {
    /// Opens the storage and serves it, on the runtime of the caller.
    ///
    /// # Errors
    /// When the storage cannot be mounted or a socket cannot be listened on.
    pub async fn serve(options: DriverOptions) -> Result<Self, DriverError> {
        let storage = Shared::new(Storage::open(&options.folder, &options.disk_name)?);
        let driver = Server::builder()
            .add_service(IdentityServer::new(IdentityService {
                name: options.name.clone(),
            }))
            .add_service(ControllerServer::new(ControllerService {
                storage: storage.clone(),
            }))
            .add_service(NodeServer::new(NodeService {
                node: options.node.clone(),
                storage: storage.clone(),
            }));
        let mut tasks = vec![serve(driver, &options.socket)?];
        if let Some(socket) = &options.registration {
            let registration = Server::builder().add_service(RegistrationServer::new(
                RegistrationService::new(options.name, &options.socket),
            ));
            tasks.push(serve(registration, socket)?);
        }
        Ok(Self { tasks, storage })
    }

    /// Where the content of a volume is, by its handle: a directory, or the file
    /// behind a device.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn content(&self, handle: &str) -> Result<PathBuf, StorageError> {
        self.storage.lock().content(handle)
    }

    /// The names that Kubernetes gave the volumes that there are.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub fn volumes(&self) -> Result<Vec<String>, StorageError> {
        let volumes = self.storage.lock().list_volumes()?;
        Ok(volumes.into_iter().map(|volume| volume.name).collect())
    }

    /// The names that Kubernetes gave the snapshots that there are.
    ///
    /// # Errors
    /// As [`Driver::volumes`].
    pub fn snapshots(&self) -> Result<Vec<String>, StorageError> {
        let snapshots = self.storage.lock().list_snapshots()?;
        Ok(snapshots.into_iter().map(|one| one.name).collect())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn serve(router: Router, socket: &Path) -> Result<JoinHandle<()>, DriverError> {
    let failed = |source| DriverError::Socket {
        path: socket.to_owned(),
        source,
    };
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // That of a driver which has ended is in the way.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    Ok(tokio::spawn(async move {
        let incoming = UnixListenerStream::new(listener);
        if let Err(error) = router.serve_with_incoming(incoming).await {
            tracing::error!("the CSI driver has ended: {error}");
        }
    }))
}

/// The storage, used by one request at a time: each takes milliseconds.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Storage>>);

impl Shared {
    fn new(storage: Storage) -> Self {
        Self(Arc::new(Mutex::new(storage)))
    }

    /// Uses it on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, Status> {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || work(&shared.lock()))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(Status::from)
    }

    /// All that it knows is in files: a panic leaves nothing half done here.
    fn lock(&self) -> MutexGuard<'_, Storage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

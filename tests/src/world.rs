//! How a scenario is run, and the installation that those share which need no
//! cluster of their own.

use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use lifebuoy_testkit::kubectl::CommandLine;
use lifebuoy_testkit::namespace::{self, Needs};
use lifebuoy_testkit::{S3Server, directory, install_tls_provider};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::{Installation, InstallationOptions, OPERATOR_NAMESPACE, Store, repository_ready};

/// How long a small request may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(90);

/// One runtime for all scenarios, so that connections of the shared
/// installation outlive the scenario that made them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    install_tls_provider();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"))
});

/// The directory of nodes that movers of the shared installation may read.
pub const HOST_PATH: &str = "/srv/data";

static SHARED: OnceCell<World> = OnceCell::const_new();

/// Runs a scenario to its end.
///
/// # Panics
/// When it fails; the message has the whole chain of causes.
pub fn scenario(story: impl Future<Output = Result<()>>) {
    if let Err(error) = RUNTIME.block_on(story) {
        panic!("{error:#}");
    }
}

/// Runs a scenario on real nodes to its end, in namespaces of its own. Where
/// that cannot be, it says so and passes; in CI it fails.
///
/// # Panics
/// As [`scenario`].
pub fn node_scenario(needs: &Needs, story: impl Future<Output = Result<()>>) {
    if let Err(error) = namespace::test(needs, || RUNTIME.block_on(story)) {
        panic!("{error:#}");
    }
}

/// A store, and a cluster with the operator and the Repository `main` in it.
pub struct World {
    /// The cluster with the operator.
    pub installation: Installation,
    /// The store.
    pub s3: S3Server,
    /// Where the Repository `main` is.
    pub store: Store,
}

impl World {
    /// The installation that scenarios share. Each works in namespaces of its
    /// own and must not need the operator to stop.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn shared() -> Result<&'static Self> {
        let mut options = InstallationOptions::named("shared");
        options.set = vec![format!("movers.hostPaths[0]={HOST_PATH}")];
        SHARED.get_or_try_init(|| Self::start_with(options)).await
    }

    /// An installation of one's own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(name: &str) -> Result<Self> {
        Self::start_with(InstallationOptions::named(name)).await
    }

    /// An installation of one's own, with options.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_with(options: InstallationOptions) -> Result<Self> {
        let s3 = store(&options.cluster_name).await?;
        let store = Store::at(&s3, &options.cluster_name);
        let installation = Installation::start(options).await?;
        let world = Self {
            installation,
            s3,
            store,
        };
        world
            .store
            .declare(&world.client(), OPERATOR_NAMESPACE, "main")
            .await?;
        repository_ready(&world.client(), OPERATOR_NAMESPACE, "main", SOON).await?;
        Ok(world)
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> Client {
        self.installation.client()
    }

    /// kubectl with every right.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn kubectl(&self) -> Result<CommandLine> {
        crate::kubectl(&self.installation.cluster).await
    }
}

/// An S3 server with an empty bucket.
///
/// # Errors
/// When it cannot be started.
pub async fn store(name: &str) -> Result<S3Server> {
    let folder = format!("s3-{name}-{}", std::process::id());
    S3Server::start(directory::root().join(folder)).await
}

/// A name that no other scenario of this run has.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes a namespace that no other scenario of this run has.
///
/// # Errors
/// When the API server refuses it.
pub async fn namespace(client: &Client, prefix: &str) -> Result<String> {
    let name = unique(prefix);
    let object = Namespace {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &object)
        .await?;
    Ok(name)
}

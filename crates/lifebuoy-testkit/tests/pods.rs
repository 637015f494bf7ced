//! Pods on real nodes of two clusters, with volumes that keep what they write.
//! Needs root.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use lifebuoy_testkit::kubectl::CommandLine;
use lifebuoy_testkit::namespace::{self, Needs};
use lifebuoy_testkit::node::images::{self, Layer};
use lifebuoy_testkit::sample::apply_yaml;
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions, Node, NodeStorage, S3Server, Tool};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a pod or a claim is looked at.
const POLL: Duration = Duration::from_millis(200);

/// How a volume is used.
#[derive(Clone, Copy)]
enum Mode {
    Filesystem,
    Block,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Filesystem => "Filesystem",
            Mode::Block => "Block",
        }
    }

    /// How a pod's container gets the claim's volume.
    fn mount(self) -> &'static str {
        match self {
            Mode::Filesystem => "volumeMounts: [{name: data, mountPath: /data}]",
            Mode::Block => "volumeDevices: [{name: data, devicePath: /dev/data}]",
        }
    }

    /// A command that writes a word so that it lasts.
    fn write(self, word: &str) -> String {
        match self {
            Mode::Filesystem => {
                format!("echo {word} > /data/word && ln /data/word /data/again && sync")
            }
            Mode::Block => format!("echo {word} | dd of=/dev/data bs=4096 conv=sync,fsync"),
        }
    }

    /// A command that says the word and how many names its file has.
    fn read(self) -> &'static str {
        match self {
            Mode::Filesystem => "cat /data/word && stat -c %h /data/again",
            Mode::Block => "head -c 16 /dev/data | head -n 1 && echo 2",
        }
    }
}

/// A cluster with a node and storage.
struct Cluster {
    // Fields drop in this order.
    storage: NodeStorage,
    node: Node,
    plane: ControlPlane,
    kubectl: CommandLine,
}

impl Cluster {
    async fn start(name: &str, class: &str) -> Result<Self> {
        let plane = ControlPlane::start(ControlPlaneOptions::named(name)).await?;
        let node = Node::start(&plane).await?;
        let storage = NodeStorage::start(&plane, &node, class).await?;
        Ok(Self {
            kubectl: CommandLine::kubectl(plane.kubeconfig(), plane.directory().join("home"))
                .await?,
            storage,
            node,
            plane,
        })
    }

    fn client(&self) -> Client {
        self.plane.admin()
    }

    /// Makes a claim; `source` is the name of a snapshot.
    async fn claim(
        &self,
        namespace: &str,
        name: &str,
        mode: Mode,
        source: Option<&str>,
    ) -> Result<()> {
        let (class, mode) = (self.storage.class(), mode.name());
        let source = source.map_or_else(String::new, |snapshot| {
            format!(
                "dataSource: {{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {snapshot}}}"
            )
        });
        let yaml = format!(
            "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  storageClassName: {class}
  volumeMode: {mode}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Gi}}}}
  {source}
"
        );
        apply_yaml(&self.client(), &yaml).await?;
        Ok(())
    }

    /// Starts a pod that has the claim's volume, and waits until it runs.
    async fn pod(&self, namespace: &str, claim: &str, mode: Mode) -> Result<String> {
        self.pod_of(namespace, claim, mode, images::BUSYBOX).await
    }

    /// The same, of an image.
    async fn pod_of(
        &self,
        namespace: &str,
        claim: &str,
        mode: Mode,
        image: &str,
    ) -> Result<String> {
        let (name, mount) = (format!("with-{claim}"), mode.mount());
        let yaml = format!(
            "
apiVersion: v1
kind: Pod
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Never
    command: [sleep, '3600']
    {mount}
  volumes:
  - name: data
    persistentVolumeClaim: {{claimName: {claim}}}
"
        );
        apply_yaml(&self.client(), &yaml).await?;
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        until(format_args!("the pod {name} runs"), async || {
            let status = pods.get(&name).await?.status.unwrap_or_default();
            Ok(status.phase.as_deref() == Some("Running"))
        })
        .await?;
        Ok(name)
    }

    /// Runs a shell command in a pod.
    async fn exec(&self, namespace: &str, pod: &str, command: &str) -> Result<String> {
        self.kubectl
            .run(["exec", "-n", namespace, pod, "--", "sh", "-c", command])
            .await
    }

    /// Takes a snapshot of the claim's volume, and waits until it can be used.
    async fn snapshot(&self, namespace: &str, name: &str, claim: &str) -> Result<()> {
        let class = self.storage.class();
        let yaml = format!(
            "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{namespace: {namespace}, name: {name}}}
spec: {{volumeSnapshotClassName: {class}, source: {{persistentVolumeClaimName: {claim}}}}}
"
        );
        apply_yaml(&self.client(), &yaml).await?;
        let snapshots = self.snapshots(namespace);
        until(
            format_args!("the snapshot {name} can be used"),
            async || {
                let snapshot = snapshots.get(name).await?;
                Ok(snapshot.data["status"]["readyToUse"] == true)
            },
        )
        .await
    }

    fn snapshots(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshot");
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.client(), namespace, &resource)
    }

    /// Deletes the pods, claims and snapshots, and waits until the storage has
    /// nothing left of them.
    async fn clear(&self, namespace: &str) -> Result<()> {
        let (delete, all) = (DeleteParams::default(), ListParams::default());
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        pods.delete_collection(&delete, &all).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client(), namespace);
        claims.delete_collection(&delete, &all).await?;
        self.snapshots(namespace)
            .delete_collection(&delete, &all)
            .await?;
        let volumes: Api<PersistentVolume> = Api::all(self.client());
        let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent");
        let resource = ApiResource::from_gvk(&kind);
        let contents: Api<DynamicObject> = Api::all_with(self.client(), &resource);
        until("the volumes and snapshots are gone", async || {
            let volumes = volumes.list(&all).await?.items.len();
            Ok(volumes + contents.list(&all).await?.items.len() == 0)
        })
        .await
    }
}

/// Waits until something is so; a request that fails ends the wait.
async fn until(what: impl Display, is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so().await? {
        if started.elapsed() > LIMIT {
            bail!("not within {} s: {what}", LIMIT.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Writes, takes a snapshot, overwrites, and reads what the snapshot holds.
async fn comes_back(cluster: &Cluster, mode: Mode) -> Result<()> {
    let namespace = &mode.name().to_lowercase();
    let yaml = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}");
    apply_yaml(&cluster.client(), &yaml).await?;
    cluster.claim(namespace, "first", mode, None).await?;
    let first = cluster.pod(namespace, "first", mode).await?;
    cluster.exec(namespace, &first, &mode.write("kept")).await?;
    cluster.snapshot(namespace, "snapshot", "first").await?;
    let overwrite = mode.write("lost").replace("ln ", "ln -f ");
    cluster.exec(namespace, &first, &overwrite).await?;

    let source = Some("snapshot");
    cluster.claim(namespace, "second", mode, source).await?;
    let second = cluster.pod(namespace, "second", mode).await?;
    let found = cluster.exec(namespace, &second, mode.read()).await?;
    ensure!(
        found == "kept\n2\n",
        "{} in {}: {found}",
        mode.name(),
        cluster.plane.name()
    );
    cluster.clear(namespace).await
}

#[test]
fn pods_of_two_clusters_keep_snapshots_and_run_databases() -> Result<()> {
    let needs = Needs {
        tools: vec![Tool::Kubectl],
        layers: vec![Layer::Databases],
    };
    on_nodes(&needs, async {
        let (mut a, b) =
            tokio::try_join!(Cluster::start("a", "fast"), Cluster::start("b", "slow"))?;
        for cluster in [&a, &b] {
            let name = cluster.plane.name();
            for mode in [Mode::Filesystem, Mode::Block] {
                comes_back(cluster, mode)
                    .await
                    .with_context(|| format!("{} in {name}", mode.name()))?;
            }
        }
        let folder = a.node.folder().to_owned();
        a.node.import(&images::databases(&folder)?)?;
        databases_and_services_are_reached(&a).await
    })
}

/// Runs both databases in a pod, and reaches from there what pods are to reach.
async fn databases_and_services_are_reached(cluster: &Cluster) -> Result<()> {
    let s3 = S3Server::start(lifebuoy_testkit::directory::root().join("s3")).await?;
    let namespace = "databases";
    let yaml = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}");
    apply_yaml(&cluster.client(), &yaml).await?;
    cluster
        .claim(namespace, "data", Mode::Filesystem, None)
        .await?;
    let pod = cluster
        .pod_of(namespace, "data", Mode::Filesystem, images::DATABASES)
        .await?;
    let started = cluster.exec(namespace, &pod, START_DATABASES).await?;
    ensure!(started.ends_with("42\nPONG\n"), "{started}");
    // In place of curl, which is not in the image: any answer will do.
    let endpoint = s3.endpoint();
    let s3_address = endpoint.trim_start_matches("http://").replace(':', "/");
    for address in [s3_address.as_str(), "$KUBERNETES_SERVICE_HOST/443"] {
        let connect = format!("exec bash -c \"exec 3<>/dev/tcp/{address}\"");
        cluster.exec(namespace, &pod, &connect).await?;
    }
    Ok(())
}

/// Starts both databases and asks each for something. The volume belongs to
/// PostgreSQL's user, as the pod's `fsGroup` would have it.
const START_DATABASES: &str = "set -e
    mkdir /data/pg && chown postgres /data/pg
    su postgres -c 'initdb -D /data/pg && pg_ctl -w -D /data/pg -l /data/pg/log start' > /dev/null
    redis-server --dir /data --daemonize yes > /dev/null
    su postgres -c \"psql -tA -c 'select 6 * 7'\"
    for i in 1 2 3 4 5 6 7 8 9; do redis-cli ping && exit 0; sleep 1; done";

/// Runs a test on real nodes.
fn on_nodes(needs: &Needs, story: impl Future<Output = Result<()>>) -> Result<()> {
    namespace::test(needs, || {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(story)
    })
}

//! The operator on a real node, as its users run it: pods of the Containerfile's
//! image, installed by Helm from the chart, with the chart's rights.
//!
//! Inside of [`node_scenario`](crate::node_scenario) only. Never changes what
//! the chart installs; beside the API server it reads the volumes themselves,
//! which are on this machine.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DynamicObject, ListParams, ObjectList};
use kube::{Api, Client, ResourceExt};
use lifebuoy_api::{HELD_ANNOTATION, HELD_FOR_LABEL, OVERWRITING_ANNOTATION, STAND_IN_LABEL};
use lifebuoy_testkit::kubectl::CommandLine;
use lifebuoy_testkit::namespace::Needs;
use lifebuoy_testkit::node::images::{self, Archive, Layer};
use lifebuoy_testkit::{
    ControlPlane, ControlPlaneOptions, Node, NodeStorage, S3Server, Tool, directory,
};

use crate::{
    InstallationOptions, OPERATOR_NAMESPACE, Store, helm_install, operator_binary,
    repository_ready, store,
};

/// The namespace of the movers, as the chart makes it.
pub const MOVERS_NAMESPACE: &str = "lifebuoy-movers";

/// What a restore in place may stop.
const WORKLOADS: &str = "deployments,statefulsets,daemonsets,replicasets,jobs,cronjobs";

/// How long anything that starts pods may take on a busy machine.
pub const PODS_LIMIT: Duration = Duration::from_secs(300);
/// How long what was deleted may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
/// How many warnings of the operator are told with an error.
const WARNINGS_MAX: usize = 20;

/// A cluster with a node and storage, the operator in pods, and the Repository
/// `main`. Dropping it loses all of that at once, as a disaster does.
pub struct NodeWorld {
    // Fields drop in this order.
    /// Its storage.
    pub storage: NodeStorage,
    /// Its only node.
    pub node: Node,
    /// Its control plane.
    pub cluster: ControlPlane,
    kubectl: CommandLine,
}

/// Cluster `a` with the storage class `fast`, and its store.
pub struct OneNodeWorld {
    /// The cluster.
    pub a: NodeWorld,
    /// The store.
    pub s3: S3Server,
    /// Where the Repository `main` is in it.
    pub store: Store,
}

/// Cluster `a` with the storage class `fast`, cluster `b` with the storage class
/// `slow`, and the store that both use.
pub struct NodeWorlds {
    /// The one that is saved.
    pub a: NodeWorld,
    /// The other one.
    pub b: NodeWorld,
    /// The store.
    pub s3: S3Server,
}

impl OneNodeWorld {
    /// Starts it.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start() -> Result<Self> {
        let s3 = store("node").await?;
        let store = Store::at(&s3, "node");
        let a = NodeWorld::start("a", "fast", &[operator_image()?], &store).await?;
        Ok(Self { a, s3, store })
    }
}

fn operator_image() -> Result<Archive> {
    let binary = operator_binary()?;
    let binaries = binary.parent().context("the operator is in no folder")?;
    images::operator(binaries, &directory::root())
}

impl NodeWorlds {
    /// Starts both, with images on top of the operator's.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(more: &[Archive]) -> Result<Self> {
        let s3 = store("nodes").await?;
        let place = Store::at(&s3, "nodes");
        let mut images = vec![operator_image()?];
        images.extend_from_slice(more);
        let (a, b) = tokio::try_join!(
            NodeWorld::start("a", "fast", &images, &place),
            NodeWorld::start("b", "slow", &images, &place),
        )?;
        Ok(Self { a, b, s3 })
    }
}

impl NodeWorld {
    /// What a story on such clusters needs to be there, with the layers of its
    /// own images.
    #[must_use]
    pub fn needs(more: &[Layer]) -> Needs {
        Needs {
            tools: vec![Tool::Kubectl, Tool::Helm],
            layers: [&[Layer::OperatorBase], more].concat(),
        }
    }

    /// Starts a cluster of this name, which is also the one that the
    /// installation gives it, with a storage class and images.
    ///
    /// # Errors
    /// When a part does not start; what the cluster says of that is kept.
    pub async fn start(name: &str, class: &str, images: &[Archive], place: &Store) -> Result<Self> {
        let cluster = ControlPlane::start(ControlPlaneOptions::named(name)).await?;
        let mut node = Node::start(&cluster).await?;
        for image in images {
            node.import(image)?;
        }
        let storage = NodeStorage::start(&cluster, &node, class).await?;
        let world = Self {
            kubectl: crate::kubectl(&cluster).await?,
            storage,
            node,
            cluster,
        };
        world.recorded(world.install(place).await).await?;
        Ok(world)
    }

    /// Does what the README tells people to do.
    async fn install(&self, place: &Store) -> Result<()> {
        let (repository, tag) = images::OPERATOR
            .rsplit_once(':')
            .context("the operator's image has no tag")?;
        let mut options = InstallationOptions::named(self.cluster.name());
        options.set = vec![
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            "image.pullPolicy=Never".to_owned(),
            // There is one node.
            "replicas=1".to_owned(),
            "hooks.enabled=true".to_owned(),
            format!(
                "movers.kubeletDirectory={}",
                self.node.kubelet_root().display()
            ),
            format!("movers.hostPaths[0]={}", self.host_path().display()),
        ];
        helm_install(&self.cluster, &options).await?;
        place
            .declare(&self.client(), OPERATOR_NAMESPACE, "main")
            .await?;
        let limit = format!("--timeout={}s", PODS_LIMIT.as_secs());
        let available = ["wait", "deployment", "--all", "--for=condition=Available"];
        let place = ["--namespace", OPERATOR_NAMESPACE, &limit];
        self.kubectl(&[&available[..], &place].concat()).await?;
        repository_ready(&self.client(), OPERATOR_NAMESPACE, "main", PODS_LIMIT).await?;
        Ok(())
    }

    /// The directory of the node that movers may read; nobody has made it yet.
    #[must_use]
    pub fn host_path(&self) -> PathBuf {
        self.node.folder().join("host")
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> Client {
        self.cluster.admin()
    }

    /// The name of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        self.cluster.name()
    }

    /// Runs kubectl with every right.
    ///
    /// # Errors
    /// When it ends with an error.
    pub async fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.kubectl.run(words).await
    }

    /// The program that [`NodeWorld::kubectl`] runs.
    #[must_use]
    pub fn kubectl_program(&self) -> &CommandLine {
        &self.kubectl
    }

    /// Runs a shell command in a pod and gives what it printed.
    ///
    /// # Errors
    /// When it ends with an error.
    pub async fn exec(&self, namespace: &str, pod: &str, script: &str) -> Result<String> {
        self.kubectl(&["exec", "-n", namespace, pod, "--", "sh", "-c", script])
            .await
    }

    /// Waits until all pods of a workload, such as `statefulset/x`, are ready.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn rolled_out(&self, namespace: &str, workload: &str) -> Result<()> {
        let limit = format!("--timeout={}s", PODS_LIMIT.as_secs());
        self.kubectl(&["rollout", "status", "-n", namespace, workload, &limit])
            .await?;
        Ok(())
    }

    /// Where the content of a claim's volume is on this machine: a directory, or
    /// the file behind a device.
    ///
    /// # Errors
    /// When the claim has no volume.
    pub async fn content(&self, namespace: &str, claim: &str) -> Result<PathBuf> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client(), namespace);
        let found = claims.get(claim).await?;
        let volume = found.spec.and_then(|spec| spec.volume_name);
        let volume = volume.with_context(|| format!("{namespace}/{claim} has no volume"))?;
        let volume = Api::<PersistentVolume>::all(self.client())
            .get(&volume)
            .await?;
        let source = volume.spec.and_then(|spec| spec.csi);
        let handle = source
            .context("not a volume of this storage")?
            .volume_handle;
        self.storage.content(&handle)
    }

    /// Waits until nothing is left that was made for a while.
    ///
    /// # Errors
    /// When something stays; the message lists it.
    pub async fn nothing_is_left(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let left = self.left().await?;
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() > GONE_LIMIT {
                bail!("left behind in {}: {}", self.name(), left.join(", "));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What nobody but a backup or a restore that is going on may have made, and
    /// what the storage has that no claim asks for.
    async fn left(&self) -> Result<Vec<String>> {
        let snapshots = ["get", "volumesnapshots,volumesnapshotcontents", "-A"];
        let movers = "persistentvolumeclaims,jobs,pods,secrets";
        let movers = ["get", movers, "-n", MOVERS_NAMESPACE];
        let mut left = self.names(&snapshots).await?;
        left.extend(self.names(&movers).await?);
        left.extend(self.held().await?);
        let snapshots = self.storage.snapshots()?;
        left.extend(snapshots.into_iter().map(|one| format!("snapshot {one}")));

        let claims: Api<PersistentVolumeClaim> = Api::all(self.client());
        let claims = claims.list(&ListParams::default()).await?.items;
        let volumes = claims
            .into_iter()
            .filter_map(|claim| claim.spec?.volume_name);
        let claimed: BTreeSet<String> = volumes.collect();
        let volumes = self.storage.volumes()?.into_iter();
        let unclaimed = volumes.filter(|volume| !claimed.contains(volume));
        left.extend(unclaimed.map(|volume| format!("volume {volume}")));
        Ok(left)
    }

    /// What a restore in place has stopped, marked, or made beside, and not given back.
    ///
    /// # Errors
    /// When the API server does not tell.
    pub async fn held(&self) -> Result<Vec<String>> {
        let labelled = [
            (HELD_FOR_LABEL, WORKLOADS),
            (STAND_IN_LABEL, "persistentvolumes"),
        ];
        let mut held = Vec::new();
        for (label, kinds) in labelled {
            held.extend(self.names(&["get", kinds, "-A", "-l", label]).await?);
        }
        // A Deployment's own controller copies annotations to its ReplicaSets, and leaves them.
        let annotated = [
            (
                HELD_ANNOTATION,
                "deployments,statefulsets,daemonsets,cronjobs",
            ),
            (OVERWRITING_ANNOTATION, "persistentvolumeclaims"),
        ];
        for (annotation, kinds) in annotated {
            let get = ["get", kinds, "-A", "-o", "json"];
            let listed: ObjectList<DynamicObject> =
                serde_json::from_str(&self.kubectl(&get).await?)?;
            let marked = listed.items.iter();
            let marked = marked.filter(|one| one.annotations().contains_key(annotation));
            held.extend(marked.map(|one| format!("{} with {annotation}", one.name_any())));
        }
        Ok(held)
    }

    async fn names(&self, words: &[&str]) -> Result<Vec<String>> {
        let columns =
            r#"{range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}"#;
        let output = format!("-o=jsonpath={columns}");
        let listed = self.kubectl(&[words, &[&output]].concat()).await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// The outcome as it is. Where it is an error, what the cluster says of itself
    /// is kept with the logs of the run.
    ///
    /// # Errors
    /// That of the outcome.
    pub async fn recorded<T>(&self, outcome: Result<T>) -> Result<T> {
        let Err(error) = outcome else {
            return outcome;
        };
        let path = directory::root().join(format!("record-{}.log", self.name()));
        let record = self.record(&error).await;
        let kept = fs::write(&path, record).map_or_else(
            |why| format!("what {} says cannot be kept: {why}", self.name()),
            |()| format!("what {} says of it is in {}", self.name(), path.display()),
        );
        // Where nobody can read the logs of the run, this is all that is told.
        let warnings = self.warnings().await;
        Err(error.context(kept).context(warnings))
    }

    /// The operator's pods, and the last of their warnings and errors.
    async fn warnings(&self) -> String {
        let ours = ["-n", OPERATOR_NAMESPACE];
        let logs = ["logs", "--tail=-1", "-l", "app.kubernetes.io/name=lifebuoy"];
        let pods = self.answer(&[&["get", "pods"], &ours[..]].concat()).await;
        let logs = self.answer(&[&logs[..], &ours].concat()).await;
        let is_bad = |line: &&str| line.contains(r#""WARN""#) || line.contains(r#""ERROR""#);
        let bad: Vec<&str> = logs.lines().filter(is_bad).collect();
        let last = bad[bad.len().saturating_sub(WARNINGS_MAX)..].join("\n");
        format!("in {}:\n{pods}{last}\n", self.name())
    }

    async fn record(&self, error: &anyhow::Error) -> String {
        let objects = "pods,persistentvolumeclaims,persistentvolumes,jobs,secrets,\
             volumesnapshots,volumesnapshotcontents";
        let ours = ["-n", OPERATOR_NAMESPACE];
        let movers = ["-n", MOVERS_NAMESPACE];
        let logs = ["logs", "--all-containers", "--prefix", "--tail=4000"];
        let operator = ["-l", "app.kubernetes.io/name=lifebuoy"];
        let mover = ["-l", "app.kubernetes.io/managed-by=lifebuoy"];
        let questions: [&[&str]; 7] = [
            &["get", objects, "-A", "-o", "wide"],
            &["get", "lifebuoy", "-A", "-o", "yaml"],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["describe", "pods,persistentvolumeclaims", "-A"],
            &[&logs[..], &ours, &operator].concat(),
            &[&logs[..], &movers, &mover].concat(),
            &["get", "jobs", "-n", MOVERS_NAMESPACE, "-o", "yaml"],
        ];
        let mut record = format!("{error:#}\n");
        for words in questions {
            let answer = self.answer(words).await;
            // Writing to a string cannot fail.
            let _ = write!(record, "\n== kubectl {}\n{answer}\n", words.join(" "));
        }
        record
    }

    /// What kubectl says, whatever that is.
    async fn answer(&self, words: &[&str]) -> String {
        match self.kubectl.output(words, "").await {
            Ok(finished) => finished.stdout + &finished.stderr,
            Err(error) => format!("{error:#}"),
        }
    }
}

/// Looks again and again until there is an answer; a look that fails ends it.
///
/// # Errors
/// When there is none within `limit`.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = look().await? {
            return Ok(answer);
        }
        if started.elapsed() > limit {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

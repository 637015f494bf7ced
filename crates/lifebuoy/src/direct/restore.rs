//! A restore without an operator.

use std::time::Duration;

use kube::Client;
use lifebuoy_api::{ExistingVolumes, RestoreSpec};
use lifebuoy_engine::{
    archive::Archive,
    capture::cluster_uid,
    point,
    restore::{
        Plan, Rules,
        apply::{ApplyOptions, RestoreProgress, apply},
        plan,
        report::Report,
        target::observe,
    },
};
use lifebuoy_repo::Repository;
use tokio_util::sync::CancellationToken;

use super::find;
use crate::{
    error::Error,
    output::{Progress, Terminal},
};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A recovery point that is open, and the rules to restore it by.
pub(crate) struct Opened {
    repo: Repository,
    archive: Archive,
    rules: Rules,
    spec: RestoreSpec,
}

/// A restore that was planned and can be carried out.
pub(crate) struct Run {
    opened: Opened,
    client: Client,
    uid: String,
    pub(crate) plan: Plan,
}

impl Opened {
    /// Checks the rules and opens what `spec.from` names.
    ///
    /// # Errors
    /// Those of the engine; [`Error::Usage`] when `from` names nothing.
    pub(crate) async fn open(repo: &Repository, spec: RestoreSpec) -> Result<Self, Error> {
        if spec.existing_volumes == ExistingVolumes::Overwrite {
            return Err(Error::usage(
                "only the operator can overwrite volumes",
                "go through it with --repository or --from-point, or leave --existing-volumes out",
            ));
        }
        // Nobody is here to fill volumes.
        let rules = Rules::parse(&spec)?.without_filling();
        let from = &spec.from;
        let point = match (&from.snapshot, &from.cluster) {
            (Some(snapshot), _) => find(repo, snapshot).await?,
            (None, Some(cluster)) => {
                point::newest_complete(repo, cluster, from.schedule.as_deref()).await?
            }
            (None, None) => {
                return Err(Error::usage(
                    "what is to be restored?",
                    "give --snapshot, or --cluster for the newest complete point of it; \
                     `lifebuoy recoverypoint list` shows all",
                ));
            }
        };
        let archive = Archive::open(repo, point.snapshot.session).await?;
        Ok(Self {
            repo: repo.clone(),
            archive,
            rules,
            spec,
        })
    }

    /// What is restored, in one line.
    pub(crate) fn describe(&self) -> String {
        let point = &self.archive.point;
        let summary = &point.summary;
        let schedule = if summary.schedule.is_empty() {
            format!("backup {}", summary.backup)
        } else {
            format!("schedule {}", summary.schedule)
        };
        format!(
            "snapshot {} of cluster {}, {schedule}, taken at {}",
            point.snapshot.session,
            summary.cluster.name,
            summary.taken_at.format("%Y-%m-%d %H:%M:%S UTC"),
        )
    }

    /// Makes the plan; changes nothing.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn plan(self, client: &Client, terminal: Terminal) -> Result<Run, Error> {
        let uid = uid(&self.spec, &self.archive, &cluster_uid(client).await?)?;
        let mut progress = Progress::begin(terminal);
        progress.update("Planning", 0, 0);
        let plan = plan(&self.archive, &self.rules, async |wanted| {
            observe(client, wanted, &uid).await
        })
        .await?;
        Ok(Run {
            opened: self,
            client: client.clone(),
            uid,
            plan,
        })
    }
}

impl Run {
    /// Carries the plan out.
    ///
    /// # Errors
    /// [`Error::Refused`] when the plan differs from `digest` or may not be
    /// carried out; those of the engine.
    pub(crate) async fn apply(
        &self,
        digest: Option<&str>,
        cancel: &CancellationToken,
        terminal: Terminal,
    ) -> Result<Report, Error> {
        self.check(digest)?;
        let progress = RestoreProgress::default();
        let options = ApplyOptions::new(self.uid.clone());
        let Opened {
            repo,
            archive,
            rules,
            ..
        } = &self.opened;
        let work = apply(
            &self.client,
            archive,
            rules,
            &self.plan,
            &options,
            &progress,
            cancel,
        );
        let cluster = cluster_uid(&self.client).await?;
        let hold = point::hold(repo, archive.point.snapshot.session, &cluster).await?;
        let done = watch(work, &progress, terminal).await;
        if let Some(hold) = hold {
            hold.release().await;
        }
        Ok(done?)
    }

    fn check(&self, digest: Option<&str>) -> Result<(), Error> {
        if let Some(reviewed) = digest
            && reviewed != self.plan.digest.as_str()
        {
            return Err(Error::Refused {
                what: "restore".to_owned(),
                message: format!(
                    "the plan of now has the digest {}, and {reviewed} was reviewed",
                    self.plan.digest
                ),
                hint:
                    "the cluster, the newest point or the options changed: review the plan again \
                       with `lifebuoy restore plan`"
                        .to_owned(),
            });
        }
        self.refusal()
    }

    /// Whether the plan may be carried out at all.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub(crate) fn refusal(&self) -> Result<(), Error> {
        match self.plan.refusal() {
            None => Ok(()),
            Some(problem) => Err(Error::Refused {
                what: format!("restore of {}", problem.subject),
                message: problem.message,
                hint: "nothing was changed".to_owned(),
            }),
        }
    }
}

/// The stamp of this restore: the same command on the same cluster and point
/// has the same, so that a second run goes on where the first was killed.
fn uid(spec: &RestoreSpec, archive: &Archive, cluster: &str) -> Result<String, Error> {
    let mut spec = spec.clone();
    // What only says when and whether it runs does not make it another restore.
    spec.plan_digest = None;
    spec.from = Default::default();
    let spec = serde_json::to_vec(&spec).map_err(|error| Error::document("the restore", error))?;
    let mut hash = blake3::Hasher::new_derive_key("lifebuoy 2026 uid of a direct restore");
    for part in [
        spec.as_slice(),
        archive.point.snapshot.session.as_bytes(),
        cluster.as_bytes(),
    ] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Ok(format!("direct-{}", &hash.finalize().to_hex()[..32]))
}

async fn watch<T>(
    work: impl Future<Output = T>,
    progress: &RestoreProgress,
    terminal: Terminal,
) -> T {
    let mut shown = Progress::begin(terminal);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let now = progress.snapshot();
                let count = |value: i64| u64::try_from(value).unwrap_or(0);
                shown.update("Restoring, objects", count(now.done), count(now.planned));
            }
        }
    }
}

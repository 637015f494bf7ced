//! The care of repositories: what nothing needs is collected, and what is stored
//! is checked, by one cluster at a time: the keeper, of those that may delete.
//! Which one, is agreed on in the bucket; nothing depends on it but that work is
//! not done twice. Clusters that only report rest while there is a keeper. Where
//! there is none, each of them counts and checks for itself, since their
//! credentials need not allow them to agree on anything. Every round can be
//! stopped anywhere.

mod duty;
mod round;
mod told;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::{Api, ResourceExt, api::ListParams, core::DeserializeGuard};
use lifebuoy_api::{
    self as api, Access, Collect, ConditionType, RepositoryStatus, is_true, time::from_kube,
};
use lifebuoy_repo::{Error as RepoError, Repository, Term};
use tokio::{sync::mpsc::UnboundedSender, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{context::Context, repository::OpenError};
use duty::{Duty, Watched, duty};
use round::Round;
pub(crate) use told::Told;

/// How often it is looked whether something is to be done.
const TICK: Duration = Duration::from_secs(5);

/// What is known of the care of each repository, by the uid of its object.
pub(crate) struct Care {
    known: Mutex<HashMap<String, Known>>,
    /// Is told when there is more to tell.
    finished: UnboundedSender<()>,
}

#[derive(Default)]
struct Known {
    watched: Option<Watched>,
    /// When the store was last asked who keeps the repository.
    asked: Option<Instant>,
    /// When the last round began.
    began: Option<Instant>,
    told: Told,
}

impl Care {
    /// Nothing is known yet. `finished` is told when a round has ended.
    pub(crate) fn new(finished: UnboundedSender<()>) -> Self {
        Self {
            known: Mutex::default(),
            finished,
        }
    }

    /// Takes what there is to tell of a repository from now on.
    fn learn(&self, uid: String, told: Told) {
        self.known().entry(uid).or_default().told = told;
        // Nobody listens any more when the operator stops.
        let _ = self.finished.send(());
    }

    // A poisoned lock means that a thread panicked between two changes of the
    // map, each of which leaves it whole.
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a status what the last rounds found.
    pub(crate) fn tell(
        &self,
        repository: &api::Repository,
        now: chrono::DateTime<chrono::Utc>,
        status: &mut RepositoryStatus,
    ) {
        let uid = repository.uid().unwrap_or_default();
        if let Some(known) = self.known().get(&uid) {
            known
                .told
                .add_to(status, repository.metadata.generation, now);
        }
    }
}

/// Cares for the Repositories of the operator's own namespace, until `stop`.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut rounds: HashMap<String, JoinHandle<()>> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(TICK) => {}
        }
        rounds.retain(|_, round| !round.is_finished());
        for repository in repositories(&context).await {
            let uid = repository.uid().unwrap_or_default();
            if rounds.contains_key(&uid) || !is_due(&context, &repository) {
                continue;
            }
            let context = context.clone();
            let care = async move { care_for(&context, &repository).await };
            rounds.insert(uid, tokio::spawn(care));
        }
    }
    for round in rounds.into_values() {
        round.abort();
    }
}

async fn repositories(context: &Context) -> Vec<api::Repository> {
    let objects: Api<DeserializeGuard<api::Repository>> =
        Api::namespaced(context.client.clone(), &context.config.namespace);
    match objects.list(&ListParams::default()).await {
        Ok(listed) => listed.into_iter().filter_map(|one| one.0.ok()).collect(),
        Err(error) => {
            tracing::debug!(%error, "cannot list Repositories");
            Vec::new()
        }
    }
}

fn interval(repository: &api::Repository) -> Duration {
    repository.spec.maintenance.interval.duration()
}

/// Whether a round is due here, whoever keeps the repository.
fn is_due(context: &Context, repository: &api::Repository) -> bool {
    let status = repository.status.clone().unwrap_or_default();
    if repository.spec.suspend || !is_true(&status.conditions, ConditionType::Ready) {
        return false;
    }
    let uid = repository.uid().unwrap_or_default();
    if let Some(known) = context.care.known().get(&uid) {
        let pause = context.config.list_interval;
        if known.asked.is_some_and(|asked| asked.elapsed() < pause) {
            return false;
        }
        if let Some(began) = known.began {
            return began.elapsed() >= interval(repository);
        }
    }
    // Another process may have done it before this one started.
    let last = status.last_collection.map(|last| from_kube(&last.time));
    last.is_none_or(|last| {
        let ago = (context.now() - last).to_std();
        ago.map_or(true, |ago| ago >= interval(repository))
    })
}

async fn care_for(context: &Context, repository: &api::Repository) {
    let name = repository.name_any();
    if let Err(error) = try_care_for(context, repository).await {
        tracing::warn!(repository = name, "not cared for: {}", error.message());
    }
}

async fn try_care_for(context: &Context, object: &api::Repository) -> Result<(), OpenError> {
    let uid = object.uid().unwrap_or_default();
    let asked = Some(Instant::now());
    context.care.known().entry(uid.clone()).or_default().asked = asked;
    let opened = context
        .repositories
        .open(&context.client, object, false)
        .await?;
    let repo = &opened.repo;
    let Ok(cluster) = context.cluster().await else {
        return Ok(());
    };
    let own = repo.cluster_key(&cluster.uid);
    let deletes = object.spec.maintenance.collect == Collect::Enabled
        && object.spec.access == Access::ReadWrite;
    let mut newest = match repo.keeper().await {
        Ok(newest) => newest,
        Err(error) => return tell_refusal(context, object, &uid, error),
    };
    let watched = watch(context, &uid, newest);
    if duty(newest, own, &watched, interval(object), Instant::now()) == Duty::Rest {
        let keeper = keeper_name(repo, object, newest);
        context.care.learn(uid, Told::kept_by(keeper));
        return Ok(());
    }
    // One that only reports claims nothing: it would keep away one that deletes.
    if deletes {
        match repo.claim(newest, own).await {
            Ok(term) => newest = Some(term),
            Err(error) => return tell_refusal(context, object, &uid, error),
        }
        watch(context, &uid, newest);
        if newest.is_some_and(|term| term.cluster != own) {
            return Ok(());
        }
    }
    let last_check = {
        let mut known = context.care.known();
        let known = known.entry(uid.clone()).or_default();
        known.began = Some(Instant::now());
        // What the last round found may not be in the status yet.
        let status = object.status.as_ref();
        let published = status.and_then(|status| status.last_check.as_ref());
        known.told.check.as_ref().or(published).cloned()
    };
    let mut told = Round {
        repository: repo,
        cluster: own,
        rules: &object.spec.maintenance,
        deletes,
        last_check: last_check.as_ref(),
        clock: context.clock,
    }
    .run()
    .await;
    if deletes {
        told.keeper = Some(cluster.name.clone());
    }
    context.metrics.cared_for(&object.name_any(), &told);
    tracing::info!(repository = object.name_any(), "{}", told.summary());
    context.care.learn(uid, told);
    Ok(())
}

/// A credential or a format that does not let this cluster keep anything.
fn tell_refusal(
    context: &Context,
    object: &api::Repository,
    uid: &str,
    error: RepoError,
) -> Result<(), OpenError> {
    if error.is_transient() {
        return Err(error.into());
    }
    let began = Some(Instant::now());
    context
        .care
        .known()
        .entry(uid.to_owned())
        .or_default()
        .began = began;
    let told = Told::refused(&error, (context.clock)());
    context.care.learn(uid.to_owned(), told);
    tracing::warn!(repository = object.name_any(), %error, "cannot keep the repository");
    Ok(())
}

/// Remembers since when the newest term is the newest.
fn watch(context: &Context, uid: &str, newest: Option<Term>) -> Watched {
    let mut known = context.care.known();
    let known = known.entry(uid.to_owned()).or_default();
    let watched = known.watched.filter(|watched| watched.term == newest);
    let watched = watched.unwrap_or_else(|| Watched {
        term: newest,
        since: Instant::now(),
    });
    known.watched = Some(watched);
    watched
}

/// The name of the cluster that holds a term, as far as its points tell.
fn keeper_name(
    repo: &Repository,
    object: &api::Repository,
    newest: Option<Term>,
) -> Option<String> {
    let clusters = object.status.as_ref().map(|status| &status.clusters)?;
    let holder = newest?.cluster;
    let found = clusters.iter().find(|c| repo.cluster_key(&c.uid) == holder);
    found.map(|cluster| cluster.name.clone())
}

//! The whole capture, step by step: discover, choose, find the revision, read
//! the types stage by stage, write the manifest, commit.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use lifebuoy_api::{
    Completeness, Consistency, MAX_PROBLEMS, Problem, Reason, Severity, VolumePolicy,
};
use lifebuoy_repo::{ChunkKind, Writer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    CaptureProgress, CaptureRequest, Captured, VolumesFound, VolumesSaved,
    choose::{Chosen, Taken, choose, unavailable},
    domain::{Probed, Sandwich, sandwich},
    facts::{Facts, Stage},
    fetch::glimpse,
    kube_lister::KubeLister,
    lister::{ListError, ListRequest, Lister},
    normalise::KeepRules,
    type_run::{self, Shared, TypeResult, TypeRun},
};
use crate::{
    Error,
    archive::{ArchiveWriter, Fidelity, Manifest, ObjectKey, TypeRecord, UnavailableGroup},
    point::{Point, PointSummary, SUMMARY_VERSION},
    steps::{Step, reached},
    volumes::{VolumeRecord, empty_dir_of, subject},
};

/// Lists in flight. The API server gives a list up to ten of its seats, and
/// others need some too.
const LISTS_IN_FLIGHT: usize = 4;
/// Up to this many namespaces are listed one by one instead of all at once.
const NAMESPACES_ONE_BY_ONE_MAX: usize = 8;
/// How many problems a manifest holds.
const MANIFEST_PROBLEMS_MAX: usize = 1000;

/// Captures what `request` selects into the session of `writer`, and commits it.
/// Once everything is read, `volumes` saves the data of the volumes among it; it ends
/// soon when the capture is cancelled.
///
/// Dropping the future or cancelling leaves the session without an end: whoever
/// began it fences it. A cancellation during the commit itself is ignored.
///
/// # Errors
/// [`Error::Cancelled`]; [`Error::Repo`] when the repository fails;
/// [`Error::Kube`] or [`Error::Api`] when the API server cannot be asked at all.
/// What concerns single types or objects is among the problems of the result.
pub async fn capture(
    client: &kube::Client,
    writer: Arc<Writer>,
    request: &CaptureRequest,
    progress: &CaptureProgress,
    volumes: impl AsyncFnOnce(&VolumesFound) -> VolumesSaved,
    cancel: &CancellationToken,
) -> Result<Captured, Error> {
    let lister: Arc<dyn Lister> = Arc::new(KubeLister::new(client.clone()));
    capture_from(lister, writer, request, progress, volumes, cancel).await
}

/// Saves the data of no volume; see [`capture`].
pub async fn no_volumes(_: &VolumesFound) -> VolumesSaved {
    VolumesSaved::default()
}

/// The uid of the `kube-system` namespace, by which a cluster is known. Asks by
/// a list, since nobody who captures may `get`.
///
/// # Errors
/// [`Error::Api`] when the API server refuses or has no such namespace.
pub async fn cluster_uid(client: &kube::Client) -> Result<String, Error> {
    let lister = KubeLister::new(client.clone());
    let request = ListRequest {
        field_selector: Some("metadata.name=kube-system".to_owned()),
        ..ListRequest::first_of("/api/v1/namespaces".to_owned())
    };
    let what = "read the uid of the namespace kube-system";
    let found = glimpse(&lister, &request)
        .await
        .map_err(|error| api(what, &error))?;
    found.first_uid.ok_or_else(|| Error::Api {
        what: what.to_owned(),
        message: "there is none".to_owned(),
    })
}

/// [`capture`] from any source of lists.
pub(super) async fn capture_from(
    lister: Arc<dyn Lister>,
    writer: Arc<Writer>,
    request: &CaptureRequest,
    progress: &CaptureProgress,
    volumes: impl AsyncFnOnce(&VolumesFound) -> VolumesSaved,
    cancel: &CancellationToken,
) -> Result<Captured, Error> {
    let read = read_cluster(&lister, &writer, request, progress);
    let mut read = cancel
        .run_until_cancelled(read)
        .await
        .ok_or(Error::Cancelled)??;
    reached(Step::Listed);
    if request.volumes == VolumePolicy::Save {
        // Whoever is cancelled cleans up first.
        let saved = volumes(&read.found).await;
        read.add_volumes(saved);
    }
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    reached(Step::VolumesSaved);
    let problems = read.problems.clone();
    let types = read.types.clone();
    let summary = summary(request, &read);
    let manifest = manifest(request, read, summary.clone());
    let root = writer
        .put(ChunkKind::Metadata, manifest.to_bytes()?)
        .await?;
    reached(Step::ManifestWritten);
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let snapshot = writer.commit(root, summary.to_bytes()?).await?;
    reached(Step::Committed);
    Ok(Captured {
        point: Point { snapshot, summary },
        problems,
        stats: writer.stats(),
        types,
    })
}

/// Everything that was read.
struct Read {
    revision: String,
    kubernetes_version: String,
    types: Vec<TypeRecord>,
    unavailable_groups: Vec<UnavailableGroup>,
    /// Of these claims, those whose data was not saved.
    found: VolumesFound,
    volumes: Vec<VolumeRecord>,
    problems: Vec<Problem>,
}

impl Read {
    /// Takes in what was saved of volumes, and says what was not.
    fn add_volumes(&mut self, saved: VolumesSaved) {
        let VolumesSaved {
            saved,
            skipped,
            failed,
            problems,
        } = saved;
        let known: BTreeSet<&ObjectKey> = saved.iter().map(|of| &of.claim).collect();
        let claims = &mut self.found.claims;
        claims.retain(|claim| !known.contains(claim));
        let unsaid = claims.iter().filter(|claim| !skipped.contains_key(claim));
        let empty_dirs = failed.keys().filter(|key| empty_dir_of(key).is_some());
        let unsaid = unsaid.chain(empty_dirs);
        self.problems.extend(volume_problems(unsaid, &failed));
        let skipped = skipped.iter().take(MAX_PROBLEMS);
        self.problems.extend(skipped.map(|(claim, why)| {
            let message = format!("the data of its volume was left out, as asked for: {why}");
            Problem::warning(Reason::VolumeSkipped, subject(claim), &message)
        }));
        self.problems.extend(in_storage(&saved));
        self.problems.extend(problems);
        self.problems.sort_by_key(|p| std::cmp::Reverse(p.severity));
        self.volumes = saved;
    }
}

async fn read_cluster(
    lister: &Arc<dyn Lister>,
    writer: &Arc<Writer>,
    request: &CaptureRequest,
    progress: &CaptureProgress,
) -> Result<Read, Error> {
    let discovered = lister.served().await?;
    reached(Step::Discovered);
    let chosen = choose(&discovered, &request.selector);
    progress.expect_types(chosen.len() as u64);
    let (unavailable_groups, mut problems) = unavailable(
        &discovered,
        &request.selector,
        &request.down_groups_that_only_warn,
    );
    let (up, down): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|c| !c.served.stale);
    let served: Vec<_> = up.iter().map(|c| c.served.clone()).collect();
    let Sandwich {
        revision,
        types: probed,
    } = sandwich(lister, &served)
        .await
        .map_err(|error| api("list namespaces", &error))?;
    tracing::debug!(
        types = up.len(),
        revision,
        "the revision of the capture is chosen"
    );
    let shared = Arc::new(Shared {
        lister: Arc::clone(lister),
        archive: ArchiveWriter::new(Arc::clone(writer)),
        rules: keep_rules(request, &up, &down),
        facts: Mutex::new(Facts::default()),
        empty_dirs: request.empty_dirs,
        additions: up.iter().any(|c| c.taken == Taken::Needed),
        revision: revision.clone(),
        namespaces: one_by_one(request),
        progress: progress.clone(),
    });
    let mut results = read_types(&shared, up.into_iter().zip(probed).collect()).await?;
    for chosen in &down {
        // The group's own problem says it already.
        let result = type_run::unavailable(chosen, "its API group is down");
        results.extend(result.record.map(|record| TypeResult {
            record: Some(record),
            problems: Vec::new(),
        }));
        progress.type_done();
    }
    tracing::debug!(types = results.len(), "all types are read");
    let mut types = Vec::new();
    for TypeResult {
        record,
        problems: of_type,
    } in results
    {
        types.extend(record);
        problems.extend(of_type);
    }
    types.sort_by_cached_key(TypeRecord::id);
    let found = {
        let mut facts = shared.facts();
        VolumesFound {
            claims: facts.claims.iter().cloned().collect(),
            pods: std::mem::take(&mut facts.pods),
        }
    };
    // Stable: errors first, otherwise in the order in which they were found.
    problems.sort_by_key(|p| std::cmp::Reverse(p.severity));
    Ok(Read {
        revision,
        kubernetes_version: discovered.kubernetes_version,
        types,
        unavailable_groups,
        found,
        volumes: Vec::new(),
        problems,
    })
}

fn keep_rules(request: &CaptureRequest, up: &[Chosen], down: &[Chosen]) -> KeepRules {
    let whole = up.iter().chain(down).filter(|c| c.taken == Taken::Whole);
    KeepRules {
        selector: request.selector.clone(),
        own_namespace: request.own_namespace.clone(),
        captured_kinds: whole
            .map(|c| (c.served.group.clone(), c.served.kind.clone()))
            .collect(),
    }
}

fn one_by_one(request: &CaptureRequest) -> Option<Vec<String>> {
    let names = request.selector.exact_namespaces()?;
    (names.len() <= NAMESPACES_ONE_BY_ONE_MAX)
        .then(|| names.into_iter().map(str::to_owned).collect())
}

/// Reads all types, stage by stage, the largest first.
async fn read_types(
    shared: &Arc<Shared>,
    mut types: Vec<(Chosen, Probed)>,
) -> Result<Vec<TypeResult>, Error> {
    let mut results = Vec::with_capacity(types.len());
    types.sort_by_key(|(chosen, probed)| (chosen.stage, std::cmp::Reverse(probed.objects)));
    for stage in [
        Stage::First,
        Stage::Needed,
        Stage::NeededByNeeded,
        Stage::Definitions,
    ] {
        let of_stage = types.iter().filter(|(chosen, _)| chosen.stage == stage);
        read_stage(shared, of_stage.cloned().collect(), &mut results).await?;
    }
    Ok(results)
}

async fn read_stage(
    shared: &Arc<Shared>,
    mut waiting: VecDeque<(Chosen, Probed)>,
    results: &mut Vec<TypeResult>,
) -> Result<(), Error> {
    // Dropping the set stops what still runs: after an error, or a cancellation.
    let mut running = JoinSet::new();
    loop {
        while running.len() < LISTS_IN_FLIGHT
            && let Some((chosen, probed)) = waiting.pop_front()
        {
            match type_run::hopeless(&chosen, &probed) {
                Some(result) => {
                    shared.progress.type_done();
                    results.push(result);
                }
                None => {
                    running.spawn(TypeRun::new(Arc::clone(shared), chosen, &probed).run());
                }
            }
        }
        let Some(ended) = running.join_next().await else {
            return Ok(());
        };
        let result =
            ended.map_err(|error| Error::Internal(format!("reading a type ended: {error}")))??;
        shared.progress.type_done();
        results.push(result);
    }
}

/// What is said about claims and emptyDirs whose data was not saved: each by name up to
/// a bound, the others by their number. The manifest lists all claims.
fn volume_problems<'a>(
    claims: impl Iterator<Item = &'a ObjectKey>,
    why: &BTreeMap<ObjectKey, String>,
) -> Vec<Problem> {
    let claims: Vec<_> = claims.collect();
    let named = claims.iter().take(MAX_PROBLEMS).map(|key| {
        let said = match empty_dir_of(key) {
            Some(_) => "it was not saved",
            None => "the claim was saved, the data of its volume was not",
        };
        let message = match why.get(key) {
            Some(why) => format!("{said}: {why}"),
            None => said.to_owned(),
        };
        Problem::error(Reason::VolumeDataNotSaved, subject(key), &message)
    });
    let more = claims.len().saturating_sub(MAX_PROBLEMS);
    let rest = (more > 0).then(|| {
        Problem::error(
            Reason::VolumeDataNotSaved,
            "persistentvolumeclaims",
            &format!("the data of {more} more volumes was not saved"),
        )
    });
    named.chain(rest).collect()
}

/// What is said about volumes whose data stays in their storage system: each by name up to
/// a bound. The manifest lists all.
fn in_storage(saved: &[VolumeRecord]) -> impl Iterator<Item = Problem> {
    let kept = saved.iter().filter_map(|of| Some((of, of.saved.kept()?)));
    kept.take(MAX_PROBLEMS).map(|(of, kept)| {
        let message = format!(
            "its data stays in its storage system, and is lost with it: {kept}, by {}",
            of.reason
        );
        Problem::warning(Reason::VolumeInStorage, subject(&of.claim), &message)
    })
}

fn summary(request: &CaptureRequest, read: &Read) -> PointSummary {
    let partial = read.problems.iter().any(|p| p.severity == Severity::Error);
    let fuzzy = read
        .types
        .iter()
        .any(|t| matches!(t.fidelity, Fidelity::Fuzzy { .. }));
    PointSummary {
        version: SUMMARY_VERSION,
        cluster: request.cluster.clone(),
        schedule: request.schedule.clone(),
        backup: request.backup.clone(),
        backup_uid: request.backup_uid.clone(),
        taken_at: request.taken_at,
        completeness: if partial {
            Completeness::Partial
        } else {
            Completeness::Complete
        },
        consistency: if fuzzy {
            Consistency::Fuzzy
        } else {
            Consistency::Exact
        },
        objects: read.types.iter().map(|t| t.objects).sum(),
        kubernetes_version: read.kubernetes_version.clone(),
    }
}

fn manifest(request: &CaptureRequest, read: Read, summary: PointSummary) -> Manifest {
    let Read {
        revision,
        kubernetes_version: _,
        types,
        unavailable_groups,
        found,
        volumes,
        mut problems,
    } = read;
    problems.truncate(MANIFEST_PROBLEMS_MAX);
    Manifest {
        version: Manifest::version_for(&volumes),
        summary,
        revision: Some(revision),
        selection: request.selection.clone(),
        volumes: request.volumes,
        own_namespace: request.own_namespace.clone(),
        volumes_not_saved: found.claims,
        volumes_saved: volumes,
        types,
        unavailable_groups,
        problems,
    }
}

fn api(what: &str, error: &ListError) -> Error {
    Error::Api {
        what: what.to_owned(),
        message: error.to_string(),
    }
}

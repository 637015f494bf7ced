//! Which snapshot a Restore means. A RecoveryPoint is only a pointer: what it
//! points to is read from the repository again.

use blake3::Hasher;
use kube::{Api, ResourceExt, api::ListParams};
use lifebuoy_api::{
    self as api, Access, ConditionType, PointCluster, Reason, RecoveryPoint, Restore, RestoreMode,
    find,
};
use lifebuoy_engine::point::{self, Point};
use lifebuoy_repo::{Repository, SessionId};

use super::plan::named_repository;
use crate::{Error, context::Context, error::sentence, repository::OpenError, status::Standing};

/// Why it is not known.
#[derive(Debug)]
pub(crate) struct Unresolved {
    pub(crate) standing: Standing,
    /// Whether the same may succeed a little later.
    pub(crate) transient: bool,
}

impl Unresolved {
    fn failed(reason: Reason, message: String) -> Self {
        Self {
            standing: Standing::Failed(reason, message),
            transient: false,
        }
    }

    fn engine(repository: &str, error: &lifebuoy_engine::Error) -> Self {
        let text = sentence(error, error.hint().as_deref());
        let message = format!("repository `{repository}`: {text}");
        let transient = match error {
            lifebuoy_engine::Error::Repo(error) => error.is_transient(),
            lifebuoy_engine::Error::Kube { .. } => true,
            _ => false,
        };
        Self {
            standing: Standing::Failed(error.reason(), message),
            transient,
        }
    }
}

/// What `from` names: a repository, and perhaps a snapshot in it.
pub(crate) struct Source {
    pub(crate) repository: String,
    snapshot: Option<SessionId>,
}

/// Where the Restore reads.
///
/// # Errors
/// The outer one when the API server fails.
pub(crate) async fn source(
    context: &Context,
    restore: &Restore,
) -> Result<Result<Source, Unresolved>, Error> {
    let from = &restore.spec.from;
    let parse = |text: &str, path: &str| {
        text.parse::<SessionId>().map_err(|error| {
            Unresolved::failed(Reason::RecoveryPointNotFound, format!("{path}: {error}"))
        })
    };
    if let Some(repository) = named_repository(restore) {
        let snapshot = from
            .snapshot
            .as_deref()
            .map(|text| parse(text, "spec.from.snapshot"));
        return Ok(snapshot.transpose().map(|snapshot| Source {
            repository: repository.to_owned(),
            snapshot,
        }));
    }
    let name = from.recovery_point.as_deref().unwrap_or_default();
    let namespace = restore.namespace().unwrap_or_default();
    let points: Api<RecoveryPoint> = Api::namespaced(context.client.clone(), &namespace);
    let found = points
        .get_opt(name)
        .await
        .map_err(|error| Error::kube("read a RecoveryPoint", error))?;
    let Some(found) = found else {
        return Ok(Err(Unresolved::failed(
            Reason::RecoveryPointNotFound,
            format!(
                "spec.from.recoveryPoint: there is no RecoveryPoint `{name}` in the namespace \
                 `{namespace}`; name `repository` and `snapshot` instead: no mirrored object is \
                 needed"
            ),
        )));
    };
    Ok(
        parse(&found.spec.snapshot, "the snapshot of the RecoveryPoint").map(|snapshot| Source {
            repository: found.spec.repository,
            snapshot: Some(snapshot),
        }),
    )
}

/// Opens the repository of a source, and says whether it may be written.
pub(crate) async fn open(
    context: &Context,
    restore: &Restore,
    repository: &str,
) -> Result<(Repository, bool), Unresolved> {
    let namespace = restore.namespace().unwrap_or_default();
    match context
        .repositories
        .by_name(&context.client, &namespace, repository)
        .await
    {
        Ok((object, opened)) => {
            let may_write = object.spec.access == Access::ReadWrite;
            Ok((opened.repo.clone(), may_write))
        }
        Err(error) => {
            let message = match &error {
                OpenError::NotFound(_) => format!("spec.from: {}", error.message()),
                _ => format!("repository `{repository}`: {}", error.message()),
            };
            let standing = match &error {
                OpenError::NotFound(_) => Standing::Stalled(error.reason(), message),
                OpenError::Suspended(_) => Standing::Waiting(error.reason(), message),
                _ => Standing::Failed(error.reason(), message),
            };
            Err(Unresolved {
                standing,
                transient: error.is_transient(),
            })
        }
    }
}

/// The point that the Restore means, read from the repository.
pub(crate) async fn point(
    repo: &Repository,
    restore: &Restore,
    source: &Source,
) -> Result<Point, Unresolved> {
    let found = match source.snapshot {
        Some(snapshot) => point::find(repo, snapshot).await,
        None => {
            let from = &restore.spec.from;
            let cluster = from.cluster.as_deref().unwrap_or_default();
            point::newest_complete(repo, cluster, from.schedule.as_deref()).await
        }
    };
    found.map_err(|error| Unresolved::engine(&source.repository, &error))
}

/// What two Restores have in common that ask for the same: a hash of the spec
/// (but for what does not change the result), the snapshot and this cluster.
pub(crate) fn fingerprint(
    restore: &Restore,
    snapshot: SessionId,
    cluster: &PointCluster,
) -> Result<String, Error> {
    let mut spec = restore.spec.clone();
    spec.cancel = false;
    spec.ttl_seconds_after_finished = None;
    spec.from = api::RestoreSource::default();
    let spec = serde_json::to_vec(&spec).map_err(|error| Error::Internal(error.to_string()))?;
    let mut hasher = Hasher::new_derive_key("lifebuoy.dev 2026 fingerprint of a Restore");
    for part in [&spec[..], snapshot.as_bytes(), cluster.uid.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The Restore that did the same already, and completed.
///
/// # Errors
/// When the API server fails.
pub(crate) async fn done_before(
    context: &Context,
    restore: &Restore,
    fingerprint: &str,
) -> Result<Option<String>, Error> {
    if restore.spec.mode == RestoreMode::Plan {
        return Ok(None);
    }
    let namespace = restore.namespace().unwrap_or_default();
    let restores: Api<Restore> = Api::namespaced(context.client.clone(), &namespace);
    let all = restores
        .list(&ListParams::default())
        .await
        .map_err(|error| Error::kube("list Restores", error))?;
    Ok(all
        .iter()
        .find(|other| equal(other, restore, fingerprint))
        .map(ResourceExt::name_any))
}

fn equal(other: &Restore, own: &Restore, fingerprint: &str) -> bool {
    let Some(status) = &other.status else {
        return false;
    };
    let complete = find(&status.conditions, ConditionType::Complete);
    other.uid() != own.uid()
        && status.fingerprint.as_deref() == Some(fingerprint)
        && complete.is_some_and(|c| c.status == "True" && c.reason == Reason::Succeeded.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fingerprint_is_of_what_changes_the_result() {
        let restore = |spec: serde_json::Value| -> Restore {
            serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": spec})).unwrap()
        };
        let cluster = |uid: &str| PointCluster {
            name: "a".into(),
            uid: uid.into(),
        };
        let snapshot = SessionId::from_bytes([1; 16]);
        let of =
            |spec: serde_json::Value| fingerprint(&restore(spec), snapshot, &cluster("u")).unwrap();
        let base = of(json!({"from": {"recoveryPoint": "p"}}));
        assert_eq!(base.len(), 64);
        assert_eq!(
            base,
            of(json!({"from": {"repository": "m", "snapshot": "s"}}))
        );
        assert_eq!(
            base,
            of(json!({"from": {}, "cancel": true, "ttlSecondsAfterFinished": 1}))
        );
        assert_ne!(base, of(json!({"from": {}, "rerun": "again"})));
        assert_ne!(base, of(json!({"from": {}, "volumes": "Empty"})));
        assert_ne!(base, of(json!({"from": {}, "mode": "Plan"})));
        let spec = restore(json!({"from": {}}));
        assert_ne!(base, fingerprint(&spec, snapshot, &cluster("v")).unwrap());
        assert_ne!(
            base,
            fingerprint(&spec, SessionId::from_bytes([2; 16]), &cluster("u")).unwrap()
        );
    }
}

//! Brings one object into the cluster: creates it, merges it into what exists,
//! or replaces that. Nothing is deleted without saying exactly what.

use std::time::Duration;

use bytes::Bytes;
use lifebuoy_api::{ExistingPolicy, HELD_FOR_LABEL, RESTORED_BY_ANNOTATION, Reason};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{Refusal, Verdict};
use super::http::{Call, Op, Place};
use super::send::{Sender, Sent};
use crate::restore::{Key, OwnerRef};
use crate::volumes::without_asking;

/// How often an object that changes under our hands is looked at again.
const ROUNDS_MAX: u32 = 6;
/// The first wait for an object to be gone.
const GONE_POLL: Duration = Duration::from_millis(50);
/// The longest wait between two looks at an object that is being deleted.
const GONE_POLL_MAX: Duration = Duration::from_secs(1);

/// One object to be brought into the cluster.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) place: &'a Place,
    pub(crate) key: &'a Key,
    pub(crate) how: How,
    /// What is done about an object that exists although the plan did not know.
    pub(crate) policy: ExistingPolicy,
    pub(crate) body: Body,
    pub(crate) owners: Vec<Owner<'a>>,
    /// The captured managers, where they are to be put back.
    pub(crate) managers: Option<Bytes>,
    /// Whether the server's words about it must not be kept.
    pub(crate) secret: bool,
    /// Whether others need its uid.
    pub(crate) owns: bool,
    /// Whether it owns pods: a replacement leaves them alone, and it may be held while a
    /// volume of theirs is overwritten.
    pub(crate) is_workload: bool,
}

/// What is planned for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Create,
    Merge,
    Replace,
}

/// What is written.
#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Bytes),
    /// Not to be written before its owners' uids are in it.
    Value(Value),
}

/// An owner that is in the plan.
#[derive(Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) reference: OwnerRef,
    pub(crate) api_version: String,
    pub(crate) place: &'a Place,
    pub(crate) key: &'a Key,
    pub(crate) uid: Option<String>,
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It is there.
    Done {
        reason: Reason,
        uid: Option<String>,
        notes: Vec<String>,
    },
    /// Not now; perhaps when more is restored.
    NotYet(Refusal),
    /// Not at all.
    Refused(Refusal),
}

/// What is looked at of an object that exists.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Seen {
    metadata: SeenMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SeenMetadata {
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    labels: Option<SeenLabels>,
    annotations: Option<SeenAnnotations>,
}

#[derive(Debug, Default, Deserialize)]
struct SeenAnnotations {
    #[serde(rename = "lifebuoy.dev/restored-by", default)]
    restored_by: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct SeenLabels {
    #[serde(rename = "lifebuoy.dev/held-for", default)]
    held_for: Option<String>,
}

const _: () = assert!(RESTORED_BY_ANNOTATION.len() == "lifebuoy.dev/restored-by".len());
const _: () = assert!(HELD_FOR_LABEL.len() == "lifebuoy.dev/held-for".len());

/// Brings objects into a cluster, for one restore.
pub(crate) struct Hands {
    pub(crate) sender: Sender,
    pub(crate) restore_uid: String,
    /// How long an object may take to be gone, once it is deleted.
    pub(crate) gone_within: Duration,
}

/// A step of the work: over, or to be looked at again.
enum Turn {
    Over(Ended),
    Again,
}

impl Hands {
    pub(crate) async fn write(&self, mut work: Work<'_>) -> Ended {
        let mut notes = Vec::new();
        let body = match self.body(&mut work, &mut notes).await {
            Ok(body) => body,
            Err(refusal) => return Ended::Refused(refusal),
        };
        let ended = match work.how {
            How::Create => self.create(&work, &body).await,
            How::Merge => self.merge(&work, &body).await,
            How::Replace => self.replace(&work, &body).await,
        };
        let Ended::Done {
            reason,
            uid,
            notes: more,
        } = ended
        else {
            return ended;
        };
        notes.extend(more);
        if reason == Reason::Created || reason == Reason::Replaced {
            notes.extend(self.put_managers_back(&work).await);
        }
        Ended::Done { reason, uid, notes }
    }

    /// The bytes to write, with the owners' new uids in them.
    async fn body(&self, work: &mut Work<'_>, notes: &mut Vec<String>) -> Result<Bytes, Refusal> {
        let value = match &mut work.body {
            Body::Bytes(bytes) => return Ok(bytes.clone()),
            Body::Value(value) => value,
        };
        let mut references = Vec::new();
        for owner in std::mem::take(&mut work.owners) {
            let uid = match owner.uid.clone() {
                Some(uid) => Some(uid),
                None => self
                    .look(owner.place, owner.key)
                    .await?
                    .map(|seen| seen.metadata.uid),
            };
            match uid {
                Some(uid) => references.push(owner.reference_with(&uid)),
                None => notes.push(format!(
                    "its owner {} {} is not there: the reference is dropped",
                    owner.reference.kind, owner.key
                )),
            }
        }
        if !references.is_empty() {
            value["metadata"]["ownerReferences"] = Value::Array(references);
        }
        serde_json::to_vec(&value)
            .map(Bytes::from)
            .map_err(|error| internal(&error.to_string()))
    }

    async fn create(&self, work: &Work<'_>, body: &Bytes) -> Ended {
        for _ in 0..ROUNDS_MAX {
            let sent = self.send(work, Op::Create, body.clone()).await;
            match sent.verdict {
                Verdict::Done => {
                    let uid = if work.owns { uid_of(&sent.body) } else { None };
                    return done(Reason::Created, uid);
                }
                Verdict::Exists => match self.meet(work, body).await {
                    Turn::Over(ended) => return ended,
                    Turn::Again => {}
                },
                Verdict::Conflict => {}
                other => return refused(other),
            }
        }
        busy()
    }

    /// An object of this name exists, although none was expected.
    async fn meet(&self, work: &Work<'_>, body: &Bytes) -> Turn {
        let seen = match self.look(work.place, work.key).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Turn::Again,
            Err(refusal) => return Turn::Over(Ended::Refused(refusal)),
        };
        let uid = Some(seen.metadata.uid.clone());
        if seen.metadata.deletion_timestamp.is_some() {
            return self.gone(work, &seen.metadata.uid).await;
        }
        if self.is_ours(&seen) {
            return Turn::Over(done(Reason::Created, uid));
        }
        Turn::Over(match work.policy {
            ExistingPolicy::Skip => done(Reason::SkippedExisting, uid),
            ExistingPolicy::Merge => self.merge(work, body).await,
            ExistingPolicy::Replace => Box::pin(self.replace(work, body)).await,
            ExistingPolicy::Fail => Ended::Refused(Refusal {
                reason: Reason::ExistingObject,
                words: "it was created by someone else after the plan was made, and `existing` says Fail".to_owned(),
                passing: false,
            }),
        })
    }

    /// Merges what was captured, without our stamp: the object is not ours.
    async fn merge(&self, work: &Work<'_>, body: &Bytes) -> Ended {
        let patch = match merge_patch(body) {
            Ok(patch) => patch,
            Err(refusal) => return Ended::Refused(refusal),
        };
        for _ in 0..ROUNDS_MAX {
            let patch = match self.unless_held(work, &patch).await {
                Ok(patch) => patch,
                Err(refusal) => return Ended::Refused(refusal),
            };
            let sent = self.send(work, Op::Merge, patch).await;
            match sent.verdict {
                Verdict::Done => return done(Reason::Merged, uid_of(&sent.body)),
                Verdict::Conflict => {}
                // It has gone since the plan was made.
                Verdict::Missing(_) => match self.send(work, Op::Create, body.clone()).await {
                    Sent {
                        verdict: Verdict::Done,
                        body,
                    } => {
                        return done(Reason::Created, uid_of(&body));
                    }
                    Sent {
                        verdict: Verdict::Exists | Verdict::Conflict,
                        ..
                    } => {}
                    sent => return refused(sent.verdict),
                },
                other => return refused(other),
            }
        }
        busy()
    }

    /// The patch; for a workload, such that it fails if that is held by then.
    async fn unless_held(&self, work: &Work<'_>, patch: &Value) -> Result<Bytes, Refusal> {
        let mut patch = patch.clone();
        if work.is_workload
            && let Some(seen) = self.look(work.place, work.key).await?
        {
            if is_held(&seen) {
                return Err(held());
            }
            patch["metadata"]["resourceVersion"] = seen.metadata.resource_version.into();
        }
        Ok(patch.to_string().into())
    }

    async fn replace(&self, work: &Work<'_>, body: &Bytes) -> Ended {
        for _ in 0..ROUNDS_MAX {
            let turn = match self.look(work.place, work.key).await {
                Err(refusal) => return Ended::Refused(refusal),
                Ok(None) => self.create_anew(work, body, Reason::Created).await,
                Ok(Some(seen)) if self.is_ours(&seen) => {
                    return done(Reason::Replaced, Some(seen.metadata.uid));
                }
                Ok(Some(seen)) if seen.metadata.deletion_timestamp.is_some() => {
                    self.gone(work, &seen.metadata.uid).await
                }
                Ok(Some(seen)) if is_held(&seen) => return Ended::Refused(held()),
                Ok(Some(seen)) => self.put(work, body, &seen.metadata).await,
            };
            if let Turn::Over(ended) = turn {
                return ended;
            }
        }
        busy()
    }

    /// Writes over exactly the object that was seen; where a field of it cannot
    /// change, deletes exactly that object and creates it anew.
    async fn put(&self, work: &Work<'_>, body: &Bytes, seen: &SeenMetadata) -> Turn {
        let whole = match with_identity(body, seen) {
            Ok(whole) => whole,
            Err(refusal) => return Turn::Over(Ended::Refused(refusal)),
        };
        let sent = self.send(work, Op::Replace, whole).await;
        match sent.verdict {
            Verdict::Done => Turn::Over(done(Reason::Replaced, uid_of(&sent.body))),
            Verdict::Conflict | Verdict::Missing(_) => Turn::Again,
            Verdict::Invalid(_) => self.recreate(work, body, seen).await,
            other => Turn::Over(refused(other)),
        }
    }

    async fn recreate(&self, work: &Work<'_>, body: &Bytes, seen: &SeenMetadata) -> Turn {
        // Nothing is deleted for the sake of an object that would be refused.
        match self.send(work, Op::Check, body.clone()).await.verdict {
            Verdict::Exists | Verdict::Done => {}
            other => return Turn::Over(refused(other)),
        }
        let options = json!({
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": seen.uid, "resourceVersion": seen.resource_version},
            "propagationPolicy": if work.is_workload { "Orphan" } else { "Background" },
        });
        let sent = self
            .send(work, Op::Delete, options.to_string().into())
            .await;
        match sent.verdict {
            Verdict::Done => {}
            Verdict::Conflict | Verdict::Missing(_) => return Turn::Again,
            other => return Turn::Over(refused(other)),
        }
        match self.gone(work, &seen.uid).await {
            Turn::Again => self.create_anew(work, body, Reason::Replaced).await,
            over @ Turn::Over(_) => over,
        }
    }

    async fn create_anew(&self, work: &Work<'_>, body: &Bytes, reason: Reason) -> Turn {
        let sent = self.send(work, Op::Create, body.clone()).await;
        match sent.verdict {
            Verdict::Done => Turn::Over(done(reason, uid_of(&sent.body))),
            Verdict::Exists | Verdict::Conflict => Turn::Again,
            other => Turn::Over(refused(other)),
        }
    }

    /// Waits until the object with this uid is gone.
    async fn gone(&self, work: &Work<'_>, uid: &str) -> Turn {
        let begun = Instant::now();
        let mut pause = GONE_POLL;
        loop {
            match self.look(work.place, work.key).await {
                Ok(Some(seen)) if seen.metadata.uid == uid => {}
                Ok(_) => return Turn::Again,
                Err(refusal) => return Turn::Over(Ended::Refused(refusal)),
            }
            if begun.elapsed() > self.gone_within || !self.sender.wait(pause).await {
                return Turn::Over(Ended::Refused(Refusal {
                    reason: Reason::DependencyNotReady,
                    words: "the existing object is being deleted, and something holds it: see its finalizers".to_owned(),
                    passing: false,
                }));
            }
            pause = (pause * 2).min(GONE_POLL_MAX);
        }
    }

    /// Puts the captured managers back, so that tools which apply objects know
    /// their fields again. A note when that fails.
    async fn put_managers_back(&self, work: &Work<'_>) -> Option<String> {
        let managers = work.managers.clone()?;
        let sent = self.send(work, Op::Patch, managers).await;
        match sent.verdict {
            Verdict::Done => None,
            _ => Some("its field managers could not be put back: tools that apply it may ask to take fields over".to_owned()),
        }
    }

    async fn look(&self, place: &Place, key: &Key) -> Result<Option<Seen>, Refusal> {
        let call = Call {
            op: Op::Metadata,
            place,
            key,
            body: Bytes::new(),
        };
        // Metadata holds nothing secret, but an error about a Secret might.
        let sent = self.sender.send(&call, true).await;
        match sent.verdict {
            Verdict::Done => serde_json::from_slice(&sent.body)
                .map(Some)
                .map_err(|error| internal(&error.to_string())),
            Verdict::Missing(_) => Ok(None),
            other => Err(refusal_of(other)),
        }
    }

    async fn send(&self, work: &Work<'_>, op: Op, body: Bytes) -> Sent {
        let call = Call {
            op,
            place: work.place,
            key: work.key,
            body,
        };
        self.sender.send(&call, work.secret).await
    }

    fn is_ours(&self, seen: &Seen) -> bool {
        let stamp = seen
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.restored_by.as_deref());
        stamp == Some(&*self.restore_uid)
    }
}

impl Owner<'_> {
    fn reference_with(&self, uid: &str) -> Value {
        let OwnerRef {
            kind,
            controller,
            block_owner_deletion,
            ..
        } = &self.reference;
        let mut reference = json!({
            "apiVersion": self.api_version,
            "kind": kind,
            "name": &*self.key.name,
            "uid": uid,
        });
        if *controller {
            reference["controller"] = true.into();
        }
        if *block_owner_deletion {
            reference["blockOwnerDeletion"] = true.into();
        }
        reference
    }
}

fn done(reason: Reason, uid: Option<String>) -> Ended {
    Ended::Done {
        reason,
        uid,
        notes: Vec::new(),
    }
}

fn refused(verdict: Verdict) -> Ended {
    match verdict {
        Verdict::NotYet(refusal) | Verdict::Missing(refusal) => Ended::NotYet(refusal),
        other => Ended::Refused(refusal_of(other)),
    }
}

fn refusal_of(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Missing(refusal)
        | Verdict::Throttled(_, refusal)
        | Verdict::Failed(_, refusal)
        | Verdict::NotYet(refusal)
        | Verdict::Refused(refusal)
        | Verdict::Invalid(refusal) => refusal,
        Verdict::Done | Verdict::Exists | Verdict::Conflict => {
            internal("an answer that does not fit the request")
        }
    }
}

fn busy() -> Ended {
    Ended::Refused(Refusal {
        reason: Reason::Refused,
        words: format!("someone else changes it all the time: gave up after {ROUNDS_MAX} rounds"),
        passing: false,
    })
}

fn is_held(seen: &Seen) -> bool {
    let labels = seen.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.held_for.is_some())
}

/// To start what waits for its volume would be to start it on half of the data.
fn held() -> Refusal {
    Refusal {
        reason: Reason::DependencyNotReady,
        words: "it is kept from running, since a volume that it mounts is being overwritten or is half written: restore that volume with `existingVolumes: Overwrite` first".to_owned(),
        passing: false,
    }
}

fn internal(message: &str) -> Refusal {
    Refusal {
        reason: Reason::InternalError,
        words: message.to_owned(),
        passing: false,
    }
}

fn uid_of(body: &Bytes) -> Option<String> {
    let seen: Seen = serde_json::from_slice(body).ok()?;
    Some(seen.metadata.uid).filter(|uid| !uid.is_empty())
}

/// The body without our stamp and without owners: those of the existing object
/// are not ours to say.
fn merge_patch(body: &Bytes) -> Result<Value, Refusal> {
    let mut value: Value =
        serde_json::from_slice(body).map_err(|error| internal(&error.to_string()))?;
    without_asking(&mut value);
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("ownerReferences");
        if let Some(annotations) = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(RESTORED_BY_ANNOTATION);
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    Ok(value)
}

fn with_identity(body: &Bytes, seen: &SeenMetadata) -> Result<Bytes, Refusal> {
    let mut value: Value =
        serde_json::from_slice(body).map_err(|error| internal(&error.to_string()))?;
    value["metadata"]["uid"] = seen.uid.clone().into();
    value["metadata"]["resourceVersion"] = seen.resource_version.clone().into();
    Ok(value.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_merged_into_others_objects_carries_no_stamp() {
        let body = json!({"kind": "ConfigMap", "metadata": {
            "name": "x",
            "annotations": {RESTORED_BY_ANNOTATION: "uid"},
            "ownerReferences": [{}],
        }, "data": {"a": "b"}});
        let patch = merge_patch(&body.to_string().into()).unwrap();
        assert_eq!(
            patch,
            json!({"kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}})
        );
    }

    #[test]
    fn what_replaces_says_which_object_it_replaces() {
        let seen = SeenMetadata {
            uid: "u".into(),
            resource_version: "7".into(),
            ..SeenMetadata::default()
        };
        let body = with_identity(
            &json!({"metadata": {"name": "x"}}).to_string().into(),
            &seen,
        )
        .unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({"metadata": {"name": "x", "uid": "u", "resourceVersion": "7"}})
        );
    }

    #[test]
    fn the_stamp_is_found_in_an_answer() {
        let body = json!({"metadata": {"uid": "u", "annotations": {"lifebuoy.dev/restored-by": "r", "x": "y"}}});
        let seen: Seen = serde_json::from_value(body).unwrap();
        assert_eq!(
            seen.metadata.annotations.unwrap().restored_by.as_deref(),
            Some("r")
        );
        assert_eq!(RESTORED_BY_ANNOTATION, "lifebuoy.dev/restored-by");
    }
}

//! The bodies of a plan's entries, in the plan's order: read from the archive
//! and prepared once more by the pure rules. Decides nothing.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use lifebuoy_api::Reason;
use memchr::memmem;
use serde_json::{Value, json};

use super::stage::stage;
use super::write::Body;
use crate::Error;
use crate::archive::{Archive, ArchivedObject, TypeRecord};
use crate::restore::mounts::{Claims, Mounts};
use crate::restore::{
    Context, Draft, Entry, Key, OwnerRef, Plan, PlannedType, Prepared, Rules, prepare,
};

/// An entry with what is to be written for it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: u32,
    /// What this item holds in memory, about.
    pub(crate) bytes: usize,
    pub(crate) content: Result<Content, (Reason, String)>,
}

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) body: Body,
    pub(crate) owners: Vec<OwnerRef>,
    pub(crate) managers: Option<Bytes>,
}

/// What bodies are made of.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) rules: &'a Rules,
    pub(crate) context: &'a Context,
    pub(crate) plan: &'a Plan,
    /// Claims whose volumes were to be overwritten, and were not.
    pub(crate) not_overwritten: &'a Claims,
}

impl<'a> Sources<'a> {
    /// The items of these entries, which are indexes in ascending order. Each
    /// comes once, with a reason where there is no body.
    pub(crate) fn items(self, entries: Vec<u32>) -> BoxStream<'a, Result<Item, Error>> {
        let mut parts: Vec<BoxStream<'a, Result<Item, Error>>> = Vec::new();
        let mut together: Vec<Vec<u32>> = Vec::new();
        for run in self.runs(&entries) {
            if self.stage_of(&together) != self.stage_of(std::slice::from_ref(&run)) {
                parts.push(self.one_after_another(std::mem::take(&mut together)));
            }
            if self.is_contended(&run) {
                let others: usize = together.iter().map(Vec::len).sum();
                let every = others / run.len();
                let others = self.one_after_another(std::mem::take(&mut together));
                parts.push(mixed(others, self.run(run), every));
            } else {
                together.push(run);
            }
        }
        parts.push(self.one_after_another(together));
        stream::iter(parts).flatten().boxed()
    }

    fn one_after_another(self, runs: Vec<Vec<u32>>) -> BoxStream<'a, Result<Item, Error>> {
        stream::iter(runs)
            .map(move |run| self.run(run))
            .flatten()
            .boxed()
    }

    /// The stage of the first entry.
    fn stage_of(self, runs: &[Vec<u32>]) -> Option<usize> {
        let first = *runs.first()?.first()?;
        Some(stage(self.entry(first).wave))
    }

    /// Whether the API server makes such objects one at a time: all Services
    /// draw their addresses from one pool, and many at once get in each other's
    /// way. Nothing before them in their stage needs them.
    fn is_contended(self, run: &[u32]) -> bool {
        let Some(first) = run.first() else {
            return false;
        };
        let of = self.plan.type_of(self.entry(*first));
        of.id.group.is_empty() && of.kind == "Service"
    }

    /// Cuts the entries where the type changes or the keys begin anew.
    fn runs(self, entries: &[u32]) -> Vec<Vec<u32>> {
        entries
            .chunk_by(|a, b| {
                let (a, b) = (self.entry(*a), self.entry(*b));
                a.kind == b.kind && a.source.cmp_as_archived(&b.source).is_lt()
            })
            .map(<[u32]>::to_vec)
            .collect()
    }

    fn entry(self, at: u32) -> &'a Entry {
        &self.plan.entries[at as usize]
    }

    /// One type's entries, in key order.
    fn run(self, entries: Vec<u32>) -> BoxStream<'a, Result<Item, Error>> {
        let Some(first) = entries.first().copied() else {
            return stream::empty().boxed();
        };
        let id = &self.plan.type_of(self.entry(first)).id;
        let Some(t) = self.archive.manifest.find(id) else {
            return stream::iter(entries).map(|at| Ok(absent(at))).boxed();
        };
        let keys: Arc<[Key]> = entries
            .iter()
            .map(|at| self.entry(*at).source.clone())
            .collect();
        let objects = self.archive.select(t, move |key| {
            let wanted = Key::new(&key.namespace, &key.name);
            keys.binary_search_by(|known| known.cmp_as_archived(&wanted))
                .is_ok()
        });
        let state = (entries.into_iter(), objects, None::<ArchivedObject>);
        stream::try_unfold(
            state,
            move |(mut left, mut objects, mut ahead)| async move {
                let Some(at) = left.next() else {
                    return Ok::<_, Error>(None);
                };
                let object = match ahead.take() {
                    Some(object) => Some(object),
                    None => objects.try_next().await?,
                };
                let item = match object {
                    Some(object) if self.entry(at).source.is(&object.key) => {
                        self.item(t, at, &object)
                    }
                    other => {
                        ahead = other;
                        absent(at)
                    }
                };
                Ok(Some((item, (left, objects, ahead))))
            },
        )
        .boxed()
    }

    fn item(self, t: &TypeRecord, at: u32, object: &ArchivedObject) -> Item {
        let content = match prepare(self.rules, self.context, t, object) {
            Prepared::Write(draft) => self.content(at, object, *draft),
            Prepared::Broken(reason, message) => Err((reason, message)),
            Prepared::NotSelected => Err(changed("the rules no longer select it")),
            Prepared::Leave(why) => Err(changed(&why)),
        };
        Item {
            entry: at,
            bytes: object.stable.len(),
            content,
        }
    }

    fn content(
        self,
        at: u32,
        object: &ArchivedObject,
        draft: Draft,
    ) -> Result<Content, (Reason, String)> {
        let entry = self.entry(at);
        let of = self.plan.type_of(entry);
        if draft.hash != entry.body {
            return Err(changed("what would be written is not what was planned"));
        }
        let mut body = draft.body;
        if let Some(claim) = self.mounts_other_data(entry, of, &body) {
            return Err((
                Reason::Withheld,
                format!("it mounts the claim `{claim}`, whose volume could not be overwritten"),
            ));
        }
        let api_version = of.api_version();
        if draft.api_version != api_version {
            body["apiVersion"] = api_version.into();
        }
        let body = if draft.owners.is_empty() {
            match serde_json::to_vec(&body) {
                Ok(bytes) => Body::Bytes(bytes.into()),
                Err(error) => return Err((Reason::MalformedObject, error.to_string())),
            }
        } else {
            Body::Value(body)
        };
        Ok(Content {
            body,
            owners: draft.owners,
            managers: managers(&object.volatile, of.source_version == of.target_version),
        })
    }
}

impl Sources<'_> {
    /// A claim that a workload mounts, and on which is not what was saved.
    fn mounts_other_data(&self, entry: &Entry, of: &PlannedType, body: &Value) -> Option<&str> {
        if self.not_overwritten.is_empty() {
            return None;
        }
        let mounts = Mounts::read(&of.id.group, &of.kind, body)?;
        let namespace = &entry.target.namespace;
        self.not_overwritten.mounted(namespace, &mounts)
    }
}

/// One of `few` after every so many of `many`, each in its own order.
fn mixed<'a, T: Send + 'a>(
    many: BoxStream<'a, T>,
    few: BoxStream<'a, T>,
    every: usize,
) -> BoxStream<'a, T> {
    let state = (many, few, 0);
    stream::unfold(state, move |(mut many, mut few, taken)| async move {
        if taken < every
            && let Some(item) = many.next().await
        {
            return Some((item, (many, few, taken + 1)));
        }
        if let Some(item) = few.next().await {
            return Some((item, (many, few, 0)));
        }
        let item = many.next().await?;
        Some((item, (many, few, 0)))
    })
    .boxed()
}

fn absent(entry: u32) -> Item {
    Item {
        entry,
        bytes: 0,
        content: Err((
            Reason::MalformedObject,
            "the archive does not hold it".to_owned(),
        )),
    }
}

fn changed(why: &str) -> (Reason, String) {
    (
        Reason::PlanChanged,
        format!("the plan does not fit the rules: {why}"),
    )
}

/// The patch that puts captured managers back, where someone applied the object:
/// what such tools own decides what they remove. Entries of `status` go, as the
/// status itself.
fn managers(volatile: &[u8], same_version: bool) -> Option<Bytes> {
    const APPLIED: &[u8] = br#""operation":"Apply""#;
    if !same_version || memmem::find(volatile, APPLIED).is_none() {
        return None;
    }
    let volatile: Value = serde_json::from_slice(volatile).ok()?;
    let captured: Vec<&Value> = volatile["managedFields"]
        .as_array()?
        .iter()
        .filter(|entry| entry["subresource"].as_str().is_none_or(str::is_empty))
        .collect();
    let applied = captured.iter().any(|entry| entry["operation"] == "Apply");
    let patch = json!([{"op": "replace", "path": "/metadata/managedFields", "value": captured}]);
    applied.then(|| patch.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_few_are_spread_among_the_many_and_none_is_lost() {
        let numbers = |range: std::ops::Range<u32>| stream::iter(range).boxed();
        let mixed =
            |many, few, every| mixed(numbers(many), numbers(few), every).collect::<Vec<_>>();
        assert_eq!(
            mixed(0..7, 100..103, 2).await,
            [0, 1, 100, 2, 3, 101, 4, 5, 102, 6]
        );
        assert_eq!(mixed(0..1, 100..103, 0).await, [100, 101, 102, 0]);
        assert_eq!(mixed(0..3, 0..0, 1).await, [0, 1, 2]);
    }

    #[test]
    fn managers_are_put_back_where_someone_applied() {
        let of = |volatile: Value| managers(volatile.to_string().as_bytes(), true);
        assert_eq!(
            of(json!({"managedFields": [{"manager": "kubectl", "operation": "Update"}]})),
            None
        );
        assert_eq!(
            of(json!({"status": {"text": "\"operation\":\"Apply\""}})),
            None
        );
        let applied = json!({"managedFields": [
            {"manager": "flux", "operation": "Apply"},
            {"manager": "kubelet", "operation": "Update", "subresource": "status"},
        ]});
        let patch: Value = serde_json::from_slice(&of(applied).unwrap()).unwrap();
        assert_eq!(
            patch[0]["value"],
            json!([{"manager": "flux", "operation": "Apply"}])
        );
    }
}

//! An API server that serves lists from memory and fails where it is told to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use serde_json::{Value, json};

use crate::{
    Error,
    capture::lister::{At, ListError, ListRequest, Lister, PageBody},
    discovery::{Discovered, ServedType},
};

/// What happens to a request for whole objects instead of an answer.
#[derive(Clone)]
pub(super) enum Fault {
    Answer(ListError),
    /// The body ends after this many bytes.
    Cut(usize),
    /// The request is answered.
    None,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) discovered: Discovered,
    /// Objects by the path of their list.
    pub(super) lists: BTreeMap<String, Vec<Value>>,
    /// Revisions of types that are kept elsewhere.
    pub(super) elsewhere: BTreeMap<String, String>,
    /// Paths of which nothing can be listed.
    pub(super) broken: BTreeSet<String>,
    /// Faults by path, one a request.
    pub(super) faults: BTreeMap<String, VecDeque<Fault>>,
    pub(super) requests: Vec<ListRequest>,
}

pub(super) struct FakeCluster {
    state: Mutex<State>,
}

/// The revision of everything that is not elsewhere.
pub(super) const REVISION: &str = "1000";
/// Fewer than are asked for, so that there are several pages.
const PAGE: usize = 3;

impl FakeCluster {
    pub(super) fn new() -> Self {
        let fake = Self {
            state: Mutex::default(),
        };
        fake.serve("", "Namespace", "namespaces", false);
        fake.put("/api/v1/namespaces", json!({"metadata": {"name": "shop"}}));
        fake
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn serve(&self, group: &str, kind: &str, resource: &str, namespaced: bool) {
        let text = str::to_owned;
        self.state().discovered.types.push(ServedType {
            group: text(group),
            version: text("v1"),
            served_versions: vec![text("v1")],
            kind: text(kind),
            resource: text(resource),
            namespaced,
            verbs: vec![text("list"), text("create")],
            short_names: vec![],
            stale: false,
        });
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        self.state()
            .lists
            .entry(path.to_owned())
            .or_default()
            .push(object);
    }

    pub(super) fn fault(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state()
            .faults
            .entry(path.to_owned())
            .or_default()
            .extend(faults);
    }

    /// Everything below `path`, of one namespace where it names one.
    fn objects(state: &State, path: &str) -> Vec<Value> {
        if let Some(list) = state.lists.get(path) {
            return list.clone();
        }
        let Some((root, rest)) = path.split_once("/namespaces/") else {
            return vec![];
        };
        let Some((namespace, resource)) = rest.split_once('/') else {
            return vec![];
        };
        let all = state.lists.get(&format!("{root}/{resource}"));
        let all = all.into_iter().flatten().cloned();
        all.filter(|o| o["metadata"]["namespace"] == namespace)
            .collect()
    }
}

impl Lister for FakeCluster {
    fn page(&self, request: ListRequest) -> BoxFuture<'_, Result<PageBody, ListError>> {
        let mut state = self.state();
        state.requests.push(request.clone());
        if state.broken.contains(&request.path) {
            let message = "conversion webhook".to_owned();
            return async move { Err(ListError::Failed { message }) }.boxed();
        }
        let fault = match state.faults.get_mut(&request.path) {
            Some(faults) if !request.metadata_only => faults.pop_front().unwrap_or(Fault::None),
            _ => Fault::None,
        };
        if let Fault::Answer(error) = fault {
            return async move { Err(error) }.boxed();
        }
        let objects = Self::objects(&state, &request.path);
        let offset = match &request.at {
            At::Continue(token) => token.parse().unwrap(),
            _ => 0,
        };
        let page: Vec<_> = objects
            .iter()
            .skip(offset)
            .take(PAGE.min(request.limit as usize))
            .collect();
        let next = offset + page.len();
        let token = if next < objects.len() {
            next.to_string()
        } else {
            String::new()
        };
        let revision = state
            .elsewhere
            .get(&request.path)
            .map_or(REVISION, String::as_str);
        let body = json!({"kind": "List", "items": page, "metadata": {"resourceVersion": revision,
            "continue": token, "remainingItemCount": objects.len() - next}});
        let mut bytes = serde_json::to_vec(&body).unwrap();
        let mut pieces = Vec::new();
        if let Fault::Cut(at) = fault {
            bytes.truncate(at);
            let message = "cut".to_owned();
            pieces.push(Err(ListError::Transport { message }));
        }
        let whole = bytes.chunks(100).map(|c| Ok(Bytes::copy_from_slice(c)));
        let pieces: Vec<_> = whole.chain(pieces).collect();
        async move { Ok(stream::iter(pieces).boxed()) }.boxed()
    }

    fn served(&self) -> BoxFuture<'_, Result<Discovered, Error>> {
        let discovered = self.state().discovered.clone();
        async move { Ok(discovered) }.boxed()
    }
}

//! Reads the pages of one type, and takes their items one by one.

use std::{collections::BTreeSet, sync::Arc};

use futures::TryStreamExt;
use lifebuoy_api::{Problem, Reason};
use lifebuoy_repo::CHUNK_BYTES_MAX;

use super::{
    Stop, TypeRun,
    outcome::{MALFORMED_NAMED_MAX, id_of, matters_always, type_name},
};
use crate::{
    Error,
    archive::ObjectKey,
    capture::{
        choose::Taken,
        facts::RoleFacts,
        fetch::{malformed, wait_before_retry},
        lister::{At, ListRequest},
        normalise::{Verdict, verdict},
        shallow::{Malformed, Shallow},
        splitter::{ListMeta, ListSplitter},
    },
};

/// How much of a type that comes in no order is held to be sorted.
pub(super) const GATHERED_BYTES_MAX: usize = 64 << 20;

impl TypeRun {
    /// Reads one page, again where that may help.
    pub(super) async fn page(&mut self, request: &ListRequest) -> Result<ListMeta, Stop> {
        let mut tries = 0;
        loop {
            let seen_before = self.last_seen.clone();
            let error = match self.page_once(request).await {
                Ok(meta) => {
                    self.floor = None;
                    return Ok(meta);
                }
                Err(Stop::List(error)) => error,
                Err(stop) => return Err(stop),
            };
            tries += 1;
            let Some(wait) = wait_before_retry(&error, tries) else {
                return Err(Stop::List(error));
            };
            tracing::debug!(path = request.path, %error, tries, "a page is asked for again");
            tokio::time::sleep(wait).await;
            if request.at == At::Latest && self.last_seen != seen_before {
                return Err(Stop::Torn);
            }
            self.floor.clone_from(&self.last_seen);
        }
    }

    async fn page_once(&mut self, request: &ListRequest) -> Result<ListMeta, Stop> {
        let lister = Arc::clone(&self.shared.lister);
        let mut body = lister.page(request.clone()).await?;
        let mut splitter = ListSplitter::new();
        let mut previous = None;
        while let Some(bytes) = body.try_next().await? {
            splitter.feed(&bytes);
            drop(bytes);
            while let Some(item) = splitter.next_item().map_err(|e| malformed(&e))? {
                self.take(item, &mut previous).await?;
            }
        }
        Ok(splitter.finish().map_err(|e| malformed(&e))?)
    }

    /// Takes one item; `previous` is the one before it in the same page.
    async fn take(&mut self, item: &[u8], previous: &mut Option<ObjectKey>) -> Result<(), Stop> {
        let object = match Shallow::parse(item) {
            Ok(object) if self.chosen.served.namespaced && object.namespace.is_empty() => {
                self.malformed(&object.name, "it has no metadata.namespace");
                return Ok(());
            }
            Ok(object) => object,
            Err(Malformed(message)) => {
                self.malformed("", &message);
                return Ok(());
            }
        };
        let key = ObjectKey::new(&*object.namespace, &*object.name);
        if self.gathered.is_none() {
            let after = |last: &Option<ObjectKey>| last.as_ref().is_none_or(|last| *last < key);
            if !after(previous) {
                return Err(Stop::Unordered);
            }
            if !after(&self.floor) {
                *previous = Some(key);
                return Ok(());
            }
            if !after(&self.last_seen) {
                return Err(Stop::Unordered);
            }
        }
        *previous = Some(key.clone());
        self.last_seen = Some(key.clone());
        let said = verdict(type_name(&self.chosen), &object, &self.shared.rules);
        if said.is_meant() && self.looks_for_empty_dirs() {
            self.shared.facts().learn_pod(&object);
        }
        if said != Verdict::Keep || !self.keeps(&object) {
            return Ok(());
        }
        self.stable.clear();
        self.volatile.clear();
        object.write_stable(
            &self.api_version,
            &self.chosen.served.kind,
            &mut self.stable,
        );
        object.write_volatile(&mut self.volatile);
        if self.stable.len().max(self.volatile.len()) > CHUNK_BYTES_MAX {
            let name = key.to_string();
            self.malformed(&name, "it is larger than 4 MiB, more than etcd takes");
            return Ok(());
        }
        let additions = self.shared.additions;
        if additions || matters_always(&self.chosen) {
            let name = type_name(&self.chosen);
            self.shared
                .facts()
                .learn(name, &object, &self.stable, additions);
        }
        self.keep(key).await
    }

    fn looks_for_empty_dirs(&self) -> bool {
        let served = &self.chosen.served;
        self.shared.empty_dirs && served.group.is_empty() && served.resource == "pods"
    }

    /// Whether an object is kept of which nothing speaks against it but others.
    fn keeps(&self, object: &Shallow<'_>) -> bool {
        let name = type_name(&self.chosen);
        if (name.group, name.resource) == ("", "endpoints") {
            return !self.shared.facts().selected_by_service(object);
        }
        self.chosen.taken == Taken::Whole
            || self
                .shared
                .facts()
                .needs(name, object, &self.shared.rules.selector)
    }

    /// Stores the columns that were just written, now or once they are sorted.
    async fn keep(&mut self, key: ObjectKey) -> Result<(), Stop> {
        if let Some(gathered) = &mut self.gathered {
            gathered.bytes += self.stable.len() + self.volatile.len();
            if gathered.bytes > GATHERED_BYTES_MAX {
                return Err(Stop::TooLargeToSort);
            }
            gathered
                .objects
                .push((key, self.stable.clone(), self.volatile.clone()));
            return Ok(());
        }
        let bytes = (self.stable.len() + self.volatile.len()) as u64;
        self.writer
            .push(key, &self.stable, &self.volatile)
            .await
            .map_err(Stop::Fatal)?;
        self.count(bytes);
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        self.stored.0 += 1;
        self.stored.1 += bytes;
        self.shared.progress.object_done(bytes);
    }

    /// Writes what was gathered, in order; of two objects of one name the later.
    pub(super) async fn write_gathered(&mut self) -> Result<(), Error> {
        let Some(gathered) = self.gathered.take() else {
            return Ok(());
        };
        let mut objects = gathered.objects;
        // Stable, so that the later of two equal keys stays the later.
        objects.sort_by(|a, b| a.0.cmp(&b.0));
        objects.reverse();
        objects.dedup_by(|a, b| a.0 == b.0);
        objects.reverse();
        let wanted = self.sifts_roles().then(|| {
            let roles = objects
                .iter()
                .map(|(key, stable, _)| RoleFacts::read(&key.name, stable))
                .collect::<Vec<_>>();
            self.shared.facts().needed_roles(&roles)
        });
        let wanted = |name: &str| {
            wanted
                .as_ref()
                .is_none_or(|w: &BTreeSet<_>| w.contains(name))
        };
        for (key, stable, volatile) in objects {
            if wanted(&key.name) {
                let bytes = (stable.len() + volatile.len()) as u64;
                self.writer.push(key, &stable, &volatile).await?;
                self.count(bytes);
            }
        }
        Ok(())
    }

    fn malformed(&mut self, name: &str, message: &str) {
        self.malformed += 1;
        if self.malformed <= MALFORMED_NAMED_MAX {
            let subject = format!("{} {name}", id_of(&self.chosen));
            self.problems.push(Problem::error(
                Reason::MalformedObject,
                subject.trim_end(),
                message,
            ));
        }
    }
}

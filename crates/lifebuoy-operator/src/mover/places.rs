//! Places for movers: so many at a time, so many on each node, so many for a repository.
//!
//! Where a mover runs is the scheduler's choice, mostly: its volume may be usable on some
//! nodes only. So a place has a number below the limit of a node, and the pods of two places
//! of the same number never run on one node; [`lifebuoy_engine::volumes::job`] says so to
//! the scheduler, which knows the pods of both operators.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use lifebuoy_api::Repository;
use tokio::sync::Notify;

/// How many movers there may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// At a time.
    all: usize,
    /// On one node.
    node: u16,
}

/// What a place is for.
#[derive(Clone, Debug)]
pub(crate) struct PlaceFor {
    /// The node on which the mover must run, whatever the scheduler thinks.
    pub(crate) node: Option<String>,
    /// The uid of the Repository.
    pub(crate) repository: String,
    /// How many places there are for that.
    pub(crate) repository_limit: Option<u16>,
}

impl PlaceFor {
    /// For a mover of this repository.
    pub(crate) fn on(node: Option<String>, repository: &Repository) -> Self {
        Self {
            node,
            repository: repository.uid().unwrap_or_default(),
            repository_limit: repository.spec.max_concurrent_movers,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Taken {
    number: u16,
    node: Option<String>,
    repository: String,
}

/// All places of this operator.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    taken: Mutex<Vec<Taken>>,
    freed: Notify,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    places: &'a Places,
    taken: Taken,
}

impl Places {
    pub(crate) fn new(all: usize, node: u16) -> Self {
        let (all, node) = (all.max(1), node.max(1));
        Self {
            limits: Limits { all, node },
            taken: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// As many nodes as all movers could ever need.
    pub(super) fn nodes_enough(&self) -> usize {
        self.limits.all.div_ceil(usize::from(self.limits.node))
    }

    /// Waits for a place, where there are so many nodes.
    pub(super) async fn take(&self, wanted: &PlaceFor, nodes: usize) -> Place<'_> {
        loop {
            // Before the look: what is freed after it is heard of.
            let freed = self.freed.notified();
            if let Some(place) = self.take_now(wanted, nodes) {
                return place;
            }
            freed.await;
        }
    }

    fn take_now(&self, wanted: &PlaceFor, nodes: usize) -> Option<Place<'_>> {
        let mut all = self.taken();
        let taken = Taken {
            number: free(self.limits, nodes, &all, wanted)?,
            node: wanted.node.clone(),
            repository: wanted.repository.clone(),
        };
        all.push(taken.clone());
        Some(Place {
            places: self,
            taken,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Its number, below the limit of a node.
    pub(crate) fn number(&self) -> u16 {
        self.taken.number
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut all = self.places.taken();
        // Any that is the same will do.
        if let Some(at) = all.iter().position(|one| *one == self.taken) {
            all.swap_remove(at);
        }
        drop(all);
        self.places.freed.notify_waiters();
    }
}

/// The number of a place that may be taken; none if it must be waited for.
fn free(limits: Limits, nodes: usize, taken: &[Taken], wanted: &PlaceFor) -> Option<u16> {
    let of_repository = taken
        .iter()
        .filter(|one| one.repository == wanted.repository);
    let limit = wanted.repository_limit.map_or(usize::MAX, usize::from);
    if taken.len() >= limits.all || of_repository.count() >= limit {
        return None;
    }
    let used = |number: u16| taken.iter().filter(|one| one.number == number).count();
    let is_free = |number: &u16| match &wanted.node {
        Some(node) => {
            let is_it = |one: &Taken| one.number == *number && one.node.as_ref() == Some(node);
            !taken.iter().any(is_it)
        }
        // Each number is free on as many nodes as there are, as far as one knows.
        None => used(*number) < nodes,
    };
    (0..limits.node)
        .filter(is_free)
        .min_by_key(|number| used(*number))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn wanted(node: Option<&str>, repository: &str, limit: Option<u16>) -> PlaceFor {
        PlaceFor {
            node: node.map(str::to_owned),
            repository: repository.to_owned(),
            repository_limit: limit,
        }
    }

    #[test]
    fn there_are_so_many_at_a_time_and_the_next_waits() {
        let places = Places::new(2, 8);
        let any = wanted(None, "a", None);
        let first = places.take_now(&any, 8).unwrap();
        let second = places.take_now(&any, 8).unwrap();
        assert_ne!(first.number(), second.number());
        let waits = places.take(&any, 8);
        let mut waits = std::pin::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        let number = first.number();
        drop(first);
        assert_eq!(waits.now_or_never().unwrap().number(), number);
    }

    #[test]
    fn numbers_are_used_evenly() {
        let places = Places::new(6, 3);
        let any = wanted(None, "a", None);
        let taken: Vec<_> = (0..6).map(|_| places.take_now(&any, 8).unwrap()).collect();
        let mut numbers: Vec<_> = taken.iter().map(Place::number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_node_has_so_many_places_for_those_that_must_run_there() {
        let places = Places::new(10, 2);
        let here = wanted(Some("here"), "a", None);
        let taken = [(); 2].map(|()| places.take_now(&here, 1).unwrap());
        assert_ne!(taken[0].number(), taken[1].number());
        assert!(places.take_now(&here, 1).is_none());
        assert!(
            places
                .take_now(&wanted(Some("there"), "a", None), 1)
                .is_some()
        );
    }

    #[test]
    fn a_limited_repository_does_not_keep_others_waiting() {
        let places = Places::new(3, 1);
        let slow = wanted(None, "slow", Some(1));
        let _one = places.take_now(&slow, 8).unwrap();
        assert!(places.take_now(&slow, 8).is_none());
        let other = wanted(None, "other", None);
        let _two = places.take_now(&other, 8).unwrap();
        let _three = places.take_now(&other, 8).unwrap();
        assert!(places.take_now(&other, 8).is_none());
    }
    #[test]
    fn there_are_no_more_than_the_nodes_have_places() {
        let places = Places::new(10, 2);
        let any = wanted(None, "a", None);
        let _taken = [(); 4].map(|()| places.take_now(&any, 2).unwrap());
        assert!(places.take_now(&any, 2).is_none());
        assert!(places.take_now(&any, 3).is_some());
    }
}

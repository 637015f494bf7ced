//! Exploring a scene to its end.

use std::{num::NonZeroUsize, thread::available_parallelism};

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};

use super::world::{Scene, World};

/// What an exploration came to.
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) depth: usize,
    /// What went wrong, and how it came to that.
    pub(super) violation: Option<String>,
}

/// How far is explored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// Everything that can happen.
    None,
    /// The nearest so many states; everything, if there are fewer.
    States(usize),
    /// All of it down to a depth.
    Depth(usize),
}

/// Explores what can happen, the nearest first.
pub(super) fn explore(scene: Scene, bound: Bound) -> Explored {
    let builder = builder(scene);
    match bound {
        // What is yet to be looked at takes less room so.
        Bound::None => explored(&builder.spawn_dfs().join()),
        Bound::States(states) => explored(&builder.target_state_count(states).spawn_bfs().join()),
        Bound::Depth(depth) => explored(&builder.target_max_depth(depth).spawn_bfs().join()),
    }
}

/// Looks for something that goes wrong, to the end of one way before the next.
pub(super) fn hunt(scene: Scene) -> Explored {
    explored(&builder(scene).spawn_dfs().join())
}

fn builder(scene: Scene) -> CheckerBuilder<Scene> {
    let threads = available_parallelism().map_or(1, NonZeroUsize::get);
    scene
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
}

fn explored(checker: &impl Checker<Scene>) -> Explored {
    let violation = checker
        .discoveries()
        .into_iter()
        .next()
        .map(|(name, path)| {
            let last: &World = path.last_state();
            let garbage = last.drains().err().unwrap_or_default();
            let bucket = last.bucket.clone();
            let events = path.into_actions();
            format!("{name}: not so after {events:#?}\nleft over: {garbage:?}\nbucket: {bucket:#?}")
        });
    Explored {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        violation,
    }
}

//! The scenes that are explored in every run, and the mutants that must be found.

use super::{
    actors::Job,
    bucket::session,
    explore::{Bound, explore, hunt},
    mutants::Mutant,
    world::{Budget, Event, Scene},
};
use crate::ids::SessionId;

const NONE: Budget = Budget {
    forgets: 0,
    crashes: 0,
    lost: 0,
    ghosts: 0,
};

fn scene() -> Scene {
    Scene {
        chunks: 0b1,
        jobs: vec![(Job::Backup(0b1), 0)],
        starts: vec![0],
        budget: NONE,
        mutant: None,
        before: Vec::new(),
        drain_every: 1,
    }
}

/// States of the scenes that are too large for every run. Every night they are
/// explored to the end.
const NEAREST: usize = 1_500_000;

fn holds_nearby(name: &str, scene: Scene) {
    let nightly = std::env::var_os("LIFEBUOY_MODEL_DEPTH").is_some();
    let bound = if nightly {
        Bound::None
    } else {
        Bound::States(NEAREST)
    };
    holds_within(name, scene, bound);
}

fn holds(name: &str, scene: Scene) {
    holds_within(name, scene, Bound::None);
}

fn holds_within(name: &str, scene: Scene, bound: Bound) {
    let began = std::time::Instant::now();
    let explored = explore(scene, bound);
    println!(
        "{name}, {bound:?}: {} states, depth {}, {:.1} s",
        explored.states,
        explored.depth,
        began.elapsed().as_secs_f64()
    );
    assert!(
        explored.violation.is_none(),
        "{}",
        explored.violation.unwrap()
    );
    assert!(explored.states > 100);
}

/// A forget, a crash and a lost acknowledgement, at any moment each.
const FAULTS: Budget = Budget {
    forgets: 1,
    crashes: 1,
    lost: 1,
    ghosts: 0,
};

#[test]
fn one_writer_and_one_collector_leave_no_garbage() {
    holds(
        "1 writer, 1 collector, each state drained",
        Scene {
            budget: FAULTS,
            starts: vec![1],
            ..scene()
        },
    );
}

#[test]
fn two_writers_and_one_collector() {
    holds(
        "2 writers, 1 collector",
        Scene {
            budget: FAULTS,
            jobs: vec![(Job::Backup(0b1), 0), (Job::Backup(0b1), 0)],
            starts: vec![0],
            drain_every: 1000,
            ..scene()
        },
    );
}

#[test]
fn one_writer_and_two_collectors() {
    holds(
        "1 writer, 2 collectors",
        Scene {
            budget: Budget { forgets: 1, ..NONE },
            starts: vec![0, 0],
            drain_every: 1000,
            ..scene()
        },
    );
}

#[test]
fn a_reader_between_two_collections() {
    holds_nearby(
        "1 reader, 1 writer, 1 collector",
        Scene {
            budget: Budget { forgets: 1, ..NONE },
            jobs: vec![(Job::Read(session(0, 0)), 0), (Job::Backup(0b1), 0)],
            starts: vec![1],
            drain_every: 1000,
            ..scene()
        },
    );
}

#[test]
fn a_repack_beside_a_backup_with_two_packs() {
    holds_nearby(
        "1 repack, 1 writer of 2 packs, 1 collector",
        Scene {
            chunks: 0b11,
            budget: Budget { forgets: 1, ..NONE },
            jobs: vec![(Job::Repack(0b11), 0), (Job::Backup(0b101), 0)],
            starts: vec![1],
            drain_every: 1000,
            ..scene()
        },
    );
}

#[test]
fn a_part_and_its_parent() {
    holds_nearby(
        "1 part and its parent, 1 collector",
        Scene {
            budget: Budget {
                forgets: 1,
                crashes: 1,
                ..NONE
            },
            jobs: vec![
                (Job::Parent(0b100, session(2, 0)), 0),
                (Job::Part(0b11, session(1, 0)), 0),
            ],
            starts: vec![1],
            drain_every: 1000,
            ..scene()
        },
    );
}

#[test]
fn requests_that_land_again_over_three_generations() {
    holds_nearby(
        "1 writer with 2 late requests, 3 generations",
        Scene {
            budget: Budget {
                forgets: 1,
                crashes: 1,
                lost: 0,
                ghosts: 2,
            },
            starts: vec![2],
            drain_every: 1000,
            ..scene()
        },
    );
}

/// As deep as `LIFEBUOY_MODEL_DEPTH` says; every night deeper than in CI.
#[test]
fn three_writers_and_two_collectors_down_to_a_depth() {
    let depth = std::env::var("LIFEBUOY_MODEL_DEPTH").ok();
    let depth = depth.and_then(|depth| depth.parse().ok()).unwrap_or(9);
    let jobs = vec![(Job::Backup(0b1), 1); 3];
    let explored = explore(
        Scene {
            budget: FAULTS,
            jobs,
            starts: vec![1, 1],
            drain_every: 0,
            ..scene()
        },
        Bound::Depth(depth),
    );
    println!(
        "3 writers, 2 collectors: {} states down to depth {}",
        explored.states, explored.depth
    );
    assert!(explored.violation.is_none(), "{:?}", explored.violation);
}

/// Every mutant, in the smallest scene that finds it.
#[test]
fn every_mutant_is_found_out() {
    for mutant in Mutant::ALL {
        let explored = hunt(Scene {
            mutant: Some(mutant),
            drain_every: 0,
            ..scene_for(mutant)
        });
        println!("{mutant:?}: {} states", explored.states);
        assert!(explored.violation.is_some(), "{mutant:?} survives");
    }
}

/// The first writer reuses what the plan then condemns, and commits.
fn committed_after_the_plan(forgotten: SessionId) -> Vec<Event> {
    [
        vec![Event::Write(0); 6],
        vec![Event::Forget(forgotten)],
        vec![Event::Collect(0); 10],
        vec![Event::Write(0); 3],
    ]
    .concat()
}

fn scene_for(mutant: Mutant) -> Scene {
    let forgetful = Budget { forgets: 1, ..NONE };
    let backup = Job::Backup(0b1);
    let first = session(0, 0);
    match mutant {
        // A reader holds what was committed after the plan, and then forgotten.
        Mutant::HonoursLateForgets => Scene {
            jobs: vec![(backup, 0), (Job::Read(session(1, 0)), 0)],
            budget: Budget { forgets: 2, ..NONE },
            before: committed_after_the_plan(first),
            ..scene()
        },
        Mutant::NoPostCheck | Mutant::BirthIgnored => Scene {
            budget: forgetful,
            ..scene()
        },
        // Between two second marks a third session commits a copy of its own.
        Mutant::OwnSet => Scene {
            budget: forgetful,
            jobs: vec![(backup, 0), (backup, 0)],
            starts: vec![0, 0],
            before: committed_after_the_plan(first),
            ..scene()
        },
        Mutant::UncommittedDeltas => Scene {
            budget: forgetful,
            jobs: vec![(backup, 0), (backup, 0)],
            starts: vec![1],
            ..scene()
        },
        Mutant::NextBeforeRun | Mutant::NextBeforeFinal => Scene {
            budget: forgetful,
            starts: vec![1, 1],
            ..scene()
        },
        _ => Scene {
            budget: forgetful,
            starts: vec![1],
            ..scene()
        },
    }
}

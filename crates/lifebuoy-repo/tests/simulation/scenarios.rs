//! What must hold in every world, whatever the seed.

use std::sync::Arc;

use rand::{RngExt, rngs::StdRng};

use crate::{
    actors::{Actor, play},
    faults::Faults,
    process::Stage,
    seeds::Simulation,
    world::World,
};

/// Writers of several clusters back up, forget, fence, read and die.
async fn writers(world: Arc<World>) {
    let cast = Actor::cast(&mut world.fork_rng());
    let stage = Stage::new(world).await;
    play(&stage, &cast).await;
    stage.verify().await;
}

#[test]
fn writers_on_a_faulty_store_lose_nothing() {
    let simulation = Simulation {
        test: "writers_on_a_faulty_store_lose_nothing",
        share: 1,
        faults: Faults::swarm,
        body: writers,
    };
    simulation.run();
}

/// On one handle, one session reads the index while another learns of a commit
/// that is newer than what the first has listed. Nothing is missing for that.
#[test]
fn a_commit_while_the_index_is_listed_is_no_gap() {
    let simulation = Simulation {
        test: "a_commit_while_the_index_is_listed_is_no_gap",
        share: 4,
        faults: |_| Faults {
            latency_ms: 1..=2_000,
            ..Faults::none()
        },
        body: async |world: Arc<World>| {
            let cast = Actor::readers_and_writers(&mut world.fork_rng());
            let stage = Stage::new(world).await;
            play(&stage, &cast).await;
            stage.verify().await;
        },
    };
    simulation.run();
}

/// What is read is what was saved, or an error.
#[test]
fn damaged_bodies_are_never_taken_for_data() {
    let simulation = Simulation {
        test: "damaged_bodies_are_never_taken_for_data",
        share: 4,
        faults: |rng: &mut StdRng| Faults {
            damage: rng.random_range(1..100),
            ..Faults::swarm(rng)
        },
        body: writers,
    };
    simulation.run();
}

/// The protocol assumes that listings are true. Where they are not, it may
/// refuse to work, and it loses nothing.
#[test]
fn listings_that_lie_lose_nothing() {
    let simulation = Simulation {
        test: "listings_that_lie_lose_nothing",
        share: 4,
        faults: |rng: &mut StdRng| Faults {
            lie: rng.random_range(1..300),
            stale_ms: [100, 10_000, 3_600_000][rng.random_range(0..3)],
            ..Faults::swarm(rng)
        },
        body: writers,
    };
    simulation.run();
}

/// The simulation itself must find what it is there to find.
#[test]
fn a_store_that_overwrites_is_found_out() {
    let simulation = Simulation {
        test: "a_store_that_overwrites_is_found_out",
        share: 1,
        faults: |rng: &mut StdRng| Faults {
            overwrites: true,
            ..Faults::swarm(rng)
        },
        body: writers,
    };
    assert!(simulation.run_seeds(200).is_some());
}

/// Whatever can go wrong does go wrong in some world.
#[test]
fn the_swarm_reaches_all_faults() {
    let simulation = Simulation {
        test: "the_swarm_reaches_all_faults",
        share: 1,
        faults: Faults::swarm,
        body: writers,
    };
    let mut missing = vec![
        "Failed(Reset)",
        "Failed(TimedOut)",
        "Failed(Internal)",
        "Failed(SlowDown)",
        "Failed(TooManyRequests)",
        "Failed(Conflict)",
        "Failed(Exists)",
        "Failed(Precondition)",
        "done, Failed(",
        "Broken",
        "nothing, Dies",
        "done, Dies",
        "later, Dies",
        "was never sent",
        "late: ",
        "bytes, exists",
        "keys and more",
        "freezes",
        "Failed(Unreachable)",
        "Put beat/",
        "Put forget/",
        "is fenced",
        "is committed",
        "has forgotten",
        "does not know how",
        "cannot open",
        ".3 ",
    ];
    for seed in 0..300 {
        let world = simulation.run_seed(seed, 0).unwrap();
        let trace = world.trace(None, usize::MAX);
        missing.retain(|word| !trace.contains(word));
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// Also on the other thread and with the machine busy.
#[test]
fn the_same_seed_gives_the_same_run() {
    let simulation = Simulation {
        test: "the_same_seed_gives_the_same_run",
        share: 20,
        faults: |rng: &mut StdRng| Faults {
            damage: rng.random_range(0..20),
            lie: rng.random_range(0..20),
            ..Faults::swarm(rng)
        },
        body: writers,
    };
    for seed in 0..simulation.count() {
        let run = || {
            let world = simulation.run_seed(seed, 0).unwrap();
            world.trace(None, usize::MAX)
        };
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(run);
            let second = run();
            (first.join().unwrap(), second)
        });
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
}

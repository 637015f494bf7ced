//! The store for tests does what it says: each fault alone, and what it leaves.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join};
use lifebuoy_repo::{Error, Repository};
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, Result,
    memory::InMemory, path::Path,
};
use tokio::time::timeout;

use crate::{
    faults::{Blow, Effect, Faults},
    pristine,
    seeds::runtime,
    world::World,
};

const ALWAYS: u32 = 1000;
const SEEDS: u64 = 60;
/// Longer than a call that nothing holds up.
const LONG: Duration = Duration::from_secs(20);

fn in_world<T>(seed: u64, faults: Faults, body: impl AsyncFnOnce(Arc<World>) -> T) -> T {
    let runtime = runtime();
    runtime.block_on(async { body(World::new(seed, faults)).await })
}

async fn create(store: &dyn ObjectStore, key: &str, text: &str) -> Result<()> {
    let payload = PutPayload::from(Bytes::from(text.to_owned()));
    let options = PutOptions::from(PutMode::Create);
    store
        .put_opts(&Path::from(key), payload, options)
        .await
        .map(|_| ())
}

async fn read(store: &dyn ObjectStore, key: &str) -> Result<Bytes> {
    store.get(&Path::from(key)).await?.bytes().await
}

async fn keys(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<String>> {
    let prefix = Path::from(prefix);
    let listing = store.list(Some(&prefix));
    listing
        .map_ok(|meta| meta.location.to_string())
        .try_collect()
        .await
}

async fn exists(store: &InMemory, key: &str) -> bool {
    store.head(&Path::from(key)).await.is_ok()
}

#[test]
fn without_faults_it_is_a_store() {
    in_world(1, Faults::none(), async |world| {
        let (a, b) = (world.process("a"), world.process("b"));
        create(&a, "x/1", "one").await.unwrap();
        let again = create(&b, "x/1", "two").await;
        assert!(matches!(again, Err(StoreError::AlreadyExists { .. })));
        assert_eq!(read(&b, "x/1").await.unwrap(), "one");
        let range = b.get_range(&Path::from("x/1"), 1..3).await.unwrap();
        assert_eq!(range, "ne");
        let missing = read(&a, "x/2").await;
        assert!(matches!(missing, Err(StoreError::NotFound { .. })));
        create(&a, "xy", "not below x").await.unwrap();
        assert_eq!(keys(&a, "x").await.unwrap(), ["x/1"]);
        a.delete(&Path::from("x/1")).await.unwrap();
        a.delete(&Path::from("x/1")).await.unwrap();
        assert!(keys(&a, "x").await.unwrap().is_empty());
        assert_eq!((world.calls("a"), world.calls("b")), (7, 3));
    });
}

/// Two tasks at one time: which comes first depends on the seed, and on it alone.
#[test]
fn the_order_of_concurrent_calls_depends_on_the_seed() {
    let trace = |seed| {
        in_world(seed, Faults::none(), async |world| {
            let (a, b) = (world.process("a"), world.process("b"));
            join(create(&a, "a", "a"), create(&b, "b", "b"))
                .await
                .0
                .unwrap();
            world.trace(None, 10)
        })
    };
    let a_first = |seed| trace(seed).find(" a ").unwrap() < trace(seed).find(" b ").unwrap();
    let orders: BTreeSet<bool> = (0..20).map(a_first).collect();
    assert_eq!(orders.len(), 2);
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

#[test]
fn a_failed_call_has_no_effect_and_a_lost_answer_has() {
    for (lose, there) in [(0, false), (ALWAYS, true)] {
        let faults = Faults {
            fail: ALWAYS - lose,
            lose,
            ..Faults::none()
        };
        for seed in 0..20 {
            in_world(seed, faults.clone(), async |world| {
                let store = world.process("a");
                create(&store, "x", "x").await.unwrap_err();
                assert_eq!(exists(&world.inner(), "x").await, there);
            });
        }
    }
}

/// The real errors of real stores: the library tells them apart.
#[test]
fn failures_are_classified_as_those_of_real_stores() {
    let opened = |seed, faults: Faults| {
        in_world(seed, Faults::none(), async |world| {
            pristine::place(&world.inner()).await;
            world.set_faults(faults);
            Repository::open(world.process("a"), &pristine::passphrase()).await
        })
    };
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let throttled = Faults {
            throttle: ALWAYS,
            ..Faults::none()
        };
        let error = opened(seed, throttled).unwrap_err();
        assert!(matches!(error, Error::Throttled { .. }), "{error:?}");
        let failing = Faults {
            fail: ALWAYS,
            ..Faults::none()
        };
        seen.insert(match opened(seed, failing).unwrap_err() {
            Error::Unreachable { .. } => "unreachable",
            Error::Store { .. } => "store",
            error => panic!("{error:?}"),
        });
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_late_put_comes_after_its_caller_gave_up() {
    let faults = Faults {
        late: ALWAYS,
        late_ms: 60_000..=120_000,
        ..Faults::none()
    };
    in_world(1, faults, async |world| {
        let store = world.process("a");
        create(&store, "x", "x").await.unwrap_err();
        world.crash("a");
        world.pause(Duration::from_secs(50)).await;
        assert!(!exists(&world.inner(), "x").await);
        world.pause(Duration::from_secs(80)).await;
        assert!(exists(&world.inner(), "x").await);
    });
}

#[test]
fn a_late_put_does_not_replace_what_is_there() {
    let faults = Faults {
        late: ALWAYS,
        ..Faults::none()
    };
    in_world(1, faults, async |world| {
        create(&world.process("a"), "x", "late").await.unwrap_err();
        create(&world.inner(), "x", "first").await.unwrap();
        world.quiet().await;
        assert_eq!(read(&world.inner(), "x").await.unwrap(), "first");
        assert!(world.trace(Some("a"), 9).contains("late: 4 bytes, exists"));
    });
}

#[test]
fn a_conflict_is_with_nobody_or_with_oneself() {
    let faults = Faults {
        conflict: ALWAYS,
        ..Faults::none()
    };
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        in_world(seed, faults.clone(), async |world| {
            let error = create(&world.process("a"), "x", "x").await.unwrap_err();
            let told = match error {
                StoreError::AlreadyExists { .. } => "exists",
                StoreError::Precondition { .. } => "precondition",
                error => panic!("{error:?}"),
            };
            seen.insert((told, exists(&world.inner(), "x").await));
        });
    }
    let all = [("exists", false), ("exists", true), ("precondition", false)];
    assert_eq!(seen, all.into());
}

/// What [`torn_listing`] may see of "k/a", which comes first and goes first, and
/// of "k/z", which comes later and goes later.
fn listings(faults: &Faults) -> BTreeSet<Vec<String>> {
    let one = |seed| {
        in_world(seed, faults.clone(), async |world| {
            let inner = world.inner();
            for n in 0..8 {
                create(&inner, &format!("k/m{n}"), "").await.unwrap();
            }
            let (reader, writer) = (world.process("r"), world.process("w"));
            let change = async {
                create(&writer, "k/a", "").await.unwrap();
                create(&writer, "k/z", "").await.unwrap();
            };
            let (listed, ()) = join(keys(&reader, "k"), change).await;
            let mut listed = listed.unwrap();
            listed.retain(|key| !key.starts_with("k/m"));
            listed
        })
    };
    (0..SEEDS * 4).map(one).collect()
}

#[test]
fn the_pages_of_a_listing_are_apart() {
    let whole = Faults {
        pages: false,
        latency_ms: 1..=100,
        ..Faults::none()
    };
    let apart = Faults {
        pages: true,
        ..whole.clone()
    };
    let torn = vec!["k/z".to_owned()];
    assert!(!listings(&whole).contains(&torn));
    assert!(listings(&apart).contains(&torn), "z came after a");
    assert!(listings(&apart).len() >= 3, "nothing, a, z, or both");
}

#[test]
fn a_listing_can_fail_between_its_pages() {
    let faults = Faults {
        fail: 300,
        ..Faults::none()
    };
    let broken = (0..SEEDS).filter(|seed| {
        in_world(*seed, faults.clone(), async |world| {
            for n in 0..8 {
                create(&world.inner(), &format!("k/{n}"), "").await.unwrap();
            }
            let store = world.process("a");
            let items: Vec<_> = store.list(None).collect().await;
            let failed = items.iter().filter(|item| item.is_err()).count();
            assert!(failed <= 1 && (failed == 1 || items.len() == 8));
            failed == 1 && items.len() > 1
        })
    });
    assert!(broken.count() > 0);
}

#[test]
fn listings_lie_only_where_it_was_asked_for() {
    let listed = |seed, lie| {
        let faults = Faults {
            lie,
            ..Faults::none()
        };
        in_world(seed, faults, async |world| {
            let store = world.process("a");
            for n in 0..4 {
                create(&store, &format!("k/{n}"), "").await.unwrap();
            }
            world.pause(Duration::from_secs(120)).await;
            create(&store, "k/4", "").await.unwrap();
            store.delete(&Path::from("k/0")).await.unwrap();
            keys(&store, "k").await.unwrap()
        })
    };
    let (mut short, mut empty, mut stale) = (false, false, false);
    for seed in 0..SEEDS {
        assert_eq!(listed(seed, 0), ["k/1", "k/2", "k/3", "k/4"]);
        let lie = listed(seed, ALWAYS);
        empty |= lie.is_empty();
        stale |= lie == ["k/0", "k/1", "k/2", "k/3"];
        short |= !lie.is_empty() && lie.len() < 4 && lie[0] == "k/1";
    }
    assert!(short && empty && stale, "{short} {empty} {stale}");
}

#[test]
fn damage_changes_bytes_only_where_it_was_asked_for() {
    let text = "what was stored";
    let (mut flipped, mut truncated) = (false, false);
    for seed in 0..SEEDS {
        let faults = Faults {
            damage: ALWAYS,
            ..Faults::none()
        };
        in_world(seed, faults, async |world| {
            create(&world.inner(), "x", text).await.unwrap();
            let read = read(&world.process("a"), "x").await.unwrap();
            assert_ne!(read, text);
            flipped |= read.len() == text.len();
            truncated |= read.len() < text.len();
        });
    }
    assert!(flipped && truncated);
}

#[test]
fn a_body_can_break_off() {
    let faults = Faults {
        fail: ALWAYS,
        ..Faults::none()
    };
    let broken = (0..SEEDS).filter(|seed| {
        in_world(*seed, faults.clone(), async |world| {
            create(&world.inner(), "x", "some text").await.unwrap();
            let store = world.process("a");
            match store.get(&Path::from("x")).await {
                Ok(found) => found.bytes().await.is_err(),
                Err(_) => false,
            }
        })
    });
    assert!(broken.count() > 0);
}

#[test]
fn a_locked_object_is_deleted_when_its_time_has_come() {
    let faults = Faults {
        lock_ms: 60_000,
        ..Faults::none()
    };
    in_world(1, faults, async |world| {
        let store = world.process("a");
        create(&store, "x", "x").await.unwrap();
        let refused = store.delete(&Path::from("x")).await;
        assert!(matches!(refused, Err(StoreError::PermissionDenied { .. })));
        assert!(exists(&world.inner(), "x").await);
        world.pause(Duration::from_secs(61)).await;
        store.delete(&Path::from("x")).await.unwrap();
        assert!(!exists(&world.inner(), "x").await);
    });
}

#[test]
fn stores_differ_in_deleting_what_is_not_there() {
    for needs in [false, true] {
        let faults = Faults {
            delete_needs_object: needs,
            ..Faults::none()
        };
        in_world(1, faults, async |world| {
            let deleted = world.process("a").delete(&Path::from("x")).await;
            let missing = matches!(deleted, Err(StoreError::NotFound { .. }));
            assert_eq!(missing, needs, "{deleted:?}");
        });
    }
}

#[test]
fn a_process_dies_in_the_call_that_was_named_and_others_go_on() {
    for effect in [Effect::Never, Effect::Now, Effect::Later(600_000)] {
        in_world(1, Faults::none(), async |world| {
            let (a, b) = (world.process("a"), world.process("b"));
            world.strike_at("a", 1, Blow::Dies(effect));
            create(&a, "0", "").await.unwrap();
            assert!(!world.is_dead("a"));
            let hangs = timeout(LONG, create(&a, "1", "")).await;
            assert!(hangs.is_err() && world.is_dead("a"));
            assert!(timeout(LONG, read(&a, "0")).await.is_err());
            assert!(timeout(LONG, keys(&a, "")).await.is_err());
            let gone = timeout(LONG, a.delete(&Path::from("0"))).await;
            assert!(gone.is_err());
            assert_eq!(exists(&world.inner(), "1").await, effect == Effect::Now);
            world.pause(Duration::from_secs(600)).await;
            assert_eq!(exists(&world.inner(), "1").await, effect != Effect::Never);
            create(&b, "2", "").await.unwrap();
            world.death("a").await;
        });
    }
}

/// What was under way when a process died may or may not come to pass.
#[test]
fn a_request_outlives_its_process_by_chance() {
    let there: BTreeSet<bool> = (0..20)
        .map(|seed| {
            in_world(seed, Faults::none(), async |world| {
                let store = world.process("a");
                let put = create(&store, "x", "");
                let crash = async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    world.crash("a");
                };
                let hangs = timeout(LONG, join(put, crash)).await;
                assert!(hangs.is_err());
                exists(&world.inner(), "x").await
            })
        })
        .collect();
    assert_eq!(there.len(), 2);
}

/// A caller that gives up on its own, as a time-out does, recalls nothing.
#[test]
fn a_request_whose_caller_is_dropped_is_carried_out() {
    in_world(1, Faults::none(), async |world| {
        let store = world.process("a");
        let put = timeout(Duration::ZERO, create(&store, "x", "")).await;
        assert!(put.is_err());
        world.quiet().await;
        assert!(exists(&world.inner(), "x").await);
    });
}

#[test]
fn a_frozen_process_goes_on_later_and_others_meanwhile() {
    let before = (0..20).filter(|seed| {
        in_world(*seed, Faults::none(), async |world| {
            let (a, b) = (world.process("a"), world.process("b"));
            world.freeze("a", Duration::from_secs(3600));
            let meanwhile = async {
                create(&b, "b", "").await.unwrap();
                world.pause(Duration::from_secs(1800)).await;
                exists(&world.inner(), "a").await
            };
            let (created, before) = join(create(&a, "a", ""), meanwhile).await;
            created.unwrap();
            assert!(world.now_ms() >= 3_600_000);
            assert!(exists(&world.inner(), "a").await);
            before
        })
    });
    let before = before.count();
    assert!(
        (1..20).contains(&before),
        "sent before the freeze: {before}"
    );
}

#[test]
fn a_process_freezes_in_the_call_that_was_named() {
    for sent in [false, true] {
        in_world(1, Faults::none(), async |world| {
            let store = world.process("a");
            let ms = 3_600_000;
            world.strike_at("a", 1, Blow::Freezes { ms, sent });
            create(&store, "0", "").await.unwrap();
            assert!(world.now_ms() < 1_000);
            let meanwhile = async {
                world.struck("a").await;
                world.pause(Duration::from_secs(60)).await;
                exists(&world.inner(), "1").await
            };
            let (created, meanwhile) = join(create(&store, "1", ""), meanwhile).await;
            created.unwrap();
            assert_eq!(meanwhile, sent);
            assert!(world.now_ms() >= ms && exists(&world.inner(), "1").await);
        });
    }
}

#[test]
fn a_process_that_is_cut_off_is_told_so_and_others_are_not() {
    let by_chance = Faults {
        outage: ALWAYS,
        outage_ms: 60_000..=60_000,
        ..Faults::none()
    };
    for faults in [Faults::none(), by_chance] {
        in_world(1, faults, async |world| {
            let (a, b) = (world.process("a"), world.process("b"));
            if world.faults().outage == 0 {
                world.cut_off("a", Duration::from_secs(60));
            } else {
                read(&a, "x").await.unwrap_err();
                world.set_faults(Faults::none());
            }
            create(&a, "x", "").await.unwrap_err();
            keys(&a, "").await.unwrap_err();
            create(&b, "y", "").await.unwrap();
            world.pause(Duration::from_secs(61)).await;
            assert_eq!(keys(&a, "").await.unwrap(), ["y"]);
        });
    }
}

#[test]
fn freezes_and_crashes_come_by_chance_too() {
    let range: RangeInclusive<u64> = 100_000..=200_000;
    let faults = Faults {
        freeze: ALWAYS,
        freeze_ms: range.clone(),
        ..Faults::none()
    };
    in_world(1, faults, async |world| {
        create(&world.process("a"), "x", "").await.unwrap();
        assert!(range.contains(&world.now_ms()));
    });
    let faults = Faults {
        crash: ALWAYS,
        ..Faults::none()
    };
    in_world(1, faults, async |world| {
        let put = timeout(LONG, create(&world.process("a"), "x", "")).await;
        assert!(put.is_err() && world.is_dead("a"));
    });
}

#[test]
fn the_trace_shows_what_a_process_asked_and_what_became_of_it() {
    let faults = Faults {
        lose: ALWAYS,
        ..Faults::none()
    };
    in_world(7, faults, async |world| {
        assert_eq!(world.seed(), 7);
        let (a, b) = (world.process("a"), world.process("b"));
        create(&a, "some/key", "12345").await.unwrap_err();
        keys(&b, "some").await.unwrap();
        let trace = world.trace(Some("a"), 10);
        let line = trace.trim();
        assert!(
            line.contains("a      #0 Put some/key: 5 bytes, done, Failed("),
            "{line}"
        );
        assert_eq!(world.trace(None, 10).lines().count(), 2);
        assert!(world.trace(None, 1).starts_with("… 1 earlier lines\n"));
    });
}

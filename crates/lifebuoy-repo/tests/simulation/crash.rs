//! A blow at every call of a story. The process dies: before the effect, after
//! it, or with an effect that comes when others have long cleaned up. Or it
//! freezes, others take over, and it goes on as if nothing had been. Verifies
//! after each.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{Either, select},
};

use crate::{
    faults::{Blow, Effect, Faults},
    process::{Process, Stage},
    seeds::runtime,
    world::World,
};

/// The process that is struck, and the one that comes after it.
pub(crate) const VICTIM: &str = "victim";
pub(crate) const SUCCESSOR: &str = "successor";
pub(crate) const CLUSTER: &str = "cluster";

/// Later than all that a successor does: thirty days.
const LATE_MS: u64 = 30 * 24 * 3_600_000;
/// Calls of one story at most: one that makes more does not end.
const CALLS_MAX: usize = 2_000;

const BLOWS: [Blow; 5] = [
    Blow::Dies(Effect::Never),
    Blow::Dies(Effect::Now),
    Blow::Dies(Effect::Later(LATE_MS)),
    Blow::Freezes {
        ms: LATE_MS,
        sent: false,
    },
    Blow::Freezes {
        ms: LATE_MS,
        sent: true,
    },
];

/// Something that a process does until it is struck.
pub(crate) trait Story {
    /// What is there before.
    async fn prepare(&self, stage: &Stage);

    /// What the victim does. It is dropped where it dies.
    async fn act(&self, victim: &mut Process<'_>);

    /// What a new process of the same cluster does then, if it is more than to
    /// find out how the sessions of the victim ended.
    async fn recover(&self, successor: &mut Process<'_>);
}

/// Tells the story once in full, and then once for each call and each blow.
/// Returns how many calls there were.
pub(crate) fn crash_at_every_call(story: &impl Story) -> usize {
    let calls = tell(story, None);
    assert!((1..CALLS_MAX).contains(&calls), "{calls} calls");
    for number in 0..calls {
        for blow in BLOWS {
            tell(story, Some((number, blow)));
        }
    }
    calls
}

/// Tells the story with a blow, or in full, and verifies. Returns the calls
/// that the victim made while it acted.
fn tell(story: &impl Story, blow: Option<(usize, Blow)>) -> usize {
    let runtime = runtime();
    let world = {
        let _entered = runtime.enter();
        World::new(0, Faults::none())
    };
    let shown = ShownOnPanic(Arc::clone(&world), blow);
    let calls = runtime.block_on(async {
        let stage = Stage::new(Arc::clone(&world)).await;
        story.prepare(&stage).await;
        let mut victim = stage.enter(VICTIM, CLUSTER).await.unwrap();
        let before = world.calls(VICTIM);
        if let Some((number, blow)) = blow {
            world.strike_at(VICTIM, before + number, blow);
        }
        let act = story.act(&mut victim).boxed_local();
        let unfinished = match select(act, world.struck(VICTIM).boxed_local()).await {
            Either::Left(_) => None,
            // The dead does nothing more; the frozen does not know that it is.
            Either::Right((_, act)) => (!world.is_dead(VICTIM)).then_some(act),
        };
        let calls = world.calls(VICTIM) - before;

        world.pause(Duration::from_secs(1)).await;
        let mut successor = stage.enter(SUCCESSOR, CLUSTER).await.unwrap();
        successor.settle_all().await;
        story.recover(&mut successor).await;
        if let Some(act) = unfinished {
            stage.verify_now().await;
            act.await;
        }
        stage.verify().await;
        calls
    });
    drop(shown);
    calls
}

/// Says where it was when a story goes wrong.
struct ShownOnPanic(Arc<World>, Option<(usize, Blow)>);

impl Drop for ShownOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(world, blow) = self;
            #[allow(clippy::print_stderr, reason = "shown when a test fails")]
            {
                eprintln!("blow: {blow:?}\n{}", world.trace(None, 200));
            }
        }
    }
}

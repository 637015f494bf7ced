//! The world that simulated processes share: one store, one clock, one source
//! of chance. Never looks at a wall clock or at anything that depends on threads.
//!
//! The library hands work to blocking threads, so tasks that are ready at one
//! moment may run in any order. A run depends on the seed alone because of this:
//!
//! - tokio's paused clock goes on only when all is idle, blocking threads included;
//! - calls that come at one moment are sorted before chance is asked for their
//!   fate, at the next odd millisecond;
//! - each effect, answer and end of a pause has an even millisecond of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::future::BoxFuture;
use object_store::{ObjectStore, Result, memory::InMemory, path::Path};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};

use crate::{
    faults::{Answer, Blow, Effect, Fate, Faults, Op},
    store::SimStore,
    trace::Trace,
};

/// Longer than the library waits before it tries again on its own.
const QUIET_MS: u64 = 30_000;

/// What an effect gives: the answer, and a word on it for the trace.
pub(crate) type Done<T> = (Result<T>, String);

/// A store, a clock and chance, shared by processes.
pub(crate) struct World {
    seed: u64,
    epoch: Instant,
    inner: Arc<InMemory>,
    state: Mutex<State>,
}

pub(crate) struct State {
    rng: StdRng,
    pub(crate) faults: Faults,
    processes: BTreeMap<Arc<str>, Condition>,
    arrivals: Vec<Arrival>,
    turns: BTreeMap<u64, Turn>,
    tickets: u64,
    /// Moments that belong to one event each.
    taken: BTreeSet<u64>,
    /// When each object was created, for stale listings and locks.
    pub(crate) created_ms: BTreeMap<Path, u64>,
    pub(crate) deleted: Vec<Deleted>,
    pub(crate) overwritten: Vec<Path>,
    trace: Trace,
}

/// An object that is no more.
pub(crate) struct Deleted {
    pub(crate) meta: object_store::ObjectMeta,
    pub(crate) created_ms: u64,
    pub(crate) deleted_ms: u64,
}

struct Condition {
    calls: usize,
    blow: Option<(usize, Blow)>,
    dead: watch::Sender<bool>,
    /// It is dead, or was frozen at least once.
    struck: watch::Sender<bool>,
    frozen_until_ms: u64,
    cut_off_until_ms: u64,
}

/// What a process asks of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) process: Arc<str>,
    pub(crate) op: Op,
    pub(crate) key: String,
}

struct Arrival {
    request: Request,
    at_ms: u64,
    ticket: u64,
}

#[derive(Clone, Copy)]
struct Turn {
    number: usize,
    due_ms: u64,
    fate: Fate,
}

impl World {
    /// A world with an empty store. Needs a runtime with a paused clock.
    pub(crate) fn new(seed: u64, faults: Faults) -> Arc<Self> {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            faults,
            processes: BTreeMap::new(),
            arrivals: Vec::new(),
            turns: BTreeMap::new(),
            tickets: 0,
            taken: BTreeSet::new(),
            created_ms: BTreeMap::new(),
            deleted: Vec::new(),
            overwritten: Vec::new(),
            trace: Trace::default(),
        };
        Arc::new(Self {
            seed,
            epoch: Instant::now(),
            inner: Arc::default(),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The store without faults, delays and processes: for preparing and verifying.
    pub(crate) fn inner(&self) -> Arc<InMemory> {
        Arc::clone(&self.inner)
    }

    /// The store as a process sees it. A name is one process: it dies once.
    pub(crate) fn process(self: &Arc<Self>, name: &str) -> Arc<dyn ObjectStore> {
        let name: Arc<str> = name.into();
        let condition = Condition {
            calls: 0,
            blow: None,
            dead: watch::Sender::new(false),
            struck: watch::Sender::new(false),
            frozen_until_ms: 0,
            cut_off_until_ms: 0,
        };
        self.state()
            .processes
            .entry(Arc::clone(&name))
            .or_insert(condition);
        Arc::new(SimStore::new(Arc::clone(self), name))
    }

    /// The process dies now. Requests that are under way may still have an effect.
    pub(crate) fn crash(&self, name: &str) {
        self.condition(name, |condition| {
            condition.dead.send_replace(true);
            condition.struck.send_replace(true);
        });
        self.note(name, "dies");
    }

    /// The process dies or freezes in its call `number`, counted from 0.
    pub(crate) fn strike_at(&self, name: &str, number: usize, blow: Blow) {
        self.condition(name, |condition| condition.blow = Some((number, blow)));
    }

    /// Ends when the process dies.
    pub(crate) async fn death(&self, name: &str) {
        let dead = self.condition(name, |condition| condition.dead.subscribe());
        turns_true(dead).await;
    }

    /// Ends when the process dies or freezes for the first time.
    pub(crate) async fn struck(&self, name: &str) {
        let struck = self.condition(name, |condition| condition.struck.subscribe());
        turns_true(struck).await;
    }

    pub(crate) fn is_dead(&self, name: &str) -> bool {
        self.condition(name, |condition| *condition.dead.borrow())
    }

    /// The process does nothing for so long, and then goes on as if nothing was.
    pub(crate) fn freeze(&self, name: &str, time: Duration) {
        let until = self.now_ms() + millis(time);
        self.condition(name, |condition| {
            condition.frozen_until_ms = condition.frozen_until_ms.max(until);
            condition.struck.send_replace(true);
        });
        self.note(name, &format!("freezes for {} s", time.as_secs()));
    }

    /// The process cannot reach the store for so long, and is told so.
    pub(crate) fn cut_off(&self, name: &str, time: Duration) {
        let until = self.now_ms() + millis(time);
        self.condition(name, |condition| {
            condition.cut_off_until_ms = condition.cut_off_until_ms.max(until);
        });
        self.note(name, &format!("is cut off for {} s", time.as_secs()));
    }

    /// How many requests the process has made. Each page of a listing is one.
    pub(crate) fn calls(&self, name: &str) -> usize {
        self.condition(name, |condition| condition.calls)
    }

    /// Other faults from now on, as for a drain without any.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Waits until all requests have had their effect, however late, and nobody
    /// makes new ones.
    pub(crate) async fn quiet(&self) {
        loop {
            let last = self.state().taken.last().copied();
            let now = self.now_ms();
            let silent_ms = (last.unwrap_or(0).max(now) + QUIET_MS) | 1;
            self.sleep_to(silent_ms).await;
            if self
                .state()
                .taken
                .last()
                .is_none_or(|last| *last <= silent_ms - QUIET_MS)
            {
                return;
            }
        }
    }

    /// Chance of its own for a process: what others do does not change it.
    pub(crate) fn fork_rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.state().rng.random())
    }

    pub(crate) fn faults(&self) -> Faults {
        self.state().faults.clone()
    }

    /// Milliseconds since the world began.
    pub(crate) fn now_ms(&self) -> u64 {
        millis(Instant::now() - self.epoch)
    }

    /// Sleeps, and wakes at a moment when nothing else happens.
    pub(crate) async fn pause(&self, time: Duration) {
        let until = self.now_ms() + millis(time);
        self.sleep_to(self.reserve(until)).await;
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&self, process: &str, text: &str) {
        let now = self.now_ms();
        self.state().trace.add(now, &process.into(), text.into());
    }

    /// The last lines of the trace, of one process or of all.
    pub(crate) fn trace(&self, process: Option<&str>, lines: usize) -> String {
        self.state().trace.render(process, lines)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn condition<T>(&self, name: &str, look: impl FnOnce(&mut Condition) -> T) -> T {
        let mut state = self.state();
        let condition = state.processes.get_mut(name);
        look(condition.unwrap_or_else(|| panic!("there is no process {name:?}")))
    }

    async fn sleep_to(&self, at_ms: u64) {
        sleep_until(self.epoch + Duration::from_millis(at_ms)).await;
    }

    fn reserve(&self, at_ms: u64) -> u64 {
        let now = self.now_ms();
        self.state().reserve(now, at_ms)
    }

    /// Makes a request: its effect comes at its time whatever becomes of the
    /// caller; the answer comes if the process lives to hear it.
    pub(crate) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        request: Request,
        effect: impl FnOnce(Arc<Self>, Fate) -> BoxFuture<'static, Done<T>> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        tokio::spawn(Arc::clone(self).carry_out(request, effect, answer));
        match answered.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    }

    /// To drop `answer` unused is the silence that a dead process hears.
    async fn carry_out<T: Send + 'static>(
        self: Arc<Self>,
        request: Request,
        effect: impl FnOnce(Arc<Self>, Fate) -> BoxFuture<'static, Done<T>> + Send + 'static,
        answer: oneshot::Sender<Result<T>>,
    ) {
        let Turn { number, fate, .. } = self.turn(&request).await;
        let Request { process, op, key } = &request;
        let what = format!("#{number} {op:?} {key}");
        let say = |text: &str| self.note(process, &format!("{what}: {text}"));
        let sent = fate.sent;
        if self.is_dead(process) && !sent {
            return say("was never sent");
        }
        if let Some(ms) = fate.freeze_ms {
            self.freeze(process, Duration::from_millis(ms));
        }
        if !sent {
            self.thaw(process).await;
            if self.is_dead(process) {
                return say("was never sent");
            }
        }
        let told = match fate.effect {
            Effect::Never => None,
            Effect::Now => {
                let (told, word) = effect(Arc::clone(&self), fate).await;
                say(&format!("{word}{}", fate.word()));
                Some(told)
            }
            Effect::Later(ms) => {
                say(&format!("comes {ms} ms later{}", fate.word()));
                let at = self.reserve(self.now_ms() + ms);
                tokio::spawn(Arc::clone(&self).later(request.clone(), number, at, fate, effect));
                None
            }
        };
        if told.is_none() && fate.effect == Effect::Never {
            say(&format!("nothing{}", fate.word()));
        }
        if fate.answer == Answer::Dies && !self.is_dead(process) {
            self.crash(process);
        }
        self.thaw(process).await;
        if self.is_dead(process) {
            return;
        }
        let told = match (fate.answer, told) {
            (Answer::Failed(failure), _) => failure.error(key),
            (_, Some(told)) => told,
            (_, None) => return,
        };
        let _ = answer.send(told);
    }

    async fn later<T>(
        self: Arc<Self>,
        request: Request,
        number: usize,
        at_ms: u64,
        fate: Fate,
        effect: impl FnOnce(Arc<Self>, Fate) -> BoxFuture<'static, Done<T>>,
    ) {
        self.sleep_to(at_ms).await;
        let (_, word) = effect(Arc::clone(&self), fate).await;
        let Request { process, op, key } = request;
        self.note(&process, &format!("#{number} {op:?} {key}, late: {word}"));
    }

    /// Waits for the fate of a request, and then for its moment.
    async fn turn(&self, request: &Request) -> Turn {
        let at_ms = self.now_ms();
        let ticket = self.state().arrive(request.clone(), at_ms);
        // Odd and later: by then all that came at this moment is known.
        self.sleep_to(at_ms + 1 + at_ms % 2).await;
        let now = self.now_ms();
        let turn = self.state().seat(now, ticket);
        self.sleep_to(turn.due_ms).await;
        turn
    }

    async fn thaw(&self, process: &str) {
        loop {
            let until = self.condition(process, |condition| condition.frozen_until_ms);
            if until <= self.now_ms() {
                return;
            }
            self.sleep_to(self.reserve(until)).await;
        }
    }
}

impl State {
    fn arrive(&mut self, request: Request, at_ms: u64) -> u64 {
        let ticket = self.tickets;
        self.tickets += 1;
        self.arrivals.push(Arrival {
            request,
            at_ms,
            ticket,
        });
        ticket
    }

    /// The turn of one request; draws those of all that came before now.
    fn seat(&mut self, now: u64, ticket: u64) -> Turn {
        if let Some(turn) = self.turns.remove(&ticket) {
            return turn;
        }
        let arrivals = std::mem::take(&mut self.arrivals).into_iter();
        let (mut ready, new): (Vec<_>, Vec<_>) = arrivals.partition(|a| a.at_ms < now);
        self.arrivals = new;
        ready.sort_by(|a, b| a.request.cmp(&b.request));
        for Arrival {
            request, ticket, ..
        } in ready
        {
            let turn = self.draw(now, &request);
            self.turns.insert(ticket, turn);
        }
        self.turns.remove(&ticket).unwrap()
    }

    fn draw(&mut self, now: u64, request: &Request) -> Turn {
        let mut fate = self.faults.fate(request.op, &mut self.rng);
        let condition = self.processes.get_mut(&request.process).unwrap();
        let number = condition.calls;
        condition.calls += 1;
        if let Some(ms) = fate.outage_ms {
            condition.cut_off_until_ms = condition.cut_off_until_ms.max(now + ms);
        }
        if now < condition.cut_off_until_ms && fate.answer != Answer::Dies {
            fate = fate.cut_off();
        }
        if let Some((at, blow)) = condition.blow
            && at == number
        {
            fate = fate.struck(blow);
        }
        let due_ms = self.reserve(now, now + fate.latency_ms);
        Turn {
            number,
            due_ms,
            fate,
        }
    }

    /// An even moment that nothing else has.
    fn reserve(&mut self, now: u64, at_ms: u64) -> u64 {
        while self.taken.first().is_some_and(|first| *first < now) {
            self.taken.pop_first();
        }
        let mut at = at_ms.max(now + 1).next_multiple_of(2);
        while !self.taken.insert(at) {
            at += 2;
        }
        at
    }
}

async fn turns_true(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|flag| *flag).await.is_err() {
        pending::<()>().await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({})", self.seed)
    }
}

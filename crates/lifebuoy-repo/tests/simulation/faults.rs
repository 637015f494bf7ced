//! What can go wrong, how often, and the fate of one call. Pure: it asks the
//! given chance and changes nothing.

use std::ops::RangeInclusive;

use rand::{RngExt, rngs::StdRng};

use crate::failure::Failure;

/// What is asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Put,
    Get,
    List,
    Delete,
}

/// Whether a call does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Never,
    Now,
    /// So many milliseconds after its caller was answered or died.
    Later(u64),
}

/// What the caller hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Truth,
    Failed(Failure),
    /// The body of a read breaks off with an error.
    Broken,
    /// The process dies in this call.
    Dies,
}

/// What befalls a process in a call that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    Dies(Effect),
    /// It freezes, before its request was sent or before it hears the answer.
    Freezes {
        ms: u64,
        sent: bool,
    },
}

/// How a listing is wrong without saying so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Its end is missing.
    Short,
    /// Nothing is there.
    Empty,
    /// As it was a while ago.
    Stale,
}

/// How the bytes that were read are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Truncated,
    Flipped,
}

/// All that chance decides about one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) latency_ms: u64,
    pub(crate) effect: Effect,
    pub(crate) answer: Answer,
    /// The process freezes in this call for so long.
    pub(crate) freeze_ms: Option<u64>,
    /// From this call on the process cannot reach the store for so long.
    pub(crate) outage_ms: Option<u64>,
    pub(crate) lie: Option<Lie>,
    pub(crate) damage: Option<Damage>,
    /// Whether the request of a process that freezes or dies meanwhile goes out.
    pub(crate) sent: bool,
    /// Decides the rest: where to cut, what to flip.
    pub(crate) dice: u64,
}

impl Fate {
    /// This fate, but for what befalls the process.
    pub(crate) fn struck(self, blow: Blow) -> Self {
        match blow {
            Blow::Dies(effect) => Self {
                effect,
                answer: Answer::Dies,
                ..self
            },
            Blow::Freezes { ms, sent } => Self {
                freeze_ms: Some(ms),
                sent,
                ..self
            },
        }
    }

    /// This fate in a process that cannot reach the store.
    pub(crate) fn cut_off(self) -> Self {
        Self {
            effect: Effect::Never,
            answer: Answer::Failed(Failure::Unreachable),
            ..self
        }
    }

    /// How it differs from what one hopes for, for the trace.
    pub(crate) fn word(&self) -> String {
        let mut word = String::new();
        if self.answer != Answer::Truth {
            word.push_str(&format!(", {:?}", self.answer));
        }
        if let Some(lie) = self.lie {
            word.push_str(&format!(", {lie:?}"));
        }
        if let Some(damage) = self.damage {
            word.push_str(&format!(", {damage:?}"));
        }
        word
    }
}

/// How often what goes wrong, in thousandths of the calls that it can hit.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// How long a call takes. Most are fast, and some take long enough for others
    /// to do much meanwhile.
    pub(crate) latency_ms: RangeInclusive<u64>,
    /// Reset, time-out or 500, without an effect.
    pub(crate) fail: u32,
    /// 503 or 429, without an effect.
    pub(crate) throttle: u32,
    /// The effect is there, the answer is lost.
    pub(crate) lose: u32,
    /// The caller gives up and the effect comes later.
    pub(crate) late: u32,
    pub(crate) late_ms: RangeInclusive<u64>,
    /// 409 or 412 for a create that met nobody, or only itself.
    pub(crate) conflict: u32,
    /// The process dies in the call, with or without an effect.
    pub(crate) crash: u32,
    /// The process freezes in the call.
    pub(crate) freeze: u32,
    pub(crate) freeze_ms: RangeInclusive<u64>,
    /// The process is cut off from the store, from the call on.
    pub(crate) outage: u32,
    pub(crate) outage_ms: RangeInclusive<u64>,
    /// Listings come in pages that are read apart from one another.
    pub(crate) pages: bool,
    /// Listings that are wrong and say nothing. The protocol assumes that there
    /// are none, so this is never part of a swarm.
    pub(crate) lie: u32,
    /// How old a stale listing is.
    pub(crate) stale_ms: u64,
    /// Reads that return other bytes than were stored. Never part of a swarm.
    pub(crate) damage: u32,
    /// Objects cannot be deleted before they are so old.
    pub(crate) lock_ms: u64,
    /// Deleting what is not there is an error, as with GCS and Azure.
    pub(crate) delete_needs_object: bool,
    /// The store has no create-if-absent and overwrites: what must not be.
    pub(crate) overwrites: bool,
}

impl Faults {
    /// Everything works; calls take time and listings have pages.
    pub(crate) fn none() -> Self {
        Self {
            latency_ms: 1..=40,
            fail: 0,
            throttle: 0,
            lose: 0,
            late: 0,
            late_ms: 1_000..=900_000,
            conflict: 0,
            crash: 0,
            freeze: 0,
            freeze_ms: 1_000..=7_200_000,
            outage: 0,
            outage_ms: 100..=3_600_000,
            pages: true,
            lie: 0,
            stale_ms: 60_000,
            damage: 0,
            lock_ms: 0,
            delete_needs_object: false,
            overwrites: false,
        }
    }

    /// Some of the faults, each as often as chance says: a world in which
    /// everything happens at once finds less than many that differ.
    pub(crate) fn swarm(rng: &mut StdRng) -> Self {
        let mut up_to = |max: u32| match rng.random_bool(0.5) {
            true => rng.random_range(1..=max),
            false => 0,
        };
        let swarm = Self {
            fail: up_to(30),
            throttle: up_to(30),
            lose: up_to(60),
            late: up_to(60),
            conflict: up_to(60),
            crash: up_to(12),
            freeze: up_to(6),
            outage: up_to(6),
            ..Self::none()
        };
        let slowest = [4, 40, 400, 4_000][rng.random_range(0..4)];
        Self {
            latency_ms: 1..=slowest,
            late_ms: 1_000..=[5_000, 60_000, 900_000][rng.random_range(0..3)],
            delete_needs_object: rng.random_bool(0.5),
            ..swarm
        }
    }

    /// Draws the fate of one call. Asks chance equally often for every call.
    pub(crate) fn fate(&self, op: Op, rng: &mut StdRng) -> Fate {
        let latency_ms = log_uniform(rng, &self.latency_ms);
        let later = Effect::Later(log_uniform(rng, &self.late_ms));
        let freeze_ms = log_uniform(rng, &self.freeze_ms);
        let outage_ms = log_uniform(rng, &self.outage_ms);
        let dice: u64 = rng.random();
        let fall = rng.random_range(0..1000);
        let freezes = rng.random_range(0..1000) < self.freeze;
        let cut_off = rng.random_range(0..1000) < self.outage;
        let wrong = rng.random_range(0..1000);
        let (effect, answer) = self.outcome(op, fall, later, dice);
        let pick = |of: usize| usize::try_from((dice >> 8) % of as u64).unwrap();
        let lies = op == Op::List && wrong < self.lie;
        let damaged = op == Op::Get && wrong < self.damage;
        Fate {
            latency_ms,
            effect,
            answer,
            freeze_ms: freezes.then_some(freeze_ms),
            outage_ms: cut_off.then_some(outage_ms),
            lie: lies.then(|| [Lie::Short, Lie::Empty, Lie::Stale][pick(3)]),
            damage: damaged.then(|| [Damage::Truncated, Damage::Flipped][pick(2)]),
            sent: dice & 1 == 0,
            dice,
        }
    }

    fn outcome(&self, op: Op, fall: u32, later: Effect, dice: u64) -> (Effect, Answer) {
        let changes = matches!(op, Op::Put | Op::Delete);
        let only = |applies: bool, rate: u32| if applies { rate } else { 0 };
        let kinds = [
            ("crash", self.crash),
            ("fail", self.fail),
            ("throttle", self.throttle),
            ("lose", only(changes, self.lose)),
            ("late", only(changes, self.late)),
            ("conflict", only(op == Op::Put, self.conflict)),
        ];
        let mut below = 0;
        let hit = kinds.iter().find(|(_, rate)| {
            below += rate;
            fall < below
        });
        let pick = |of: u64| (dice >> 16) % of;
        match hit.map(|(kind, _)| *kind) {
            Some("crash") => {
                let effect = match pick(3) {
                    0 => Effect::Never,
                    1 => Effect::Now,
                    _ => later,
                };
                (effect, Answer::Dies)
            }
            Some("fail") => match pick(4) {
                0 => (Effect::Never, Answer::Failed(Failure::Reset)),
                1 => (Effect::Never, Answer::Failed(Failure::TimedOut)),
                2 if op == Op::Get => (Effect::Now, Answer::Broken),
                _ => (Effect::Never, Answer::Failed(Failure::Internal)),
            },
            Some("throttle") => match pick(2) {
                0 => (Effect::Never, Answer::Failed(Failure::SlowDown)),
                _ => (Effect::Never, Answer::Failed(Failure::TooManyRequests)),
            },
            Some("lose") => match pick(2) {
                0 => (Effect::Now, Answer::Failed(Failure::Reset)),
                _ => (Effect::Now, Answer::Failed(Failure::Internal)),
            },
            Some("late") => (later, Answer::Failed(Failure::TimedOut)),
            Some("conflict") => match pick(3) {
                0 => (Effect::Never, Answer::Failed(Failure::Conflict)),
                1 => (Effect::Never, Answer::Failed(Failure::Precondition)),
                // The client has retried on its own and met its own success.
                _ => (Effect::Now, Answer::Failed(Failure::Exists)),
            },
            _ => (Effect::Now, Answer::Truth),
        }
    }
}

/// As often between 1 and 10 as between 1,000 and 10,000.
pub(crate) fn log_uniform(rng: &mut StdRng, range: &RangeInclusive<u64>) -> u64 {
    let (low, high) = ((*range.start() as f64).ln(), (*range.end() as f64).ln());
    let drawn = low + (high - low) * rng.random::<f64>();
    (drawn.exp() as u64).clamp(*range.start(), *range.end())
}

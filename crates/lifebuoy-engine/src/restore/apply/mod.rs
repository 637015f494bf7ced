//! Carries a plan out: reads bodies ahead, writes many objects at a time along
//! the waves, waits for what others need, and says what became of each.
//!
//! Makes no decisions: what is written, and what happens to objects that exist,
//! is the plan's. Deletes nothing but what `Replace` has to create anew, by uid
//! and resourceVersion.
//!
//! May be stopped at any moment and called again with the same plan: whatever
//! carries the stamp of this restore is its own work.

mod ahead;
mod answer;
mod http;
mod pace;
mod progress;
mod run;
mod send;
mod source;
mod stage;
mod wait;
mod write;

use std::collections::BTreeSet;
use std::time::Duration;

use lifebuoy_api::Reason;
use tokio_util::sync::CancellationToken;

pub use progress::RestoreProgress;

pub(crate) use self::http::{Http, JSON, METADATA_LIST, Place, put_escaped};

use self::pace::{Chance, Pace};
use self::run::Run;
use self::send::Sender;
use self::source::Sources;
use self::write::Hands;
use super::mounts::Claims;
use super::report::Report;
use super::target;
use super::{Key, Plan, Rules, Wanted, WantedType};
use crate::Error;
use crate::archive::Archive;

/// The repetitions that a run may make, on top of one per ten entries.
const RETRIES_MIN: u64 = 1000;

/// How a plan is carried out.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// The uid of the restore: the stamp on everything it creates.
    pub restore_uid: String,
    /// At most this many requests are in flight; the pace finds its own number
    /// below. At most 64.
    pub max_in_flight: usize,
    /// Whether this plan may have been carried out in part already.
    pub resuming: bool,
    /// How long to wait for what others need: types to be served, workloads to
    /// be available, deleted objects to be gone.
    pub wait: Duration,
    /// How long one request is repeated while the server fails.
    pub patience: Duration,
    /// How long objects are tried again that are refused for reasons that may
    /// pass, when everything else is done.
    pub settle: Duration,
    /// The seed of the jitter in waits.
    pub seed: u64,
    /// Claims whose volumes were to be overwritten, and were not: what mounts them is withheld.
    pub not_overwritten: BTreeSet<Key>,
}

impl ApplyOptions {
    /// The defaults, for the restore with this uid.
    #[must_use]
    pub fn new(restore_uid: impl Into<String>) -> Self {
        Self {
            restore_uid: restore_uid.into(),
            max_in_flight: 64,
            resuming: false,
            wait: Duration::from_secs(120),
            patience: Duration::from_secs(120),
            settle: Duration::from_secs(10),
            seed: 0,
            not_overwritten: BTreeSet::new(),
        }
    }
}

/// Carries a plan out. What concerns single objects is in the report, and so is
/// a cancellation: objects that were not dealt with are `Cancelled`.
///
/// # Errors
/// [`Error::PlanRefused`] when the plan says of itself that nothing of it may be
/// carried out, [`Error::Repo`] or [`Error::Damaged`] when the archive cannot be
/// read. What was restored by then stays, and the same plan can be applied again.
pub async fn apply(
    client: &kube::Client,
    archive: &Archive,
    rules: &Rules,
    plan: &Plan,
    options: &ApplyOptions,
    progress: &RestoreProgress,
    cancel: &CancellationToken,
) -> Result<Report, Error> {
    if let Some(problem) = plan.refusal() {
        return Err(Error::PlanRefused {
            message: format!("{}: {}", problem.subject, problem.message),
        });
    }
    let budget = RETRIES_MIN + plan.entries.len() as u64 / 10;
    let hands = Hands {
        sender: Sender::new(
            Http::new(client),
            Pace::new(options.max_in_flight),
            Chance::new(options.seed),
            budget,
            options.patience,
            cancel.clone(),
        ),
        restore_uid: options.restore_uid.clone(),
        gone_within: options.wait,
    };
    let context = plan.context(&options.restore_uid, &archive.manifest);
    let mut not_overwritten = Claims::default();
    options
        .not_overwritten
        .iter()
        .for_each(|claim| not_overwritten.insert(claim));
    let sources = Sources {
        archive,
        rules,
        context: &context,
        plan,
        not_overwritten: &not_overwritten,
    };
    let places: Vec<Place> = plan
        .types
        .iter()
        .map(|of| Place::new(&of.id, &of.target_version, of.namespaced))
        .collect();
    let mut run = Run::new(plan, &places, &hands, options, progress);
    if options.resuming {
        let done = done_before(client, plan, &options.restore_uid).await?;
        done.into_iter()
            .for_each(|(entry, reason)| run.settle(entry, reason, ""));
    }
    run.carry_out(sources).await?;
    Ok(run.report())
}

/// The entries that carry this restore's stamp already, by metadata-only lists.
async fn done_before(
    client: &kube::Client,
    plan: &Plan,
    uid: &str,
) -> Result<Vec<(u32, Reason)>, Error> {
    let wanted = wanted(plan);
    let target = target::observe(client, &wanted, uid).await?;
    let mut done = Vec::new();
    for (at, entry) in (0u32..).zip(&plan.entries) {
        let reason = match entry.action {
            super::Action::Create => Reason::Created,
            super::Action::Replace => Reason::Replaced,
            _ => continue,
        };
        let existing = target.existing.get(&plan.type_of(entry).id, &entry.target);
        if existing.is_some_and(|existing| existing.ours) {
            done.push((at, reason));
        }
    }
    Ok(done)
}

/// The keys that a plan creates or replaces.
fn wanted(plan: &Plan) -> Wanted {
    let mut wanted = Wanted::default();
    for of in &plan.types {
        wanted.types.push(WantedType {
            id: of.id.clone(),
            kind: of.kind.clone(),
            version: of.target_version.clone(),
            namespaced: of.namespaced,
            keys: Vec::new(),
        });
    }
    for entry in plan.entries.iter().filter(|entry| entry.action.writes()) {
        wanted.types[entry.kind as usize]
            .keys
            .push(entry.target.clone());
        if !entry.target.namespace.is_empty() {
            wanted.namespaces.insert(entry.target.namespace.to_string());
        }
    }
    for of in &mut wanted.types {
        of.keys.sort();
        of.keys.dedup();
    }
    wanted.types.retain(|of| !of.keys.is_empty());
    wanted
}

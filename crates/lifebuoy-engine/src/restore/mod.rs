//! From a recovery point to objects in a cluster.
//!
//! ```text
//! read → select → map → transform → plan | apply → wait → report
//! ```
//!
//! Left of the wall everything is pure and synchronous but for the reading:
//! [`prepare`] turns one captured object into what is to be written, and
//! [`Survey::decide`] turns what is known of all of them and of the target
//! into a [`Plan`]. Neither ever talks to a cluster. Right of the wall is I/O
//! without policy: it carries the plan out, and streams the bodies through the
//! same `prepare` again.
//!
//! What happens to one object, in this order: it is selected by what was
//! captured; the rules of its kind drop what belongs to the source cluster
//! ([`kinds`]); names are mapped ([`map`]); the transforms are applied in
//! their order; it is stamped with the uid of the restore.

pub mod apply;
mod decide;
mod digest;
mod document;
mod existing;
mod facts;
mod key;
pub(crate) mod kinds;
pub(crate) mod map;
mod matching;
mod mounts;
mod needs;
mod order;
mod plan;
mod prepare;
pub mod report;
mod rules;
mod serving;
mod survey;
mod table;
pub mod target;
mod transform;
mod versions;

pub use facts::{
    Existing, ExistingClaim, ExistingObjects, NamespacePhase, Target, Wanted, WantedType,
};
pub use key::{Interner, Key};
pub use mounts::Mounts;
pub use plan::{Action, Entry, LeftOut, Plan, PlanDigest, PlanSummary, PlannedType};
pub use prepare::{Context, Draft, OwnerRef, Prepared, prepare};
pub use rules::Rules;
pub use survey::{Survey, plan, survey};

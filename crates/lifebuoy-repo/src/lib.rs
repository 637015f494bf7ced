//! A content-addressed, encrypted, append-only store over object storage, for
//! many writers at a time. `docs/format.md` says what is in the bucket.
//!
//! ```text
//! Location ─open→ store ─init|open→ Repository ─begin→ Writer ─put, put, …→ commit ─→ Snapshot
//!                                        └────reader→ Reader ─get→ chunk
//! ```
//!
//! It knows nothing of Kubernetes, and overwrites nothing. Only the collector
//! deletes, and only what the protocol lets go.
#![forbid(unsafe_code)]

mod buffers;
mod check;
mod collect;
mod compress;
mod contents;
pub mod contract;
mod crypto;
mod error;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod generation;
mod header;
mod hold;
mod ids;
mod index;
mod keeper;
mod keyslot;
mod location;
mod lost;
mod names;
mod paced;
mod pack;
mod probe;
mod protocol;
mod random;
mod rate;
mod reader;
mod record;
mod refresh;
mod repair;
mod repository;
mod sending;
mod session;
mod sessions;
mod store;
mod verify;
mod wire;
mod writer;

pub use check::{Affected, CheckLevel, CheckOptions, CheckProblem, CheckProgress, CheckReport};
pub use collect::{CollectOptions, CollectReport, RepackReport};
pub use compress::Compression;
pub use contents::{Contents, Described, Fate, Link, Role};
pub use error::{Error, Result};
pub use format::Access;
pub use header::FORMAT_VERSION;
pub use hold::Hold;
pub use ids::{ChunkId, ClusterKey, ParseIdError, RepositoryId, SessionId};
pub use keeper::Term;
pub use keyslot::{KdfCost, Passphrase};
pub use location::{Credentials, Location, LocationOptions};
pub use names::ChunkKind;
pub use object_store::ObjectStore;
pub use paced::Limits;
pub use pack::CHUNK_BYTES_MAX;
pub use probe::{StoreAbilities, probe_store};
pub use rate::Rate;
pub use reader::Reader;
pub use record::{End, LABEL_BYTES_MAX, Purpose, REASON_BYTES_MAX, SUMMARY_BYTES_MAX, Snapshot};
pub use repair::RepairReport;
pub use repository::Repository;
pub use session::WriteStats;
pub use sessions::Snapshots;
pub use store::{Cause, Operation};
pub use verify::Checked;
pub use wire::Damage;
pub use writer::{PutInPart, SessionRequest, Writer};

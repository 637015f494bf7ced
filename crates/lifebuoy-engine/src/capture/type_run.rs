//! Reads one type from its first page to its last, and writes what is kept.
//!
//! Every way in which a list can go wrong ends in one of four outcomes: read
//! exactly, read otherwise and said so, not readable and said so, or gone.

mod outcome;
mod pages;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifebuoy_api::Problem;

use self::{
    outcome::{id_of, say},
    pages::GATHERED_BYTES_MAX,
};
use super::{
    CaptureProgress,
    choose::{Chosen, Taken},
    domain::{Probed, Standing},
    facts::Facts,
    lister::{At, ListError, ListRequest, Lister},
    normalise::KeepRules,
    splitter::ListMeta,
};
use crate::{
    Error,
    archive::{ArchiveWriter, ObjectKey, TypeRecord, TypeWriter},
};

/// How often a type is read from its beginning before it is given up.
const PASSES_MAX: u32 = 8;
pub(super) use self::outcome::{hopeless, unavailable};

/// What all types of one capture share.
pub(super) struct Shared {
    pub(super) lister: Arc<dyn Lister>,
    pub(super) archive: ArchiveWriter,
    pub(super) rules: KeepRules,
    pub(super) facts: Mutex<Facts>,
    /// Whether needed cluster-scoped objects are looked for.
    pub(super) additions: bool,
    /// Whether pods with emptyDirs are of interest.
    pub(super) empty_dirs: bool,
    /// The revision that types of the main store are read at.
    pub(super) revision: String,
    /// The namespaces to list one by one, where that is better than all at once.
    pub(super) namespaces: Option<Vec<String>>,
    pub(super) progress: CaptureProgress,
}

impl Shared {
    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        // Facts are sets that only grow: a panic elsewhere leaves them usable.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a type.
pub(super) struct TypeResult {
    /// None when the type was deleted while the capture ran.
    pub(super) record: Option<TypeRecord>,
    pub(super) problems: Vec<Problem>,
}

/// Why a pass over the pages ended early.
enum Stop {
    List(ListError),
    /// Keys do not come in order.
    Unordered,
    /// The first page broke off, and another one may show another moment.
    Torn,
    TooLargeToSort,
    Fatal(Error),
}

impl From<ListError> for Stop {
    fn from(error: ListError) -> Self {
        Self::List(error)
    }
}

/// What to do after a pass that ended early.
enum Next {
    FromTheBeginning,
    From(String),
    GiveUp(String),
    Gone,
}

/// Where a pass stands.
struct Position {
    scope: usize,
    at: At,
}

struct Gathered {
    objects: Vec<(ObjectKey, Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

pub(super) struct TypeRun {
    shared: Arc<Shared>,
    chosen: Chosen,
    api_version: String,
    /// Index into the served versions.
    version: usize,
    version_problem: Option<String>,
    /// How a pass begins.
    start: At,
    /// Why it is not exact, once it is known not to be.
    fuzzy: Option<String>,
    expired: u32,
    passes: u32,
    /// What of the list to read: everywhere, or these namespaces.
    scopes: Vec<Option<String>>,

    writer: TypeWriter,
    gathered: Option<Gathered>,
    revision: Option<String>,
    last_seen: Option<ObjectKey>,
    /// A page is read again: what is not after this was taken already.
    floor: Option<ObjectKey>,
    problems: Vec<Problem>,
    malformed: u64,
    stored: (u64, u64),
    stable: Vec<u8>,
    volatile: Vec<u8>,
}

impl TypeRun {
    pub(super) fn new(shared: Arc<Shared>, chosen: Chosen, probed: &Probed) -> Self {
        let (start, fuzzy) = match &probed.standing {
            Standing::Main | Standing::Unknown(_) => (At::Exact(shared.revision.clone()), None),
            Standing::Elsewhere(why) => (At::Latest, Some(why.clone())),
        };
        let scopes = match &shared.namespaces {
            Some(names) if chosen.served.namespaced => names.iter().cloned().map(Some).collect(),
            _ => vec![None],
        };
        let mut run = Self {
            writer: shared.archive.begin(id_of(&chosen)),
            shared,
            api_version: String::new(),
            version: probed.version,
            version_problem: None,
            start,
            fuzzy,
            expired: 0,
            passes: 0,
            scopes,
            gathered: None,
            revision: None,
            last_seen: None,
            floor: None,
            problems: Vec::new(),
            malformed: 0,
            stored: (0, 0),
            stable: Vec::new(),
            volatile: Vec::new(),
            chosen,
        };
        run.use_version(probed.version);
        if run.version > 0 {
            run.version_problem = Some("its preferred version cannot be listed".to_owned());
        }
        if run.sifts_roles() {
            run.gather();
        }
        run
    }

    /// Reads and writes the type.
    ///
    /// # Errors
    /// Only those of the repository: what the cluster does wrong is part of the
    /// result.
    pub(super) async fn run(mut self) -> Result<TypeResult, Error> {
        let mut position = self.beginning();
        loop {
            let stop = match self.pass(&mut position).await {
                Ok(()) => {
                    self.write_gathered().await?;
                    return self.finished().await;
                }
                Err(Stop::Fatal(error)) => return Err(error),
                Err(stop) => stop,
            };
            match self.after(stop).await {
                Next::FromTheBeginning => {
                    self.restart();
                    position = self.beginning();
                }
                Next::From(token) => position.at = At::Continue(token),
                Next::GiveUp(reason) => return Ok(self.unavailable(&reason)),
                Next::Gone => {
                    self.take_back();
                    return Ok(TypeResult {
                        record: None,
                        problems: Vec::new(),
                    });
                }
            }
        }
    }

    fn beginning(&self) -> Position {
        Position {
            scope: 0,
            at: self.start.clone(),
        }
    }

    /// Reads from `position` to the end.
    async fn pass(&mut self, position: &mut Position) -> Result<(), Stop> {
        while let Some(scope) = self.scopes.get(position.scope) {
            let version = &self.chosen.served.served_versions[self.version];
            let path = self.chosen.served.path(version, scope.as_deref());
            let request = ListRequest::page(path, position.at.clone());
            let meta = self.page(&request).await?;
            self.check_revision(&request.at, &meta);
            if meta.continue_token.is_empty() {
                position.scope += 1;
                position.at = self.start.clone();
            } else {
                position.at = At::Continue(meta.continue_token);
            }
        }
        Ok(())
    }

    fn check_revision(&mut self, at: &At, meta: &ListMeta) {
        if let At::Exact(wanted) = at
            && *wanted != meta.resource_version
            && self.fuzzy.is_none()
        {
            self.fuzzy = Some(format!(
                "the server answered with revision {} instead of {wanted}",
                meta.resource_version
            ));
        }
        if self.revision.is_none() {
            self.revision = Some(meta.resource_version.clone());
        }
    }

    /// Decides what follows on a pass that ended early.
    async fn after(&mut self, stop: Stop) -> Next {
        self.passes += 1;
        if self.passes >= PASSES_MAX && !matches!(stop, Stop::List(ListError::Expired { .. })) {
            return Next::GiveUp(match stop {
                Stop::List(error) => self.say(&error),
                _ => "its list breaks off every time".to_owned(),
            });
        }
        match stop {
            Stop::List(ListError::Expired { continue_token, .. }) => {
                self.after_expiry(continue_token)
            }
            Stop::List(error @ ListError::TooNew { .. }) if self.start != At::Latest => {
                self.start = At::Latest;
                self.fuzzy = Some(format!(
                    "it is kept in another store ({})",
                    self.say(&error)
                ));
                Next::FromTheBeginning
            }
            Stop::List(error @ ListError::NotFound { .. }) => self.after_not_found(&error).await,
            Stop::List(error @ ListError::Failed { .. })
                if self.version + 1 < self.chosen.served.served_versions.len() =>
            {
                self.version_problem = Some(self.say(&error));
                self.use_version(self.version + 1);
                Next::FromTheBeginning
            }
            Stop::List(error) => Next::GiveUp(self.say(&error)),
            Stop::Unordered => {
                self.gather();
                Next::FromTheBeginning
            }
            Stop::Torn => Next::FromTheBeginning,
            Stop::TooLargeToSort => Next::GiveUp(format!(
                "its list comes in no order and is larger than {} MiB",
                GATHERED_BYTES_MAX >> 20
            )),
            Stop::Fatal(error) => Next::GiveUp(error.to_string()),
        }
    }

    /// The revision was compacted. Once, the type is read anew; a type that
    /// takes longer to list than revisions are kept would never end that way, so
    /// the second time the list goes on where it stands.
    fn after_expiry(&mut self, token: Option<String>) -> Next {
        self.expired += 1;
        let first = self.expired == 1;
        match token {
            Some(token) if !first => {
                self.fuzzy = Some(
                    "listing it takes longer than revisions are kept: its pages are of several moments"
                        .to_owned(),
                );
                Next::From(token)
            }
            _ if self.expired > PASSES_MAX => {
                Next::GiveUp("its revisions are compacted faster than it can be listed".to_owned())
            }
            _ => {
                self.start = At::Latest;
                self.fuzzy = Some(format!(
                    "revision {} was compacted before it was read",
                    self.shared.revision
                ));
                Next::FromTheBeginning
            }
        }
    }

    /// A type that is not served any more is no error: its definition was
    /// deleted since it was discovered.
    async fn after_not_found(&mut self, error: &ListError) -> Next {
        let served = &self.chosen.served;
        match self.shared.lister.served().await {
            Ok(now) if now.by_resource(&served.group, &served.resource).is_none() => Next::Gone,
            _ => Next::GiveUp(self.say(error)),
        }
    }

    fn use_version(&mut self, version: usize) {
        self.version = version;
        let served = &self.chosen.served;
        self.api_version =
            crate::discovery::api_version(&served.group, &served.served_versions[version]);
    }

    fn gather(&mut self) {
        self.gathered = Some(Gathered {
            objects: Vec::new(),
            bytes: 0,
        });
    }

    fn restart(&mut self) {
        self.take_back();
        self.writer = self.shared.archive.begin(id_of(&self.chosen));
        if self.gathered.is_some() {
            self.gather();
        }
        self.revision = None;
        self.last_seen = None;
        self.floor = None;
        self.problems.clear();
        self.malformed = 0;
    }

    fn take_back(&mut self) {
        let (objects, bytes) = std::mem::take(&mut self.stored);
        self.shared.progress.take_back(objects, bytes);
    }

    /// Only ClusterRoles of which some are needed: which ones is known once all
    /// are, for they are aggregated from one another.
    fn sifts_roles(&self) -> bool {
        self.chosen.taken == Taken::Needed && self.chosen.served.resource == "clusterroles"
    }

    /// The server's words, but for those about Secrets.
    fn say(&self, error: &ListError) -> String {
        say(&self.chosen, error)
    }

    fn unavailable(mut self, reason: &str) -> TypeResult {
        self.take_back();
        outcome::unavailable(&self.chosen, reason)
    }
}

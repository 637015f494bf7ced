//! Checks: whether everything is there, fits together and can be read. Writes
//! nothing, and does not stop at the first problem.

mod packs;
mod records;
mod trees;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
    sync::Arc,
};

use crate::{
    contents::Contents,
    error::{Error, Result},
    ids::SessionId,
    names::{Mended, Name, PackName},
    refresh::View,
    repository::{Repository, Shared},
};
pub(crate) use packs::Unsound;
use records::meaning;

/// Problems that a report names; there may be more.
pub(crate) const PROBLEMS_MAX: usize = 1000;
/// Affected things that a report names of each snapshot; there may be more.
pub(crate) const ITEMS_MAX: usize = 100;
/// What one check finds while a collector is at work is looked at again.
const LOOKS: usize = 2;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckLevel {
    /// Lists everything, opens every record, and follows the trees of all
    /// snapshots. Of the packs only what leads to others is read.
    Structure,
    /// As `Structure`, and every byte of a share of the packs. All parts together,
    /// 0 to `of` − 1, read every pack once: one who checks a part a day has to
    /// remember its number only.
    Share {
        /// Which part; taken modulo `of`.
        part: u32,
        /// Into how many parts the packs are divided, by their names.
        of: NonZeroU32,
    },
    /// As `Structure`, and every byte of every pack.
    All,
}

impl CheckLevel {
    fn reads(self, pack: PackName) -> bool {
        match self {
            Self::Structure => false,
            Self::All => true,
            Self::Share { part, of } => {
                let hash = blake3::hash(pack.key().as_bytes());
                let mut first = [0; 8];
                first.copy_from_slice(&hash.as_bytes()[..8]);
                let share = u64::from_le_bytes(first) % u64::from(of.get());
                share == u64::from(part % of.get())
            }
        }
    }
}

/// Is told what is done, how much of it, and of how much.
pub type CheckProgress = Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>;

/// What to check.
#[derive(Clone)]
pub struct CheckOptions {
    /// How much is read.
    pub level: CheckLevel,
    /// Keys of packs that are read besides, whatever the level says: what an
    /// earlier check found is damaged until it is seen to be sound, or gone.
    pub again: BTreeSet<String>,
    /// Who is told how far it is.
    pub progress: Option<CheckProgress>,
}

impl CheckOptions {
    /// A check of this level that tells nobody how far it is.
    #[must_use]
    pub fn new(level: CheckLevel) -> Self {
        Self {
            level,
            again: BTreeSet::new(),
            progress: None,
        }
    }

    fn reads(&self, pack: PackName) -> bool {
        self.level.reads(pack) || self.again.contains(&pack.key())
    }

    fn tell(&self, what: &'static str, done: u64, total: u64) {
        if let Some(progress) = &self.progress {
            progress(what, done, total);
        }
    }
}

impl fmt::Debug for CheckOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckOptions")
            .field("level", &self.level)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckProblem {
    /// The key of the object, relative to the repository, or `chunk <id>`.
    pub key: String,
    /// What is wrong with it, and what that means.
    pub message: String,
}

impl fmt::Display for CheckProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// A snapshot that cannot be restored in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The snapshot.
    pub session: SessionId,
    /// What cannot be restored of it, at most [`ITEMS_MAX`].
    pub items: Vec<String>,
    /// How many there are of these in all.
    pub items_total: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a check that nobody looks at finds nothing"]
pub struct CheckReport {
    /// Objects in the bucket.
    pub objects: u64,
    /// Packs among them.
    pub packs: u64,
    /// Packs that were read in full.
    pub packs_read: u64,
    /// Bytes of these packs.
    pub bytes_read: u64,
    /// Packs that no index lists: of sessions at work or given up.
    pub orphaned_packs: u64,
    /// Objects that are damaged or lost and that nothing needs any more.
    pub healed: u64,
    /// Snapshots whose trees were followed, and parts of those at work.
    pub snapshots: u64,
    /// The problems, at most [`PROBLEMS_MAX`], by key.
    pub problems: Vec<CheckProblem>,
    /// How many there are of these in all.
    pub problems_total: u64,
    /// The snapshots that cannot be restored in full.
    pub affected: Vec<Affected>,
}

impl CheckReport {
    /// True if nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems_total == 0 && self.affected.is_empty()
    }
}

impl Repository {
    /// Checks the repository. Holds at most 64 MiB of objects at one time, and the
    /// names of all packs.
    ///
    /// # Errors
    /// One of the store, or of the format object. Objects that are damaged or
    /// missing are not an error here: the report names them.
    pub async fn check(
        &self,
        contents: &dyn Contents,
        options: &CheckOptions,
    ) -> Result<CheckReport> {
        let mut check = Check::new(&self.shared, contents, options);
        check.run().await?;
        Ok(check.finish())
    }
}

/// A check at work, and what it found.
pub(crate) struct Check<'a> {
    shared: &'a Arc<Shared>,
    contents: &'a dyn Contents,
    options: &'a CheckOptions,
    /// The packs in the bucket, and their lengths.
    pub(crate) packs: BTreeMap<PackName, u64>,
    pub(crate) mends: BTreeSet<Mended>,
    /// Records that are damaged, and why.
    pub(crate) damaged: BTreeMap<String, Error>,
    /// Committed sessions and parts of a run whose index is missing or damaged,
    /// by its key.
    pub(crate) incomplete: BTreeMap<String, Error>,
    /// Packs of the index of which something or all cannot be read.
    pub(crate) unsound: BTreeMap<PackName, Unsound>,
    /// Problems of the last look at what hangs together.
    torn: BTreeMap<String, String>,
    affected: BTreeMap<SessionId, Affected>,
    blind: bool,
    report: CheckReport,
}

impl<'a> Check<'a> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        contents: &'a dyn Contents,
        options: &'a CheckOptions,
    ) -> Self {
        Self {
            shared,
            contents,
            options,
            packs: BTreeMap::new(),
            mends: BTreeSet::new(),
            damaged: BTreeMap::new(),
            incomplete: BTreeMap::new(),
            unsound: BTreeMap::new(),
            torn: BTreeMap::new(),
            affected: BTreeMap::new(),
            blind: false,
            report: CheckReport::default(),
        }
    }

    pub(crate) async fn run(&mut self) -> Result<()> {
        self.shared.check_format().await?;
        self.records().await?;
        // Reading needs to know what the index says of the packs.
        let seen = self.look().await?;
        if seen.is_some() {
            self.read_packs().await?;
        }
        for look in 1..=LOOKS {
            self.torn.clear();
            self.affected.clear();
            if let Some(view) = self.look().await? {
                self.missing_packs().await?;
                self.trees(&view).await?;
            }
            if look == LOOKS || (self.torn.is_empty() && self.affected.is_empty()) {
                break;
            }
        }
        Ok(())
    }

    /// Everything that is committed; `None` if what would tell is damaged.
    async fn look(&mut self) -> Result<Option<View>> {
        let seen = self.shared.look_around().await;
        let (view, vanished) = match seen {
            Ok(seen) => seen,
            Err(Error::Corrupt { key, damage }) => {
                self.blind(
                    &key,
                    Error::Corrupt {
                        key: key.clone(),
                        damage,
                    },
                )
                .await?;
                return Ok(None);
            }
            Err(Error::Vanished { example, count }) => {
                let error = Error::Vanished {
                    example: example.clone(),
                    count,
                };
                self.blind(&example, error).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        for key in vanished {
            if let Some(session) = key.rsplit('/').next().and_then(|id| id.parse().ok()) {
                self.affect(session, "everything: nothing says any more where it is");
            }
            let message = "it is gone: a snapshot that was committed cannot be found".to_owned();
            self.torn.insert(key, message);
        }
        for (key, error) in &view.ends.unreadable {
            self.damaged.entry(key.clone()).or_insert(error.clone());
            if let Some(Name::End(_, session)) = Name::parse(key) {
                self.affect(session, "everything: nothing says any more where it is");
            }
        }
        self.incomplete = view.incomplete.iter().cloned().collect();
        Ok(Some(view))
    }

    /// Without the newest run nobody knows what the repository holds.
    async fn blind(&mut self, key: &str, error: Error) -> Result<()> {
        self.blind = true;
        self.torn.insert(
            key.to_owned(),
            format!(
                "{error}: nothing in the repository can be found without it; restore this very \
                 object from a replica or an older version"
            ),
        );
        let ends = self.shared.list_ends().await?;
        for (session, end) in ends.ended {
            if end.how == crate::protocol::How::Snapshot {
                self.affect(session, "perhaps everything: the index cannot be read");
            }
        }
        Ok(())
    }

    fn affect(&mut self, session: SessionId, item: &str) {
        let affected = self.affected.entry(session).or_insert_with(|| Affected {
            session,
            items: Vec::new(),
            items_total: 0,
        });
        affected.items_total += 1;
        if affected.items.len() < ITEMS_MAX {
            affected.items.push(item.to_owned());
        }
    }

    /// True if the newest run cannot be read: then nobody knows what there is.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind
    }

    pub(crate) fn finish(self) -> CheckReport {
        let Self {
            damaged,
            incomplete,
            torn,
            affected,
            mut report,
            mends,
            ..
        } = self;
        let mended: BTreeSet<String> = mends.iter().map(|mended| mended.name().key()).collect();
        let mut problems = torn;
        for (key, error) in damaged.into_iter().chain(incomplete) {
            if mended.contains(&key) {
                report.healed += 1;
                continue;
            }
            let means = meaning(&key);
            problems
                .entry(key)
                .or_insert_with(|| format!("{}; {means}", short(&error)));
        }
        report.problems_total = problems.len() as u64;
        report.problems = problems
            .into_iter()
            .take(PROBLEMS_MAX)
            .map(|(key, message)| CheckProblem { key, message })
            .collect();
        report.affected = affected.into_values().collect();
        report
    }
}

/// What is wrong, without the key that stands before it anyway.
fn short(error: &Error) -> String {
    match error {
        Error::Corrupt { damage, .. } => format!("it is damaged: {damage}"),
        Error::Missing { .. } => "it is missing".to_owned(),
        other => other.to_string(),
    }
}

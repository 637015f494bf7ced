//! What hangs together: the trees of all snapshots, which chunks of them cannot be
//! read, and what of which snapshot that is.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures::StreamExt;

use super::{Check, PROBLEMS_MAX, Unsound};
use crate::{
    contents::{Fate, Link, Marked, Role},
    error::{Error, Result},
    ids::{ChunkId, SessionId},
    names::{Mended, PackName},
    protocol::live_roots,
    reader::Reader,
    refresh::View,
};

/// Walks that are begun again because a collector made a new run meanwhile.
const WALKS: usize = 5;
/// Chunks that are read to name what is affected of one snapshot.
const NAMING_READS_MAX: usize = 10_000;

/// What a walk found.
#[derive(Default)]
struct Trees {
    /// Chunks that snapshots need and that cannot be read.
    lost: BTreeSet<ChunkId>,
    /// Why chunks that can be read make no sense.
    senseless: BTreeMap<ChunkId, String>,
    /// Chunks from which something hangs that is lost.
    torn: HashSet<u32>,
}

impl Trees {
    fn fate(&self, reader: &Reader, id: &ChunkId) -> Fate {
        if self.lost.contains(id) {
            return Fate::Lost;
        }
        match reader.slot(id) {
            Some(slot) if self.torn.contains(&slot) => Fate::Torn,
            _ => Fate::Whole,
        }
    }
}

impl Check<'_> {
    /// Follows the trees of everything that must be readable.
    pub(super) async fn trees(&mut self, view: &View) -> Result<()> {
        let roots = self.roots(view).await?;
        self.report.snapshots = roots.len() as u64;
        let reader = Reader::over(self.shared);
        let mut walks = 0;
        let trees = loop {
            walks += 1;
            let run = self.shared.index().run();
            let trees = self.walk(&reader, &roots).await?;
            // Slots are of one run: what was marked says nothing of another.
            if self.shared.index().run() == run || walks == WALKS {
                break trees;
            }
        };
        for (id, what) in &trees.senseless {
            let message = format!("it makes no sense: {what}");
            self.torn.insert(format!("chunk {id}"), message);
        }
        self.name_packs(&trees);
        for (session, root) in roots {
            if trees.fate(&reader, &root) != Fate::Whole {
                self.name_contents(&reader, &trees, session, root).await?;
            }
        }
        Ok(())
    }

    async fn roots(&self, view: &View) -> Result<Vec<(SessionId, ChunkId)>> {
        let opens = self.shared.list_opens().await?;
        let mut forgets = self.shared.forgotten().await?;
        for pinned in self.shared.pinned().await?.keys() {
            forgets.remove(pinned);
        }
        let live = live_roots(&view.ends.ended, &opens, &forgets, &view.horizon);
        let ends = self.shared.ends();
        let roots = ends
            .iter()
            .filter(|((_, session), _)| live.contains(session));
        Ok(roots
            .filter_map(|((_, session), body)| Some((*session, body.root()?)))
            .collect())
    }

    /// Whether no copy of a chunk can be read, as far as is known.
    fn is_lost(&self, id: &ChunkId) -> bool {
        let index = self.shared.index();
        let lacks = |(pack, place): (crate::index::PackPlace, crate::index::Place)| {
            let unsound = self.unsound.get(&pack.name);
            unsound.is_some_and(|unsound| unsound.lacks(place.position))
        };
        index.copies(id).all(lacks)
    }

    async fn walk(&self, reader: &Reader, roots: &[(SessionId, ChunkId)]) -> Result<Trees> {
        let mut walk = Walk::default();
        for (_, root) in roots {
            walk.meet(self, reader, None, Link::Node(*root, Role::ROOT));
        }
        while !walk.next.is_empty() {
            let level = std::mem::take(&mut walk.next);
            let total = walk.met;
            let ids = level.iter().map(|(id, _)| *id).collect();
            let mut nodes = std::pin::pin!(reader.get_ordered(ids));
            for (id, role) in level {
                let Some(read) = nodes.next().await else {
                    break;
                };
                walk.read += 1;
                self.options.tell("following trees", walk.read, total);
                let plain = match read {
                    Ok((_, plain)) => plain,
                    Err(
                        Error::Corrupt { .. } | Error::Missing { .. } | Error::ChunkMissing { .. },
                    ) => {
                        walk.lose(reader, id);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                match self.contents.links(role, &plain) {
                    Ok(links) => {
                        for link in links {
                            walk.meet(self, reader, Some(id), link);
                        }
                    }
                    Err(what) => {
                        walk.trees.senseless.insert(id, what);
                        walk.lose(reader, id);
                    }
                }
            }
        }
        Ok(walk.finish())
    }

    /// The packs that lost chunks should be in, and others on which writers would
    /// build without knowing.
    fn name_packs(&mut self, trees: &Trees) {
        let index = self.shared.index();
        let mut culprits: BTreeMap<PackName, u64> = BTreeMap::new();
        let mut unlisted = Vec::new();
        for id in &trees.lost {
            let mut copies = index.copies(id).peekable();
            if copies.peek().is_none() {
                unlisted.push(*id);
            }
            for (pack, _) in copies {
                *culprits.entry(pack.name).or_default() += 1;
            }
        }
        drop(index);
        for (pack, lost) in &culprits {
            let words = match self.unsound.get(pack) {
                Some(unsound) => unsound.words(),
                None => "a part of it that leads to others is damaged".to_owned(),
            };
            let message = format!("{words}; {lost} chunks that snapshots need are in it alone");
            self.torn.insert(pack.key(), message);
        }
        let noticed = self.shared.notices_lost_packs();
        let mut healed = 0;
        for (pack, unsound) in &self.unsound {
            if culprits.contains_key(pack) {
                continue;
            }
            let avoided = noticed && !matches!(unsound, Unsound::Damaged(..));
            if avoided || self.mends.contains(&Mended::Pack(*pack)) {
                healed += 1;
                continue;
            }
            let message = format!(
                "{}; no snapshot needs them, but backups would build on them: run `lifebuoy repo \
                 repair`",
                unsound.words()
            );
            self.torn.insert(pack.key(), message);
        }
        self.report.healed = healed;
        for id in unlisted.into_iter().take(PROBLEMS_MAX) {
            let message = "a snapshot needs it, and no index lists it".to_owned();
            self.torn.entry(format!("chunk {id}")).or_insert(message);
        }
    }

    /// Names what cannot be restored of a snapshot.
    async fn name_contents(
        &mut self,
        reader: &Reader,
        trees: &Trees,
        session: SessionId,
        root: ChunkId,
    ) -> Result<()> {
        if trees.fate(reader, &root) == Fate::Lost {
            self.affect(session, "everything: its root cannot be read");
            return Ok(());
        }
        let mut reads = 0;
        let mut left = vec![(root, Role::ROOT, String::new())];
        while let Some((id, role, name)) = left.pop() {
            reads += 1;
            if reads > NAMING_READS_MAX {
                self.affect(session, "and more");
                break;
            }
            let Ok(plain) = reader.get(&id).await else {
                continue;
            };
            let fate = |id: &ChunkId| trees.fate(reader, id);
            let described = self.contents.describe(role, &plain, &name, &fate);
            for item in &described.lost {
                self.affect(session, item);
            }
            let links = self.contents.links(role, &plain).unwrap_or_default();
            for (child, name) in described.torn {
                let role = links.iter().find_map(|link| match link {
                    Link::Node(id, role) if *id == child => Some(*role),
                    _ => None,
                });
                left.extend(role.map(|role| (child, role, name)));
            }
        }
        if !self.affected.contains_key(&session) {
            self.affect(session, "something that has no name");
        }
        Ok(())
    }
}

/// A walk under way.
#[derive(Default)]
struct Walk {
    marked: Marked,
    /// From what hangs to that from which it hangs, of chunks that lead to others.
    up: Vec<(u32, u32)>,
    next: Vec<(ChunkId, Role)>,
    met: u64,
    read: u64,
    trees: Trees,
}

impl Walk {
    fn meet(&mut self, check: &Check<'_>, reader: &Reader, from: Option<ChunkId>, link: Link) {
        let id = link.chunk();
        let above = from.and_then(|from| reader.slot(&from));
        let Some(slot) = reader.slot(&id) else {
            self.trees.lost.insert(id);
            self.trees.torn.extend(above);
            return;
        };
        if let (Link::Node(..), Some(above)) = (link, above) {
            self.up.push((slot, above));
        }
        let new = self.marked.insert(slot);
        if new && check.is_lost(&id) {
            self.trees.lost.insert(id);
        }
        if !self.trees.lost.is_empty() && self.trees.lost.contains(&id) {
            self.trees.torn.extend(above);
            return;
        }
        if let (Link::Node(id, role), true) = (link, new) {
            self.next.push((id, role));
            self.met += 1;
        }
    }

    /// A chunk that was met and turns out to be unreadable.
    fn lose(&mut self, reader: &Reader, id: ChunkId) {
        self.trees.lost.insert(id);
        self.trees.torn.extend(reader.slot(&id));
    }

    /// Carries what is torn up to the roots.
    fn finish(mut self) -> Trees {
        self.up.sort_unstable();
        let mut left: Vec<u32> = self.trees.torn.iter().copied().collect();
        while let Some(slot) = left.pop() {
            let first = self.up.partition_point(|(below, _)| *below < slot);
            for (_, above) in self.up[first..]
                .iter()
                .take_while(|(below, _)| *below == slot)
            {
                if self.trees.torn.insert(*above) {
                    left.push(*above);
                }
            }
        }
        self.trees
    }
}

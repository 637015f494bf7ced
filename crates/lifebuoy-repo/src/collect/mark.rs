//! Collector steps 3 and 7: what snapshots need, by walking their trees.

use std::collections::BTreeSet;

use super::Work;
use crate::{
    contents::Marked,
    error::{Error, Result},
    ids::{ChunkId, SessionId},
    names::PackName,
    protocol::{Answer, Choice, Horizon, Marking, Marks},
    reader::Reader,
};

impl Work<'_> {
    pub(super) async fn mark(&mut self, marking: &Marking) -> Result<Answer> {
        let shared = self.shared;
        let horizon = Horizon {
            run: marking.run,
            live: BTreeSet::new(),
        };
        match shared
            .load(&horizon, &marking.deltas, &marking.deltas)
            .await
        {
            Ok(incomplete) => refuse_unreadable(incomplete)?,
            Err(Error::Missing { .. }) => return Ok(Answer::Outdated),
            Err(error) => return Err(error),
        }
        let reader = Reader::over(shared);
        let mut marked = Marked::default();
        let roots = self.roots(&marking.roots);
        match reader.walk(self.contents, roots, &mut marked).await {
            Ok(()) => {}
            // Another collector may be ahead and have deleted what it copied.
            Err(Error::Missing { key }) => {
                if shared.has_deleted_since(marking.run).await? {
                    return Ok(Answer::Outdated);
                }
                return Err(Error::Refused {
                    reason: format!("{key:?} is gone, and snapshots need it"),
                });
            }
            Err(error) => return Err(error),
        }
        let aside = shared.set_aside().await?;
        let Some(marks) = self.choose(marking, &marked, &aside) else {
            return Ok(Answer::Outdated);
        };
        if !marked.missing.is_empty() {
            let (chunk, from) = marked.missing.iter().next().unzip();
            tracing::error!(
                ?chunk,
                ?from,
                count = marked.missing.len(),
                "chunks are missing"
            );
        }
        Ok(Answer::Marked(marks))
    }

    pub(super) fn roots(&self, sessions: &BTreeSet<SessionId>) -> Vec<ChunkId> {
        let ends = self.shared.ends();
        let wanted = ends.iter().filter(|((_, id), _)| sessions.contains(id));
        wanted.filter_map(|(_, body)| body.root()).collect()
    }

    /// `None` if the index was replaced while the trees were walked.
    fn choose(
        &mut self,
        marking: &Marking,
        marked: &Marked,
        aside: &BTreeSet<PackName>,
    ) -> Option<Marks> {
        let index = self.shared.index();
        if index.run() != marking.run {
            return None;
        }
        // A copy in a pack that was found damaged is none.
        let mut sound: BTreeSet<PackName> = marking.packs.difference(aside).copied().collect();
        for pack in index.packs() {
            if self.stored.packs.get(&pack.name) != Some(&u64::from(pack.length)) {
                sound.remove(&pack.name);
            }
        }
        let mut choice = Choice::new(&sound, &marking.condemned);
        let mut copies = Vec::new();
        let mut plain_bytes = 0;
        for (id, slot) in index.chunks() {
            if marked.contains(slot) {
                index.copies_of(slot, &mut copies);
                choice.chunk(&copies);
                let first = index.copies(&id).next();
                plain_bytes += first.map_or(0, |(_, place)| u64::from(place.entry(id).raw));
            }
        }
        let relied: BTreeSet<PackName> = index
            .relied()
            .iter()
            .filter(|(session, _)| marking.roots.contains(session))
            .flat_map(|(_, packs)| packs)
            .copied()
            .collect();
        let mut marks = choice.finish(&relied);
        marks.missing += marked.missing.len() as u64;
        self.describe(marking, &marks);
        self.report.chunks = marked.count();
        self.report.plain_bytes = plain_bytes;
        Some(marks)
    }

    fn describe(&mut self, marking: &Marking, marks: &Marks) {
        let garbage: BTreeSet<PackName> = marking.packs.difference(&marks.kept).copied().collect();
        let report = &mut self.report;
        report.packs = marking.packs.len() as u64;
        report.bytes = self.stored.total();
        report.garbage_packs = garbage.len() as u64;
        report.garbage_bytes = self.stored.bytes(&garbage);
        report.disputed_packs = marks.disputed.len() as u64;
        report.snapshots = marking.roots.len() as u64;
    }
}

/// What cannot be read may need anything: nothing is collected.
pub(super) fn refuse_unreadable(problems: Vec<(String, Error)>) -> Result<()> {
    match problems.first() {
        None => Ok(()),
        Some((key, error)) => Err(Error::Refused {
            reason: format!(
                "{} records cannot be read, such as {key:?}: {error}",
                problems.len()
            ),
        }),
    }
}

//! Listings in pages that are read apart from one another: what is created or
//! deleted between two pages is in one and not in the other. And lies.

use std::sync::Arc;

use futures::{
    FutureExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{ObjectMeta, ObjectStore, Result, path::Path};

use crate::{
    faults::{Fate, Lie},
    store::anonymous,
    world::{Done, Request, World},
};

/// Pages of one listing at most.
const PAGES_MAX: usize = 3;

/// One page, and whether another one follows.
struct Page {
    found: Vec<ObjectMeta>,
    more: bool,
}

/// A listing that is under way.
struct Listing {
    world: Arc<World>,
    request: Request,
    prefix: Path,
    after: Option<Path>,
    pages: usize,
}

/// Lists all below a prefix, each page as of its own moment.
pub(crate) fn pages(
    world: Arc<World>,
    request: Request,
    prefix: Path,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let listing = Listing {
        world,
        request,
        prefix,
        after: None,
        pages: 0,
    };
    stream::unfold(Some(listing), |listing| async {
        let mut listing = listing?;
        let page = listing.next().await;
        match page {
            Ok(Page { found, more }) => {
                let items: Vec<_> = found.into_iter().map(Ok).collect();
                Some((items, more.then_some(listing)))
            }
            Err(error) => Some((vec![Err(error)], None)),
        }
    })
    .flat_map(stream::iter)
    .boxed()
}

impl Listing {
    async fn next(&mut self) -> Result<Page> {
        self.pages += 1;
        let last_page = self.pages == PAGES_MAX;
        let (prefix, after) = (self.prefix.clone(), self.after.clone());
        let effect =
            move |world: Arc<World>, fate| read_page(world, fate, prefix, after, last_page).boxed();
        let page = self.world.call(self.request.clone(), effect).await?;
        if let Some(last) = page.found.last() {
            self.after = Some(last.location.clone());
        }
        Ok(page)
    }
}

async fn read_page(
    world: Arc<World>,
    fate: Fate,
    prefix: Path,
    after: Option<Path>,
    last_page: bool,
) -> Done<Page> {
    let mut found = match list(&world, &prefix).await {
        Ok(found) => found,
        Err(error) => return (Err(error), "failed".to_owned()),
    };
    if fate.lie == Some(Lie::Stale) {
        found = as_it_was(&world, &prefix, found);
    }
    found.retain(|meta| after.as_ref().is_none_or(|after| meta.location > *after));
    let dice = usize::try_from(fate.dice >> 32).unwrap();
    let mut more = false;
    match fate.lie {
        Some(Lie::Empty) => found.clear(),
        Some(Lie::Short) => found.truncate(dice % found.len().max(1)),
        Some(Lie::Stale) | None => {
            let cut = world.faults().pages && !last_page && !dice.is_multiple_of(3);
            if cut && found.len() > 1 {
                found.truncate(1 + dice / 3 % (found.len() - 1));
                more = true;
            }
        }
    }
    let word = match more {
        true => format!("{} keys and more", found.len()),
        false => format!("{} keys", found.len()),
    };
    (Ok(Page { found, more }), word)
}

async fn list(world: &World, prefix: &Path) -> Result<Vec<ObjectMeta>> {
    let listing = world.inner().list(Some(prefix)).map_ok(anonymous);
    listing.try_collect().await
}

/// Without what is newer than the world's staleness, with what was deleted since.
fn as_it_was(world: &World, prefix: &Path, now: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
    let then_ms = world.now_ms().saturating_sub(world.faults().stale_ms);
    let state = world.state();
    let old = |meta: &ObjectMeta| {
        let created = state.created_ms.get(&meta.location);
        created.is_none_or(|created_ms| *created_ms <= then_ms)
    };
    let mut then: Vec<_> = now.into_iter().filter(old).collect();
    let gone = state.deleted.iter().filter(|gone| {
        gone.created_ms <= then_ms
            && then_ms < gone.deleted_ms
            && gone.meta.location.prefix_matches(prefix)
    });
    then.extend(gone.map(|gone| anonymous(gone.meta.clone())));
    then.sort_by(|a, b| a.location.cmp(&b.location));
    then
}

//! A long save commits parts on its way: one that is cut off has not sent them in vain.

use std::{fs, path::Path, sync::Arc};

use futures::StreamExt;
use lifebuoy_data::{DataContents, Existing};
use lifebuoy_repo::{CheckLevel, CheckOptions, KdfCost, Repository};
use object_store::{ObjectStore, memory::InMemory};

use crate::{
    struck::{Blow, Struck},
    support::{at_once, noise, passphrase, restore_all, save_all, try_save_all},
};

const MIB: u64 = 1 << 20;
/// What is to be saved: more than goes before the first part, and in it.
const SAVED_BYTES: u64 = 320 * MIB;
/// Requests that one misses that is cut off: fewer than are made after the first part.
const REQUESTS_MISSED: usize = 14;

/// With an empty repository.
async fn new_store() -> Arc<dyn ObjectStore> {
    let store = Arc::new(InMemory::new());
    Repository::init(store.clone(), &passphrase(), KdfCost::cheapest())
        .await
        .unwrap();
    store
}

async fn open(store: &Arc<dyn ObjectStore>) -> Repository {
    let opened = Repository::open(Arc::clone(store), &passphrase()).await;
    opened.unwrap()
}

/// Objects below a prefix, and their bytes.
async fn stored(store: &dyn ObjectStore, prefix: &str) -> (usize, u64) {
    let listed: Vec<_> = store.list(Some(&prefix.into())).collect().await;
    let bytes = listed.iter().map(|meta| meta.as_ref().unwrap().size).sum();
    (listed.len(), bytes)
}

fn make(place: &Path) {
    fs::create_dir(place).unwrap();
    for n in 0..7 {
        let len = usize::try_from(SAVED_BYTES / 8).unwrap();
        fs::write(place.join(format!("{n}")), noise(n, len)).unwrap();
    }
    fs::create_dir(place.join("small")).unwrap();
    for n in 0..1000 {
        let len = usize::try_from(SAVED_BYTES / 8000).unwrap();
        fs::write(place.join(format!("small/{n}")), noise(100 + n, len)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_save_sent_that_was_cut_off_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    make(&from);
    let store = new_store().await;
    let requests = {
        let whole = Struck::new(new_store().await, Blow::IsDenied);
        let repository = open(&(whole.clone() as Arc<dyn ObjectStore>)).await;
        let before = whole.requests();
        save_all(&repository, &from, None).await;
        whole.requests() - before
    };

    let struck = Struck::new(Arc::clone(&store), Blow::IsDenied);
    let victim = open(&(struck.clone() as Arc<dyn ObjectStore>)).await;
    struck.strike_at(requests - REQUESTS_MISSED);
    let cut_off = try_save_all(&victim, &from, None).await;
    assert!(cut_off.is_err());
    let (_, sent) = stored(&*store, "packs").await;
    assert!(sent < SAVED_BYTES, "it was not cut off: {sent}");
    let (parts, _) = stored(&*store, "end").await;
    assert_eq!(parts, 1, "a part was committed, and the save has no end");

    let repository = open(&store).await;
    assert_eq!(repository.snapshots().await.unwrap().snapshots, []);
    let (saved, ..) = save_all(&repository, &from, None).await;
    let (_, all) = stored(&*store, "packs").await;
    let again = all - sent;
    assert!(again < SAVED_BYTES - 120 * MIB, "{again} of {SAVED_BYTES}");

    // What the one that was cut off leaves is collected, and what is used of it stays.
    for _ in 0..2 {
        repository.collect(&DataContents, &at_once()).await.unwrap();
    }
    let (_, left) = stored(&*store, "packs").await;
    assert!(left < SAVED_BYTES + 8 * MIB, "{left} of {SAVED_BYTES}");
    let repository = open(&store).await;
    let check = CheckOptions::new(CheckLevel::All);
    let report = repository.check(&DataContents, &check).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let (restored, _, problems) =
        restore_all(&repository, &saved.snapshot, &to, Existing::Refuse).await;
    restored.unwrap();
    assert_eq!(problems, []);
    for n in 0..7 {
        let name = format!("{n}");
        assert!(fs::read(from.join(&name)).unwrap() == fs::read(to.join(&name)).unwrap());
    }
}

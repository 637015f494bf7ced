//! Images of block devices: what is zeros, what changed, what comes back.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use lifebuoy_data::{
    Existing, PARTS_EVERY, Progress, RestoreDeviceRequest, SaveDeviceRequest, Saved, What,
    restore_device, save_device,
};
use lifebuoy_repo::{Repository, Snapshot};

use crate::support::{noise, repository, session, summary};

async fn save_image(
    repository: &Repository,
    place: &Path,
    before: Option<(Snapshot, Vec<std::ops::Range<u64>>)>,
) -> (Saved, lifebuoy_data::Done) {
    let request = SaveDeviceRequest {
        place: place.to_owned(),
        summary: summary(What::Device),
        before: before.map(|(before, changed)| (before.root, changed)),
        parts_every: PARTS_EVERY,
    };
    let progress = Arc::new(Progress::default());
    let saved = save_device(
        repository,
        session(repository),
        request,
        Arc::clone(&progress),
    )
    .await
    .unwrap();
    (saved, progress.done())
}

async fn restore_image(repository: &Repository, snapshot: &Snapshot, place: &Path) {
    let request = RestoreDeviceRequest {
        root: snapshot.root,
        place: place.to_owned(),
        existing: Existing::Resume,
    };
    restore_device(
        Arc::new(repository.reader().await.unwrap()),
        request,
        Arc::default(),
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_back_with_its_holes() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    let image = File::create(&from).unwrap();
    image.set_len((100 << 20) + 1000).unwrap();
    image
        .write_all_at(&noise(1, 5 << 20), (16 << 20) - 7)
        .unwrap();
    image.write_all_at(&noise(2, 4096), 50 << 20).unwrap();
    image.write_all_at(b"end", (100 << 20) + 997).unwrap();
    image.write_all_at(&vec![0; 9 << 20], 60 << 20).unwrap();
    let repository = repository().await;
    let (saved, _) = save_image(&repository, &from, None).await;
    assert_eq!(saved.summary.bytes, (100 << 20) + 1000);
    // What is in the way is overwritten, also where the image has nothing.
    fs::write(&to, noise(3, 101 << 20)).unwrap();
    restore_image(&repository, &saved.snapshot, &to).await;
    assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
    assert!(to.metadata().unwrap().blocks() * 512 < 8 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_regions_that_changed_are_read() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::write(&from, noise(1, 64 << 20)).unwrap();
    let repository = repository().await;
    let (first, _) = save_image(&repository, &from, None).await;
    let image = File::options().write(true).open(&from).unwrap();
    image.write_all_at(b"changed", 40 << 20).unwrap();
    image.write_all_at(&vec![0; 128 << 10], 10 << 20).unwrap();
    let changed = vec![40 << 20..(40 << 20) + 7, 10 << 20..(10 << 20) + (128 << 10)];
    let (second, done) = save_image(&repository, &from, Some((first.snapshot, changed))).await;
    assert_eq!(done.bytes - done.unchanged, 3 * (64 << 10));
    restore_image(&repository, &second.snapshot, &to).await;
    assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_nothing_is_saved_and_restored() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    let repository = repository().await;
    for len in [0, 1, 3 << 20] {
        fs::write(&from, vec![0; len]).unwrap();
        let (saved, _) = save_image(&repository, &from, None).await;
        restore_image(&repository, &saved.snapshot, &to).await;
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
    }
}

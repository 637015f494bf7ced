//! What did not change is neither read nor stored again, and what did change is.

use std::{fs, sync::Arc};

use lifebuoy_data::{
    Change, Diff, Excludes, Existing, Listing, PARTS_EVERY, Progress, SaveRequest, TreePath, What,
    read_file, save,
};
use lifebuoy_repo::ChunkId;

use crate::support::{noise, repository, restore_all, save_all, seen, session, summary};

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    let from = place.path().join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..2000 {
        let directory = from.join(format!("{}", n % 50));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{n}")), noise(n, 3000)).unwrap();
    }
    fs::write(from.join("large"), noise(9, 9 << 20)).unwrap();
    let repository = repository().await;
    let (first, done, _) = save_all(&repository, &from, None).await;
    assert_eq!(done.unchanged, 0);
    let (second, done, _) = save_all(&repository, &from, Some(&first.snapshot)).await;
    assert_eq!(
        (done.unchanged, done.bytes),
        (done.bytes, first.summary.bytes)
    );
    assert_eq!(second.summary.bytes, first.summary.bytes);

    fs::write(from.join("7/7"), "changed").unwrap();
    fs::remove_file(from.join("8/8")).unwrap();
    fs::write(from.join("new"), "new").unwrap();
    let (third, done, problems) = save_all(&repository, &from, Some(&second.snapshot)).await;
    assert_eq!(problems, []);
    assert_eq!(done.bytes - done.unchanged, 10);
    let mut diff = Diff::of(
        &repository,
        &first.snapshot,
        &third.snapshot,
        &TreePath::default(),
    )
    .await
    .unwrap();
    let mut changes = Vec::new();
    while let Some((change, entry)) = diff.next().await.unwrap() {
        changes.push((change, entry.path.to_string()));
    }
    let expected = [
        (Change::Meta, "."),
        (Change::Contents, "7/7"),
        (Change::Meta, "8"),
        (Change::Removed, "8/8"),
        (Change::Added, "new"),
    ];
    assert_eq!(
        changes,
        expected.map(|(change, path)| (change, path.to_owned()))
    );

    let to = place.path().join("to");
    let (restored, ..) = restore_all(&repository, &third.snapshot, &to, Existing::Refuse).await;
    restored.unwrap();
    assert!(seen(&from) == seen(&to));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_only_touched_is_not_stored_again() {
    let place = tempfile::tempdir().unwrap();
    let from = place.path();
    for n in 0..200 {
        fs::write(from.join(format!("{n}")), noise(n, 3000)).unwrap();
    }
    let repository = repository().await;
    let (first, ..) = save_all(&repository, from, None).await;
    for n in (0..200).step_by(3) {
        fs::write(from.join(format!("{n}")), noise(n, 3000)).unwrap();
    }
    let (second, done, _) = save_all(&repository, from, Some(&first.snapshot)).await;
    assert_eq!(done.bytes - done.unchanged, 67 * 3000);
    let chunks = |snapshot| {
        let repository = repository.clone();
        async move {
            let mut listing = Listing::of(&repository, &snapshot, TreePath::default())
                .await
                .unwrap();
            let mut chunks = Vec::new();
            while let Some(entry) = listing.next().await.unwrap() {
                if let lifebuoy_data::Kind::File { content, .. } = entry.kind {
                    chunks.push(content);
                }
            }
            chunks
        }
    };
    assert_eq!(chunks(first.snapshot).await, chunks(second.snapshot).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_from_a_snapshot() {
    let place = tempfile::tempdir().unwrap();
    let from = place.path();
    let bytes = noise(1, 60 << 20);
    fs::write(from.join("large"), &bytes).unwrap();
    fs::write(from.join("small"), &bytes[..1000]).unwrap();
    fs::hard_link(from.join("small"), from.join("the same")).unwrap();
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, from, None).await;
    for (name, expected) in [
        ("large", &bytes[..]),
        ("small", &bytes[..1000]),
        ("the same", &bytes[..1000]),
    ] {
        let mut found = Vec::new();
        let path = TreePath::new(name.into()).unwrap();
        let mut write = |part: &[u8]| {
            found.extend_from_slice(part);
            Ok(())
        };
        read_file(&repository, &saved.snapshot, &path, &mut write)
            .await
            .unwrap();
        assert!(found == expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_before_that_cannot_be_read_costs_time_and_not_the_save() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("a"), "a").unwrap();
    let repository = repository().await;
    let lost = ChunkId::from_bytes([9; 32]);
    let request = SaveRequest {
        place: place.path().to_owned(),
        summary: summary(What::Files),
        excludes: Excludes::default(),
        one_file_system: false,
        before: Some(lost),
        parts_every: PARTS_EVERY,
    };
    let progress = Arc::new(Progress::default());
    let saved = save(
        &repository,
        session(&repository),
        request,
        Arc::clone(&progress),
    )
    .await;
    assert_eq!(saved.unwrap().summary.problems, 0);
    assert_eq!((progress.done().bytes, progress.done().unchanged), (1, 0));
    let warnings = progress.warnings();
    assert!(
        matches!(&warnings[..], [one] if one.starts_with("everything is read")),
        "{warnings:?}"
    );
}

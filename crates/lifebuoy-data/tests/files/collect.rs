//! Garbage collection and checks walk through files and devices.

use std::{fs, time::Duration};

use lifebuoy_data::{DataContents, Existing};
use lifebuoy_repo::{CheckLevel, CheckOptions, CollectOptions};

use crate::support::{noise, repository, restore_all, save_all, seen};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_needs_survives_a_collection_and_what_none_needs_does_not() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("only in the first"), noise(2, 9 << 20)).unwrap();
    let repository = repository().await;
    let (first, ..) = save_all(&repository, &from, None).await;
    fs::remove_file(from.join("only in the first")).unwrap();
    for n in 0..3000 {
        fs::write(from.join(format!("{n}")), noise(n, 2000)).unwrap();
    }
    // Enough chunks for a map.
    fs::write(from.join("large"), noise(1, 60 << 20)).unwrap();
    let (second, ..) = save_all(&repository, &from, Some(&first.snapshot)).await;
    let (second, ..) = save_all(&repository, &from, Some(&second.snapshot)).await;
    repository
        .forget(first.snapshot.session, "test")
        .await
        .unwrap();

    let options = CollectOptions {
        delete: true,
        grace: Duration::ZERO,
        keep_at_least: 1,
        delete_percent_max: 100,
        poll: Duration::from_millis(1),
        ..CollectOptions::default()
    };
    let report = repository.collect(&DataContents, &options).await.unwrap();
    assert!(report.deleted_bytes > 4 << 20, "{report:?}");
    let options = CheckOptions::new(CheckLevel::All);
    let report = repository.check(&DataContents, &options).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let (restored, _, problems) =
        restore_all(&repository, &second.snapshot, &to, Existing::Refuse).await;
    restored.unwrap();
    assert_eq!(problems, []);
    assert!(seen(&from) == seen(&to));
}

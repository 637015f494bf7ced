//! A comparison with the snapshot finds nothing after a restore, and whatever was changed.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use lifebuoy_data::{
    Existing, PARTS_EVERY, Progress, RestoreDeviceRequest, SaveDeviceRequest, TreePath,
    VerifyRequest, What, restore_device, save_device, verify,
};
use lifebuoy_repo::{Repository, Snapshot};

use crate::support::{noise, repository, restore_all, restore_part, save_all, session, summary};

/// The paths of what differs, and how many entries do not.
async fn differing(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &str,
    place: &Path,
) -> (Vec<String>, u64) {
    let request = VerifyRequest {
        root: snapshot.root,
        path: TreePath::new(path.into()).unwrap(),
        place: place.to_owned(),
    };
    let progress = Arc::new(Progress::default());
    verify(
        Arc::new(repository.reader().await.unwrap()),
        request,
        Arc::clone(&progress),
    )
    .await
    .unwrap();
    let problems = progress.problems_in_words();
    let mut paths: Vec<String> = problems.into_iter().map(|problem| problem.path).collect();
    paths.sort();
    (paths, progress.done().entries)
}

fn sparse(place: &Path) {
    let file = File::create(place).unwrap();
    file.set_len(20 << 20).unwrap();
    file.write_all_at(&noise(2, 3 << 20), 10 << 20).unwrap();
}

fn make(top: &Path) {
    fs::create_dir_all(top.join("deep/er")).unwrap();
    for (name, len) in [
        ("small", 300),
        ("deep/larger", 300_000),
        ("deep/large", 90 << 20),
    ] {
        fs::write(top.join(name), noise(1, len)).unwrap();
    }
    for name in ["empty", "mode", "time", "gone", "deep/er/kind"] {
        fs::write(top.join(name), name).unwrap();
    }
    sparse(&top.join("sparse"));
    sparse(&top.join("holes"));
    fs::hard_link(top.join("small"), top.join("deep/again")).unwrap();
    symlink("small", top.join("link")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_is_equal_and_what_was_changed_is_named() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::create_dir(&from).unwrap();
    make(&from);
    let repository = repository().await;
    let (saved, done, _) = save_all(&repository, &from, None).await;
    let snapshot = &saved.snapshot;
    let (restored, ..) = restore_all(&repository, snapshot, &to, Existing::Refuse).await;
    restored.unwrap();
    let all = differing(&repository, snapshot, "", &to).await;
    assert_eq!(all, (vec![], done.entries));

    let at = |name: &str| to.join(name);
    let modified = |name: &str| at(name).metadata().unwrap().modified().unwrap();
    // As a disk does that lies: the time stays.
    for (name, offset) in [
        ("small", 17),
        ("deep/larger", 299_999),
        ("deep/large", 80 << 20),
        ("sparse", 11 << 20),
        ("holes", 1 << 20),
    ] {
        let time = modified(name);
        let file = File::options().write(true).open(at(name)).unwrap();
        file.write_all_at(b"?", offset).unwrap();
        file.set_modified(time).unwrap();
    }
    let time = modified("deep/er");
    fs::remove_file(at("deep/er/kind")).unwrap();
    fs::create_dir(at("deep/er/kind")).unwrap();
    File::open(at("deep/er"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let time = modified("deep");
    fs::remove_file(at("deep/again")).unwrap();
    fs::copy(at("small"), at("deep/again")).unwrap();
    File::open(at("deep")).unwrap().set_modified(time).unwrap();
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    File::open(at("time"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    let time = modified("");
    fs::remove_file(at("gone")).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("large", at("link")).unwrap();
    File::open(&to).unwrap().set_modified(time).unwrap();

    let (paths, equal) = differing(&repository, snapshot, "", &to).await;
    let expected = [
        "deep/again",
        "deep/er/kind",
        "deep/large",
        "deep/larger",
        "gone",
        "holes",
        "link",
        "mode",
        "small",
        "sparse",
        "time",
    ];
    assert_eq!(paths, expected);
    assert_eq!(equal, done.entries - expected.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_compared_with_the_part() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::create_dir(&from).unwrap();
    make(&from);
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, &from, None).await;
    // The first name of `deep/again`, or it itself, is outside of one of them.
    for (n, path) in ["deep", "small", "deep/large"].into_iter().enumerate() {
        let to = to.with_extension(n.to_string());
        let (restored, again, problems) =
            restore_part(&repository, &saved.snapshot, path, &to, Existing::Refuse).await;
        restored.unwrap();
        assert_eq!(problems, []);
        let found = differing(&repository, &saved.snapshot, path, &to).await;
        assert_eq!(found, (vec![], again.entries), "{path}");
        let name = if path == "deep" { to.join("again") } else { to };
        File::options()
            .write(true)
            .open(name)
            .unwrap()
            .set_len(5)
            .unwrap();
    }
    let cut = to.with_extension("0");
    let (paths, _) = differing(&repository, &saved.snapshot, "deep", &cut).await;
    assert_eq!(paths, ["again"]);
    let cut = to.with_extension("2");
    let (paths, _) = differing(&repository, &saved.snapshot, "deep/large", &cut).await;
    assert_eq!(paths, ["."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_compared_with_its_holes() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    sparse(&from);
    let repository = repository().await;
    let request = SaveDeviceRequest {
        place: from,
        summary: summary(What::Device),
        before: None,
        parts_every: PARTS_EVERY,
    };
    let saved = save_device(&repository, session(&repository), request, Arc::default());
    let snapshot = saved.await.unwrap().snapshot;
    let request = RestoreDeviceRequest {
        root: snapshot.root,
        place: to.clone(),
        existing: Existing::Refuse,
    };
    restore_device(
        Arc::new(repository.reader().await.unwrap()),
        request,
        Arc::default(),
    )
    .await
    .unwrap();
    assert_eq!(
        differing(&repository, &snapshot, "", &to).await,
        (vec![], 1)
    );
    for offset in [5 << 20, 12 << 20] {
        let file = File::options().read(true).write(true).open(&to).unwrap();
        let mut before = [0];
        file.read_exact_at(&mut before, offset).unwrap();
        file.write_all_at(&[before[0] ^ 1], offset).unwrap();
        let found = differing(&repository, &snapshot, "", &to).await;
        assert_eq!(found, (vec![".".to_owned()], 0), "{offset}");
        file.write_all_at(&before, offset).unwrap();
    }
}

//! Whatever is at a place: after a restore over it, it is what the snapshot holds.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use lifebuoy_data::Existing;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::support::{noise, repository, restore_all, save_all, seen};

/// Names whose order differs from that of paths.
const NAMES: [&str; 5] = ["a", "a-", "a.b", "b", "z"];

/// Something that somebody does to a tree. What cannot be done is not.
#[derive(Clone, Debug)]
enum Deed {
    Directory(u32),
    /// Files of one length and time may have different bytes.
    File {
        seed: u64,
        length: usize,
        touched: u64,
        mode: u32,
    },
    Symlink(String),
    Fifo,
    HardLink(Vec<usize>),
    Attribute(u8),
}

type Deeds = Vec<(Vec<usize>, Deed)>;

fn path() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..NAMES.len(), 1..4)
}

fn deeds() -> impl Strategy<Value = Deeds> {
    let deed = prop_oneof![
        4 => prop::sample::select(vec![0o755, 0o700, 0o2775, 0o1777]).prop_map(Deed::Directory),
        4 => (0..3_u64, prop::sample::select(vec![0, 5, 300_000]), 0..2_u64, prop::sample::select(vec![0o644, 0o4700]))
            .prop_map(|(seed, length, touched, mode)| Deed::File { seed, length, touched, mode }),
        1 => prop::sample::select(vec!["a", "../outside", "/nowhere"]).prop_map(|to| Deed::Symlink(to.to_owned())),
        1 => Just(Deed::Fifo),
        1 => path().prop_map(Deed::HardLink),
        1 => (0..2_u8).prop_map(Deed::Attribute),
    ];
    prop::collection::vec((path(), deed), 0..25)
}

fn below(top: &Path, names: &[usize]) -> PathBuf {
    names
        .iter()
        .map(|name| NAMES[*name])
        .fold(top.to_owned(), |path, name| path.join(name))
}

/// Does it, without following a link out.
fn make(top: &Path, deeds: &Deeds) {
    fs::create_dir_all(top).unwrap();
    for (names, deed) in deeds {
        let at = below(top, names);
        let is_inside = at.parent().and_then(|above| above.canonicalize().ok());
        if !is_inside.is_some_and(|above| above.starts_with(top.canonicalize().unwrap())) {
            continue;
        }
        let is_free = at.symlink_metadata().is_err();
        let _ = match deed {
            Deed::Directory(mode) if is_free => fs::create_dir(&at)
                .and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(*mode))),
            Deed::File {
                seed,
                length,
                touched,
                mode,
            } if is_free => fs::write(&at, noise(*seed, *length)).and_then(|()| {
                let at_time = UNIX_EPOCH + Duration::from_secs(1_000_000 + touched);
                File::options()
                    .write(true)
                    .open(&at)?
                    .set_modified(at_time)?;
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode))
            }),
            Deed::Symlink(to) => symlink(to, &at),
            Deed::Fifo => {
                rustix::fs::mknodat(CWD, &at, FileType::Fifo, Mode::RUSR, 0).map_err(Into::into)
            }
            Deed::HardLink(from) => {
                let from = below(top, from);
                let is_file = from.symlink_metadata().is_ok_and(|there| there.is_file());
                if is_file {
                    fs::hard_link(from, &at)
                } else {
                    Ok(())
                }
            }
            Deed::Attribute(value) => {
                rustix::fs::lsetxattr(&at, "user.x", &[*value], XattrFlags::empty())
                    .map_err(Into::into)
            }
            _ => Ok(()),
        };
    }
}

async fn restored_over(deeds: &Deeds, before: &Deeds) {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    let outside = place.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a"), "not ours").unwrap();
    make(&from, deeds);
    make(&to, before);
    let untouched = seen(&outside);
    let repository = repository().await;
    let (saved, _, problems) = save_all(&repository, &from, None).await;
    assert_eq!(problems, []);
    for _ in 0..2 {
        let (restored, _, problems) =
            restore_all(&repository, &saved.snapshot, &to, Existing::Overwrite).await;
        restored.unwrap();
        assert_eq!(problems, []);
        assert_eq!(seen(&from), seen(&to));
        assert_eq!(seen(&outside), untouched);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_becomes_that_of_the_snapshot(tree in deeds(), before in deeds()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(restored_over(&tree, &before));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_with_the_right_bytes_stay() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    let file = |mode| Deed::File {
        seed: 1,
        length: 300_000,
        touched: 0,
        mode,
    };
    let other = Deed::File {
        seed: 2,
        length: 300_000,
        touched: 0,
        mode: 0o644,
    };
    make(&from, &vec![(vec![0], file(0o644)), (vec![3], file(0o644))]);
    make(&to, &vec![(vec![0], file(0o4700)), (vec![3], other)]);
    let number = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    let before = number("a");
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, &from, None).await;
    let (restored, done, problems) =
        restore_all(&repository, &saved.snapshot, &to, Existing::Overwrite).await;
    restored.unwrap();
    assert_eq!((problems, done.unchanged), (vec![], 300_000));
    assert_eq!(seen(&from), seen(&to));
    assert_eq!(number("a"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_the_file_system_stays_and_what_is_deep_goes() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::create_dir_all(from.join("kept")).unwrap();
    fs::create_dir_all(to.join("kept/lost+found")).unwrap();
    fs::create_dir_all(to.join("lost+found/#123")).unwrap();
    fs::create_dir_all(to.join("x/.lifebuoy-removes-1/y")).unwrap();
    // Deeper than a path can be long.
    let mut deep = File::open(to.join("x")).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&deep, "deep", Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY;
        deep = rustix::fs::openat(&deep, "deep", flags, Mode::empty())
            .unwrap()
            .into();
    }
    rustix::fs::openat(
        &deep,
        "file",
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
        Mode::RUSR,
    )
    .unwrap();
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, &from, None).await;
    let (restored, _, problems) =
        restore_all(&repository, &saved.snapshot, &to, Existing::Overwrite).await;
    restored.unwrap();
    assert_eq!(problems, []);
    let left: Vec<Vec<u8>> = seen(&to).into_keys().collect();
    let expected = ["", "kept", "lost+found", "lost+found/#123"];
    assert_eq!(left, expected.map(|path| path.as_bytes().to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_directory_had_is_not_inherited() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    for top in [&from, &to] {
        fs::create_dir_all(top.join("folder")).unwrap();
    }
    fs::write(from.join("folder/file"), "x").unwrap();
    // Version 2; the owner, a user, the group, the mask and all others.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, id) in [
        (1_u16, u32::MAX),
        (2, 1234),
        (4, u32::MAX),
        (16, u32::MAX),
        (32, u32::MAX),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&7_u16.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    for folder in [to.clone(), to.join("folder")] {
        let set = rustix::fs::lsetxattr(
            &folder,
            "system.posix_acl_default",
            &acl,
            XattrFlags::empty(),
        );
        if set.is_err() {
            println!("skipped: this file system has no ACLs");
            return;
        }
    }
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, &from, None).await;
    let (restored, _, problems) =
        restore_all(&repository, &saved.snapshot, &to, Existing::Overwrite).await;
    restored.unwrap();
    assert_eq!(problems, []);
    assert_eq!(seen(&from), seen(&to));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_beside_a_single_file_goes() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("one"), "just this").unwrap();
    fs::create_dir(place.path().join("to")).unwrap();
    fs::write(place.path().join("to/beside"), "stays").unwrap();
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, &place.path().join("one"), None).await;
    let to = place.path().join("to/one");
    let (restored, ..) = restore_all(&repository, &saved.snapshot, &to, Existing::Overwrite).await;
    restored.unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"just this");
    assert_eq!(fs::read(place.path().join("to/beside")).unwrap(), b"stays");
}

//! A tree with every oddity is the same after a save and a restore.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
};

use lifebuoy_data::Existing;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::support::{noise, repository, restore_all, restore_part, save_all, seen};

fn sparse(place: &Path) {
    let file = File::create(place).unwrap();
    file.set_len(40 << 20).unwrap();
    file.write_all_at(&noise(1, 100_000), 3 << 20).unwrap();
    file.write_all_at(&noise(2, 9 << 20), 20 << 20).unwrap();
}

/// Makes one of everything that an ordinary user can make, and as root the rest.
fn make(top: &Path) {
    let at = |name: &str| top.join(name);
    fs::create_dir_all(at("deep/er/est")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("nothing"), "").unwrap();
    fs::write(at("small"), "small\n").unwrap();
    fs::write(at("deep/small again"), "small\n").unwrap();
    fs::write(at("deep/er/limit"), noise(3, 256 * 1024)).unwrap();
    fs::write(at("deep/er/above"), noise(4, 256 * 1024 + 1)).unwrap();
    fs::write(at("large"), noise(5, 23 << 20)).unwrap();
    fs::write(at("zeros"), vec![0; 5 << 20]).unwrap();
    fs::write(top.join(OsStr::from_bytes(b"not \xff UTF-8\n")), "x").unwrap();
    fs::write(at(&"n".repeat(255)), "long").unwrap();
    fs::hard_link(at("small"), at("deep/small, linked")).unwrap();
    fs::hard_link(at("large"), at("a large one, linked")).unwrap();
    symlink("small", at("link")).unwrap();
    symlink("/nowhere/at all", at("dangling")).unwrap();
    sparse(&at("sparse"));
    File::create(at("hole")).unwrap().set_len(7 << 20).unwrap();
    for n in 0..300 {
        fs::write(at(&format!("deep/er/est/{n}")), noise(n, (n * 37) as usize)).unwrap();
    }
    rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    let set = |name: &str, attribute: &str, value: &[u8]| {
        // Not every file system has them.
        let _ = rustix::fs::lsetxattr(at(name), attribute, value, XattrFlags::empty());
    };
    set("small", "user.one", b"1");
    set("small", "user.two", &[0, 255]);
    set("empty", "user.of a directory", b"");
    set("large", "user.long", &noise(6, 3000));
    if rustix::process::geteuid().is_root() {
        for (name, kind) in [
            ("null", FileType::CharacterDevice),
            ("loop", FileType::BlockDevice),
        ] {
            let device = rustix::fs::makedev(7, 42);
            rustix::fs::mknodat(CWD, at(name), kind, Mode::RUSR, device).unwrap();
        }
        std::os::unix::fs::chown(at("deep"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(at("link"), Some(77), Some(88)).unwrap();
        set("link", "trusted.of a link", b"yes");
        set("small", "trusted.three", b"3");
    }
    let mode = |name: &str, mode| {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("small", 0o4750);
    mode("nothing", 0o000);
    mode("empty", 0o1777);
    mode("deep/er/est", 0o555);
    let long_ago = std::time::UNIX_EPOCH - std::time::Duration::new(12_345, 678_901_234);
    File::open(at("deep/er/above"))
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    File::open(at("deep/er"))
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_every_oddity_comes_back_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::create_dir(&from).unwrap();
    make(&from);
    let repository = repository().await;
    let (saved, done, problems) = save_all(&repository, &from, None).await;
    assert_eq!(problems, []);
    let (restored, again, problems) =
        restore_all(&repository, &saved.snapshot, &to, Existing::Refuse).await;
    assert_eq!(restored.unwrap(), saved.summary);
    assert_eq!(problems, []);
    assert_eq!(done.entries, again.entries);
    let (expected, found) = (seen(&from), seen(&to));
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        found.keys().collect::<Vec<_>>()
    );
    for (path, expected) in &expected {
        assert!(
            found[path] == *expected,
            "{}",
            String::from_utf8_lossy(path)
        );
    }
    // Directories that nobody may write to must not stay behind.
    for top in [&from, &to] {
        fs::set_permissions(top.join("deep/er/est"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_file_is_saved_and_restored() {
    let place = tempfile::tempdir().unwrap();
    let from = place.path().join("one");
    fs::write(&from, "just this").unwrap();
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, &from, None).await;
    assert_eq!((saved.summary.entries, saved.summary.bytes), (1, 9));
    let to = place.path().join("another");
    let (restored, _, problems) =
        restore_all(&repository, &saved.snapshot, &to, Existing::Refuse).await;
    restored.unwrap();
    assert_eq!(problems, []);
    assert_eq!(fs::read_to_string(to).unwrap(), "just this");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_whole_also_where_the_first_name_of_a_file_is_outside_of_it() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::create_dir_all(from.join("part")).unwrap();
    fs::write(from.join("first"), noise(1, 300_000)).unwrap();
    for name in ["part/second", "part/third"] {
        fs::hard_link(from.join("first"), from.join(name)).unwrap();
    }
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, &from, None).await;
    let alone = place.path().join("alone");
    for (path, to) in [("part", &to), ("part/third", &alone)] {
        let (restored, _, problems) =
            restore_part(&repository, &saved.snapshot, path, to, Existing::Refuse).await;
        restored.unwrap();
        assert_eq!(problems, []);
    }
    for file in [to.join("second"), to.join("third"), alone] {
        assert!(fs::read(file).unwrap() == noise(1, 300_000));
    }
    let number = |name| fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(number("second"), number("third"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_over_what_is_there_and_an_interrupted_restore_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::create_dir(&from).unwrap();
    make(&from);
    let repository = repository().await;
    let (saved, ..) = save_all(&repository, &from, None).await;
    fs::create_dir(&to).unwrap();
    fs::write(to.join("small"), "half").unwrap();
    fs::create_dir(to.join("link")).unwrap();
    let (refused, ..) = restore_all(&repository, &saved.snapshot, &to, Existing::Refuse).await;
    assert!(matches!(
        refused,
        Err(lifebuoy_data::Error::NotEmpty { .. })
    ));
    let (first, _, problems) =
        restore_all(&repository, &saved.snapshot, &to, Existing::Resume).await;
    first.unwrap();
    assert_eq!(problems, []);
    assert_eq!(seen(&from), seen(&to));
    // What is there as it should be is not written again.
    fs::remove_file(to.join("large")).unwrap();
    fs::remove_file(to.join("a large one, linked")).unwrap();
    let (again, done, problems) =
        restore_all(&repository, &saved.snapshot, &to, Existing::Resume).await;
    again.unwrap();
    assert_eq!(problems, []);
    assert_eq!(done.bytes - done.unchanged, 23 << 20);
    assert_eq!(seen(&from), seen(&to));
    for top in [&from, &to] {
        fs::set_permissions(top.join("deep/er/est"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

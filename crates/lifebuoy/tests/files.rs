//! Files and devices by hand, on a real repository in a directory: what is saved comes
//! back as it was, what is refused changes nothing, and how each command ends.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use serde_json::Value;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const PARTIAL: i32 = 3;
const REFUSED: i32 = 4;

const MIB: u64 = 1024 * 1024;

/// A place with a repository in it, and whatever a test makes beside it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let place = Self {
            folder: tempfile::tempdir()?,
        };
        fs::create_dir(place.at("bucket"))?;
        place.run("repo init", DONE)?;
        Ok(place)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command in the place.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifebuoy"));
        command
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env_clear()
            .env(
                "LIFEBUOY_REPO_URL",
                format!("file://{}", self.at("bucket").display()),
            )
            .env("LIFEBUOY_PASSPHRASE", "correct horse battery staple");
        command
    }

    /// Runs a command in the place; returns what it prints.
    fn bytes(&self, line: &str, code: i32) -> Result<(Vec<u8>, String)> {
        let output = self.command(line).output()?;
        let err = String::from_utf8(output.stderr)?;
        let ended = output.status;
        let out = String::from_utf8_lossy(&output.stdout);
        ensure!(ended.code() == Some(code), "{line}: {ended}\n{out}\n{err}");
        Ok((output.stdout, err))
    }

    fn run(&self, line: &str, code: i32) -> Result<String> {
        Ok(String::from_utf8(self.bytes(line, code)?.0)?)
    }

    fn error(&self, line: &str, code: i32) -> Result<String> {
        Ok(self.bytes(line, code)?.1)
    }

    fn json(&self, line: &str, code: i32) -> Result<Value> {
        let out = self.run(&format!("{line} -o json"), code)?;
        serde_json::from_str(&out).with_context(|| format!("{line}: {out}"))
    }

    /// Saves `from`, and returns the snapshot's id.
    fn save(&self) -> Result<String> {
        let out = self.run("repo save from -o name", DONE)?;
        Ok(out.trim_end().to_owned())
    }

    fn stored_bytes(&self) -> Result<u64> {
        let seen = seen(&self.at("bucket"))?;
        let files = seen
            .values()
            .filter(|seen| seen.mode & 0o170_000 == 0o100_000);
        Ok(files.map(|seen| seen.size).sum())
    }
}

/// Bytes that compress badly, the same each time.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Makes `from`, with what an ordinary user can make.
fn make(top: &Path) -> Result<()> {
    let at = |name: &str| top.join(name);
    fs::create_dir_all(at("deep/er"))?;
    fs::write(at("small"), "small\n")?;
    fs::write(at("large"), noise(3_000_000))?;
    fs::write(at("empty"), "")?;
    fs::write(top.join(OsStr::from_bytes(b"odd \xff\n name")), "odd")?;
    fs::write(at(&"n".repeat(255)), "long")?;
    fs::hard_link(at("large"), at("deep/large, linked"))?;
    symlink("../nowhere", at("deep/link"))?;
    let sparse = File::create(at("sparse"))?;
    sparse.set_len(40 * MIB)?;
    sparse.write_all_at(&noise(100_000), 20 * MIB)?;
    rustix::fs::mknodat(CWD, at("deep/pipe"), FileType::Fifo, Mode::RUSR, 0)?;
    for name in ["small", "deep"] {
        // Not every file system has them.
        let _ = rustix::fs::lsetxattr(at(name), "user.of", name.as_bytes(), XattrFlags::empty());
    }
    for (name, mode) in [("small", 0o4750), ("empty", 0o400), ("deep/er", 0o1777)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode))?;
    }
    let long_ago = std::time::UNIX_EPOCH - std::time::Duration::new(12_345, 678_901_234);
    for name in ["large", "deep"] {
        File::open(at(name))?.set_modified(long_ago)?;
    }
    Ok(())
}

/// One thing on disk: what a restore has to bring back.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    size: u64,
    names: u64,
    is_sparse: bool,
    attribute: Vec<u8>,
    contents: Vec<u8>,
}

fn seen(top: &Path) -> Result<BTreeMap<PathBuf, Seen>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let place = top.join(&path);
        let meta = fs::symlink_metadata(&place)?;
        let kind = meta.file_type();
        let contents = if kind.is_file() {
            fs::read(&place)?
        } else if kind.is_symlink() {
            fs::read_link(&place)?.into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        let mut attribute = vec![0; 100];
        let length = rustix::fs::lgetxattr(&place, "user.of", &mut attribute[..]);
        attribute.truncate(length.unwrap_or_default());
        if kind.is_dir() {
            for entry in fs::read_dir(&place)? {
                waiting.push(path.join(entry?.file_name()));
            }
        }
        // What a directory says of these is the file system's own business.
        let of_file = |number| if kind.is_dir() { 0 } else { number };
        let seen = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: of_file(meta.size()),
            names: of_file(meta.nlink()),
            is_sparse: kind.is_file() && meta.blocks() * 512 < meta.size(),
            attribute,
            contents,
        };
        found.insert(path, seen);
    }
    Ok(found)
}

#[test]
fn a_directory_comes_back_as_it_was_and_only_into_an_empty_place() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    let saved = place.json("repo save from", DONE)?;
    let expected = seen(&place.at("from"))?;
    ensure!(saved["entries"] == expected.len(), "{saved}");
    place.json("repo restore latest to", DONE)?;
    let found = seen(&place.at("to"))?;
    for (path, expected) in &expected {
        ensure!(found.get(path) == Some(expected), "{path:?} is another");
    }
    ensure!(found.len() == expected.len());

    let refused = place.error("repo restore latest to", REFUSED)?;
    ensure!(
        refused.contains("not empty") && refused.contains("--resume"),
        "{refused}"
    );
    fs::create_dir(place.at("taken"))?;
    fs::write(place.at("taken/mine"), "mine")?;
    place.run("repo restore latest taken", REFUSED)?;
    ensure!(seen(&place.at("taken"))?.len() == 2);

    fs::create_dir(place.at("ready"))?;
    let part = "repo restore latest ready --path deep";
    ensure!(place.json(part, DONE)?["problemsTotal"] == 0);
    ensure!(fs::read(place.at("ready/large, linked"))? == noise(3_000_000));
    place.run("repo restore latest none --path not/there", FAILED)?;
    ensure!(!place.at("none").exists());
    Ok(())
}

#[test]
fn what_did_not_change_is_not_stored_again() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    let first = place.json("repo save from", DONE)?;
    let before = place.stored_bytes()?;
    let second = place.json("repo save from", DONE)?;
    ensure!(first["unchangedBytes"] == 0, "{first}");
    ensure!(second["unchangedBytes"] == second["bytes"], "{second}");
    ensure!(second["entries"] == first["entries"], "{second}");
    let added = place.stored_bytes()? - before;
    ensure!(added < 32 * 1024, "{added} bytes for nothing new");
    // Also what is read once more is not stored once more.
    let again = place.json("repo save from --read-all", DONE)?;
    ensure!(again["unchangedBytes"] == 0, "{again}");
    ensure!(place.stored_bytes()? - before < 64 * 1024);
    Ok(())
}

#[test]
fn snapshots_are_listed_read_and_compared() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    let first = place.save()?;
    fs::write(place.at("from/small"), "other\n")?;
    fs::write(place.at("from/new"), "new")?;
    fs::remove_file(place.at("from/sparse"))?;
    fs::set_permissions(place.at("from/large"), fs::Permissions::from_mode(0o600))?;
    let second = place.save()?;

    ensure!(place.run("repo ls -o name", DONE)? == format!("{first}\n{second}\n"));
    let names = place.run(&format!("repo ls {first} deep -o name"), DONE)?;
    ensure!(names == "deep\ndeep/er\ndeep/large, linked\ndeep/link\ndeep/pipe\n");
    let lines = place.run("repo ls latest deep/link", DONE)?;
    ensure!(lines.ends_with("deep/link -> ../nowhere\n"), "{lines}");

    ensure!(place.run(&format!("repo cat {} small", &first[..8]), DONE)? == "small\n");
    ensure!(place.run("repo cat latest small", DONE)? == "other\n");
    ensure!(place.bytes("repo cat latest large", DONE)?.0 == noise(3_000_000));
    let no_file = place.error("repo cat latest deep", FAILED)?;
    ensure!(no_file.contains("\"deep\" is not a file"), "{no_file}");
    let gone = place.error("repo cat latest sparse", FAILED)?;
    ensure!(gone.contains("holds no \"sparse\""), "{gone}");

    let changes = place.run(&format!("repo diff {first} latest"), DONE)?;
    let expected = "m .\nm deep/large, linked\nm large\n+ new\nM small\n- sparse\n";
    ensure!(changes == expected, "{changes}");
    ensure!(
        place
            .run(&format!("repo diff {second} latest"), DONE)?
            .is_empty()
    );
    let unknown = place.error("repo diff 0123abcd latest", USAGE)?;
    ensure!(unknown.contains("`0123abcd`"), "{unknown}");
    Ok(())
}

#[test]
fn what_is_excluded_is_left_out_with_everything_in_it() -> Result<()> {
    let place = Place::new()?;
    fs::create_dir_all(place.at("from/a/cache/b"))?;
    for name in ["a/cache/b/c", "a/x.o", "x.o", "y", "build"] {
        fs::write(place.at("from").join(name), name)?;
    }
    let line = "repo save from --exclude *.o --exclude cache/ --exclude /build";
    place.run(line, DONE)?;
    ensure!(place.run("repo ls latest -o name", DONE)? == ".\na\ny\n");
    place.run("repo save from --exclude [a", USAGE)?;
    place.run("repo save nowhere", FAILED)?;
    Ok(())
}

#[test]
fn a_device_comes_back_with_its_holes() -> Result<()> {
    let place = Place::new()?;
    let image = File::create(place.at("disk.img"))?;
    // Not a whole number of blocks.
    let size = 64 * MIB + 512;
    image.set_len(size)?;
    image.write_all_at(&noise(1_000_000), 5 * MIB + 7)?;
    image.write_all_at(&vec![0; 4_000_000], 30 * MIB)?;
    let saved = place.json("repo save --device disk.img", DONE)?;
    ensure!(
        saved["kind"] == "Device" && saved["bytes"] == size,
        "{saved}"
    );
    place.json("repo restore latest copy.img", DONE)?;
    ensure!(fs::read(place.at("copy.img"))? == fs::read(place.at("disk.img"))?);
    let used = fs::metadata(place.at("copy.img"))?.blocks() * 512;
    ensure!(used < 2 * MIB, "{used} bytes are used");

    image.write_all_at(b"changed", 40 * MIB)?;
    image.write_all_at(b"nobody said so", 50 * MIB)?;
    fs::write(place.at("changed"), format!("{} 7\n", 40 * MIB))?;
    place.json("repo save --device disk.img --changed changed", DONE)?;
    place.json("repo restore latest again.img", DONE)?;
    let again = fs::read(place.at("again.img"))?;
    let at = |begin: u64, len| again.iter().skip(begin as usize).take(len);
    ensure!(at(40 * MIB, 7).eq(b"changed"));
    ensure!(
        at(50 * MIB, 14).all(|byte| *byte == 0),
        "all of it was read"
    );

    let refused = place.error("repo restore latest again.img", REFUSED)?;
    ensure!(refused.contains("again.img"), "{refused}");
    let no_files = place.error("repo ls latest", FAILED)?;
    ensure!(no_files.contains("device"), "{no_files}");
    place.run("repo check --level all", DONE)?;
    Ok(())
}

#[test]
fn damage_is_named_by_the_file_and_the_rest_is_restored() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    place.save()?;
    let packs = seen(&place.at("bucket/packs"))?;
    let largest = packs.iter().max_by_key(|(_, seen)| seen.size);
    let (pack, seen_pack) = largest.context("no packs")?;
    let mut bytes = seen_pack.contents.clone();
    // In the middle of chunks of `large`, which does not compress.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(place.at("bucket/packs").join(pack), bytes)?;
    let report = place.json("repo check --level all", PARTIAL)?;
    let affected = report["affected"][0].to_string();
    ensure!(affected.contains("large"), "{report}");
    let restored = place.json("repo restore latest to", PARTIAL)?;
    let problems = restored["problems"].to_string();
    ensure!(problems.contains("large"), "{restored}");
    ensure!(fs::read_to_string(place.at("to/small"))? == "small\n");
    Ok(())
}

#[test]
fn a_collection_ends_what_was_forgotten_and_leaves_the_newest_whole() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    fs::write(place.at("from/old"), &noise(5_000_000)[4_000_000..])?;
    let old = place.save()?;
    fs::remove_file(place.at("from/old"))?;
    let new = place.save()?;
    place.run(&format!("recoverypoint forget {old}"), DONE)?;
    ensure!(place.run("repo ls -o name", DONE)? == format!("{new}\n"));
    let line = "repo collect --delete --grace 0s --keep-at-least 1 --stall 1s \
                --repack-below-percent 100 --delete-at-most-percent 100";
    ensure!(place.json(line, DONE)?["forgotten"] == 1);
    let report = place.json("repo check --level all", DONE)?;
    ensure!(report["clean"] == true, "{report}");
    place.json("repo restore latest to", DONE)?;
    ensure!(seen(&place.at("to"))? == seen(&place.at("from"))?);
    place.run(&format!("repo restore {old} gone"), USAGE)?;
    Ok(())
}

#[test]
fn names_are_printed_so_that_a_terminal_only_shows_them() -> Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.at("from"))?;
    let odd = OsStr::from_bytes(b"\x1b[2J\n\xff");
    fs::write(place.at("from").join(odd), "odd")?;
    symlink(odd, place.at("from/link"))?;
    place.save()?;
    let shown = r"\033[2J\n\377";
    let lines = place.run("repo ls latest", DONE)?;
    ensure!(lines.lines().count() == 3, "{lines}");
    ensure!(lines.contains(&format!("link -> {shown}")), "{lines}");
    ensure!(place.run("repo ls latest -o name", DONE)? == format!(".\n{shown}\nlink\n"));
    let json = place.run("repo ls latest -o json", DONE)?;
    let values: Vec<Value> = json
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(
        values[1]["path"] == shown && values[1]["pathBase64"] == "G1sySgr/",
        "{json}"
    );
    ensure!(values[2]["targetBase64"] == "G1sySgr/", "{json}");

    // What a shell passes on is taken as it is.
    let output = place.command("repo cat latest").arg(odd).output()?;
    ensure!(output.stdout == b"odd", "{output:?}");
    let gone = OsStr::from_bytes(b"\x1b[2J\xfe");
    let output = place.command("repo cat latest").arg(gone).output()?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(error.contains(r#"holds no "\033[2J\376""#), "{error}");
    Ok(())
}

#[test]
fn a_restore_is_compared_with_what_was_saved() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    place.save()?;
    let restored = place.json("repo restore latest to --verify", DONE)?;
    ensure!(
        restored["compared"]["entries"] == restored["entries"],
        "{restored}"
    );
    // Of the size and with the time of what was there: a resumed restore keeps it.
    let file = File::options().write(true).open(place.at("to/large"))?;
    let time = file.metadata()?.modified()?;
    file.write_all_at(b"not this", 2_000_000)?;
    file.set_modified(time)?;
    drop(file);
    let line = "repo restore latest to --resume --verify";
    let compared = place.json(line, PARTIAL)?["compared"].clone();
    ensure!(compared["problemsTotal"] == 1, "{compared}");
    ensure!(
        compared["problems"][0]["path"]
            .to_string()
            .contains("large"),
        "{compared}"
    );
    let table = place.run(line, PARTIAL)?;
    ensure!(table.contains("What differs:"), "{table}");
    Ok(())
}

#[test]
fn the_latest_of_several_places_is_asked_for() -> Result<()> {
    let place = Place::new()?;
    for name in ["from", "other"] {
        fs::create_dir(place.at(name))?;
        fs::write(place.at(name).join("name"), name)?;
        place.run(&format!("repo save {name}"), DONE)?;
    }
    let asked = place.error("repo cat latest name", USAGE)?;
    ensure!(
        asked.contains("2 places") && asked.contains("--saved-from"),
        "{asked}"
    );
    let from = place.at("from").canonicalize()?;
    let line = format!("repo cat latest name --saved-from {}", from.display());
    ensure!(place.run(&line, DONE)? == "from");
    place.run("repo save from --host another", DONE)?;
    ensure!(place.run("repo cat latest name --host another", DONE)? == "from");
    ensure!(
        place
            .json("repo ls --host another", DONE)?
            .as_array()
            .map(Vec::len)
            == Some(1)
    );
    Ok(())
}

#[test]
fn a_limit_holds_for_the_whole_command() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    let begun = std::time::Instant::now();
    place.run("repo save from --limit-upload 2MiB", DONE)?;
    // The packs are about 3 MB; the first of them goes at once.
    let sent = begun.elapsed();
    place.run("repo restore latest to --limit-download 2MiB", DONE)?;
    let received = begun.elapsed() - sent;
    ensure!(received.as_secs_f64() > 1.0, "{sent:?}, then {received:?}");
    let wrong = place.error("repo save from --limit-upload fast", USAGE)?;
    ensure!(wrong.contains("500k"), "{wrong}");
    Ok(())
}

//! The care of a repository by hand, on a real one: a copy of the golden
//! repository, in a directory. What a person sees, what a script gets, and how
//! each command ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The one snapshot that is forgotten, whose chunks others share; the session that
/// was fenced; and the newest snapshot of cluster `golden-a`.
const FORGOTTEN: &str = "62d0a831f9a128ec841fe7fbf8aa0677";
const FENCED: &str = "557cc2d9340fc20946859fafc7efe80c";
const NEWEST: &str = "1ee8e0f6eb0f5162533a5856c6e8502f";

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const PARTIAL: i32 = 3;
const REFUSED: i32 = 4;

/// A copy of the golden repository, which is of format 1.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        copy(&golden().join("bucket"), &folder.path().join("bucket"))?;
        Ok(Self { folder })
    }

    /// A copy that is upgraded to the newest format.
    fn upgraded() -> Result<Self> {
        let copy = Self::new()?;
        copy.run("repo upgrade", DONE)?;
        Ok(copy)
    }

    fn bucket(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    /// The files of the bucket below `prefix`, sorted.
    fn files(&self, prefix: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        files(&self.bucket(), &mut found)?;
        let keys = found.iter().filter_map(|path| {
            let key = path.strip_prefix(self.bucket()).ok()?.to_str()?;
            key.starts_with(prefix).then(|| key.to_owned())
        });
        let mut keys: Vec<String> = keys.collect();
        keys.sort();
        Ok(keys)
    }

    /// Flips a bit of a data pack: of the first chunk in it.
    fn damage(&self, session: &str) -> Result<String> {
        let packs = self.files("packs/")?;
        let key = packs
            .into_iter()
            .find(|key| key.contains(session) && key.ends_with(".data"))
            .context("no such pack")?;
        let path = self.bucket().join(&key);
        let mut bytes = fs::read(&path)?;
        bytes[60] ^= 0x10;
        fs::write(&path, bytes)?;
        Ok(key)
    }

    fn run(&self, line: &str, code: i32) -> Result<Said> {
        let output = Command::new(env!("CARGO_BIN_EXE_lifebuoy"))
            .args(line.split_whitespace())
            .env_clear()
            .env(
                "LIFEBUOY_REPO_URL",
                format!("file://{}", self.bucket().display()),
            )
            .env(
                "LIFEBUOY_PASSPHRASE",
                fs::read_to_string(golden().join("passphrase"))?,
            )
            .output()?;
        let out = String::from_utf8(output.stdout)?;
        let err = String::from_utf8(output.stderr)?;
        let ended = output.status;
        ensure!(ended.code() == Some(code), "{line}: {ended}\n{out}\n{err}");
        Ok(Said { out, err })
    }

    fn json(&self, line: &str, code: i32) -> Result<Value> {
        let said = self.run(&format!("{line} -o json"), code)?;
        serde_json::from_str(&said.out).with_context(|| format!("{line}: {}", said.out))
    }

    /// The snapshots that are listed.
    fn listed(&self) -> Result<Vec<String>> {
        let said = self.run("recoverypoint list -o name", DONE)?;
        Ok(said.out.lines().map(str::to_owned).collect())
    }
}

struct Said {
    out: String,
    err: String,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/v1")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[test]
fn an_upgrade_is_made_once_and_what_needs_it_is_refused_before() -> Result<()> {
    let copy = Copy::new()?;
    for line in [
        "repo repair",
        "repo collect --delete",
        &format!("recoverypoint pin {NEWEST}"),
    ] {
        let before = copy.files("")?;
        let said = copy.run(line, REFUSED)?;
        ensure!(
            said.err.contains("lifebuoy repo upgrade"),
            "{line}: {}",
            said.err
        );
        ensure!(copy.files("")? == before, "{line} wrote something");
    }
    let report = copy.json("repo upgrade", DONE)?;
    ensure!(report["before"] == 1 && report["after"] == 2, "{report}");
    let again = copy.run("repo upgrade", DONE)?;
    ensure!(again.out.contains("newest format already"), "{}", again.out);
    ensure!(copy.run("repo upgrade -o name", DONE)?.out == "2\n");
    ensure!(copy.files("format/")? == ["format/1", "format/2"]);
    Ok(())
}

#[test]
fn a_status_tells_each_clusters_key() -> Result<()> {
    let copy = Copy::new()?;
    let status = copy.json("repo status", DONE)?;
    let clusters = status["clusters"].as_array().context("no clusters")?;
    let expected: Value = serde_json::from_slice(&fs::read(golden().join("expected.json"))?)?;
    let snapshots = expected["snapshots"].as_array().context("no snapshots")?;
    for cluster in clusters {
        let of = |snapshot: &&Value| {
            snapshot["cluster"] == cluster["key"]
                && snapshot["summary"]["cluster"]["uid"] == cluster["uid"]
                && snapshot["forgotten"] == false
        };
        let points = snapshots.iter().filter(of).count();
        ensure!(cluster["recoveryPoints"] == points, "{cluster}: {points}");
    }
    ensure!(clusters.len() == 2, "{status}");
    let said = copy.run("repo status", DONE)?.out;
    let key = clusters[0]["key"].as_str().context("no key")?;
    ensure!(said.contains("KEY") && said.contains(key), "{said}");
    Ok(())
}

#[test]
fn a_check_of_what_is_sound_ends_with_0_and_changes_nothing() -> Result<()> {
    let copy = Copy::new()?;
    let before = copy.files("")?;
    let report = copy.json("repo check --level all", DONE)?;
    ensure!(
        report["clean"] == true && report["problemsTotal"] == 0,
        "{report}"
    );
    ensure!(
        report["packs"] == report["packsRead"] && report["packs"] != 0,
        "{report}"
    );
    let mut read = 0;
    for part in 0..3 {
        let share = format!("repo check --level share --part {part} --of 3");
        read += copy.json(&share, DONE)?["packsRead"]
            .as_u64()
            .context("no number")?;
    }
    ensure!(report["packs"] == read, "the shares read {read} packs");
    let said = copy.run("repo check", DONE)?.out;
    ensure!(
        said.contains("Problems:") && !said.contains("What is wrong"),
        "{said}"
    );
    ensure!(copy.files("")? == before, "a check wrote something");
    copy.run("repo check --level everything", USAGE)?;
    Ok(())
}

#[test]
fn damage_is_named_repaired_as_far_as_it_can_be_and_not_called_sound() -> Result<()> {
    let copy = Copy::upgraded()?;
    let pack = copy.damage(NEWEST_WITH_PACKS)?;
    copy.run("repo check", DONE)?;
    let report = copy.json("repo check --level all", PARTIAL)?;
    ensure!(
        report["clean"] == false && report["problemsTotal"] == 1,
        "{report}"
    );
    ensure!(report["problems"][0]["key"] == *pack, "{report}");
    let affected = &report["affected"][0];
    ensure!(
        affected["itemsTotal"] != 0 && affected["items"][0] != "",
        "{report}"
    );
    ensure!(copy.run("repo check --level all -o name", PARTIAL)?.out == format!("{pack}\n"));
    let said = copy.run("repo check --level all", PARTIAL)?.out;
    let snapshot = affected["snapshot"].as_str().context("no snapshot")?;
    for word in ["What is wrong", &pack, "What that means", snapshot] {
        ensure!(said.contains(word), "{word} is missing: {said}");
    }

    let before = copy.files("")?;
    let repaired = copy.json("repo repair --level all", PARTIAL)?;
    ensure!(repaired["packsSetAside"] == 1, "{repaired}");
    ensure!(
        repaired["left"]["problems"][0]["key"] == *pack,
        "{repaired}"
    );
    ensure!(
        repaired["left"]["affected"] == report["affected"],
        "{repaired}"
    );
    let after = copy.files("")?;
    ensure!(
        before.iter().all(|key| after.contains(key)),
        "something was deleted"
    );
    ensure!(copy.files("mend/")? == [format!("mend/{pack}")]);
    let said = copy.run("repo repair --level all", PARTIAL)?.out;
    ensure!(
        said.contains("Set aside:") && said.contains(snapshot),
        "{said}"
    );
    Ok(())
}

/// The snapshot before the newest one stored its own chunks, and shares them.
const NEWEST_WITH_PACKS: &str = "0a3fc0894394ec7d3c6d4c46b4ff9c6f";

#[test]
fn a_lost_index_is_made_anew_and_then_all_is_well() -> Result<()> {
    let copy = Copy::upgraded()?;
    fs::remove_file(copy.bucket().join(format!("index/{NEWEST_WITH_PACKS}")))?;
    let report = copy.json("repo check", PARTIAL)?;
    ensure!(
        report["affected"]
            .as_array()
            .is_some_and(|all| !all.is_empty()),
        "{report}"
    );
    let repaired = copy.json("repo repair", DONE)?;
    ensure!(
        repaired["indices"] == 1 && repaired["left"]["clean"] == true,
        "{repaired}"
    );
    copy.run("repo check --level all", DONE)?;
    Ok(())
}

#[test]
fn a_collection_counts_first_and_deletes_only_when_told_to() -> Result<()> {
    let copy = Copy::upgraded()?;
    let before = copy.files("")?;
    let line = "repo collect --grace 0s --keep-at-least 1 --stall 1s";
    let counted = copy.json(line, DONE)?;
    ensure!(
        counted["generation"].is_null() && counted["forgotten"] == 1,
        "{counted}"
    );
    ensure!(
        counted["garbagePacks"] != 0 && counted["deletedPacks"] == 0,
        "{counted}"
    );
    ensure!(copy.files("")? == before, "counting wrote something");

    let within_grace = copy.json("repo collect --keep-at-least 1", DONE)?;
    ensure!(within_grace["forgotten"] == 0, "{within_grace}");

    let refused = copy.run(
        &format!("{line} --delete --delete-at-most-percent 1"),
        REFUSED,
    )?;
    ensure!(refused.err.contains("1 %"), "{}", refused.err);
    ensure!(
        copy.files("packs/")?.len() == 11,
        "a refused collection deleted packs"
    );

    let deleted = copy.json(&format!("{line} --delete"), DONE)?;
    ensure!(
        deleted["generation"] == 1 && deleted["forgotten"] == 1,
        "{deleted}"
    );
    ensure!(
        deleted["deletedPacks"] != 0 && deleted["fencedSessions"] == 1,
        "{deleted}"
    );
    let gone = |key: &String| key.contains(FENCED);
    ensure!(
        !copy.files("packs/")?.iter().any(gone),
        "{:?}",
        copy.files("packs/")?
    );
    let sound = copy.json("repo check --level all", DONE)?;
    ensure!(sound["snapshots"] == 5, "{sound}");
    let said = copy.run(&format!("{line} --delete"), DONE)?;
    ensure!(said.out.contains("Collection:") && said.out.contains("Bytes deleted:"));
    Ok(())
}

#[test]
fn a_pin_keeps_a_point_and_brings_back_what_was_forgotten() -> Result<()> {
    let copy = Copy::upgraded()?;
    ensure!(!copy.listed()?.contains(&FORGOTTEN.to_owned()));
    // By its first digits only what is listed is found.
    copy.run(&format!("recoverypoint pin {}", &FORGOTTEN[..8]), USAGE)?;
    let said = copy.run(
        &format!("recoverypoint pin {FORGOTTEN} --reason evidence"),
        DONE,
    )?;
    ensure!(
        said.out.contains(&format!("{FORGOTTEN} pinned")),
        "{}",
        said.out
    );
    ensure!(copy.listed()?.contains(&FORGOTTEN.to_owned()));
    let table = copy.run("recoverypoint list", DONE)?.out;
    ensure!(table.contains("pinned, forgotten"), "{table}");
    let point = copy.json(&format!("recoverypoint describe {FORGOTTEN}"), DONE)?;
    ensure!(
        point["pinned"] == true && point["forgotten"] == true,
        "{point}"
    );

    let collect = "repo collect --delete --grace 0s --keep-at-least 1 --stall 1s";
    ensure!(copy.json(collect, DONE)?["forgotten"] == 0);
    copy.run("repo check --level all", DONE)?;
    let refused = copy.run(&format!("recoverypoint forget {FORGOTTEN}"), REFUSED)?;
    ensure!(
        refused.err.contains("recoverypoint unpin"),
        "{}",
        refused.err
    );

    copy.run(&format!("recoverypoint unpin {FORGOTTEN}"), DONE)?;
    ensure!(!copy.listed()?.contains(&FORGOTTEN.to_owned()));
    ensure!(copy.json(collect, DONE)?["forgotten"] == 1);
    let gone = copy.run(&format!("recoverypoint pin {FORGOTTEN}"), FAILED)?;
    ensure!(gone.err.contains(FORGOTTEN), "{}", gone.err);
    Ok(())
}

#[test]
fn what_is_forgotten_is_listed_no_more_and_stays_until_it_is_collected() -> Result<()> {
    let copy = Copy::upgraded()?;
    let packs = copy.files("packs/")?;
    let said = copy.run(
        &format!("recoverypoint forget {} --reason wrong", &NEWEST[..8]),
        DONE,
    )?;
    ensure!(
        said.out.contains(&format!("{NEWEST} forgotten")),
        "{}",
        said.out
    );
    ensure!(!copy.listed()?.contains(&NEWEST.to_owned()));
    let gone = copy.run(&format!("recoverypoint describe {NEWEST}"), FAILED)?;
    ensure!(gone.err.contains("forgotten"), "{}", gone.err);
    ensure!(copy.files("packs/")? == packs && copy.files("forget/")?.len() == 2);
    copy.run(
        "recoverypoint forget 00000000000000000000000000000000",
        FAILED,
    )?;
    copy.run("recoverypoint forget latest", USAGE)?;
    Ok(())
}

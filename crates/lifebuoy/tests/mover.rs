//! `lifebuoy mover` as it runs in a pod, without the pod: a task in a file, a volume in a
//! directory or an image, an end in a file. What it saves it brings back; whatever happens,
//! it says so, and says no secret.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use chrono::DateTime;
use lifebuoy_data::What;
use lifebuoy_engine::volumes::{
    MoverEnd, MoverProgress, MoverReport, MoverTask, RepositoryAccess, SavedRoot, Work, settle,
};
use lifebuoy_repo::{ChunkId, Limits, SessionId};

const PASSPHRASE: &str = "correct horse battery staple";
const SOON: Duration = Duration::from_secs(60);

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let place = Self {
            folder: tempfile::tempdir()?,
        };
        fs::create_dir(place.at("bucket"))?;
        let made = Command::new(env!("CARGO_BIN_EXE_lifebuoy"))
            .args(["repo", "init", "--repo", &place.access().url])
            .env("LIFEBUOY_PASSPHRASE", PASSPHRASE)
            .output()?;
        ensure!(made.status.success(), "{made:?}");
        Ok(place)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn access(&self) -> RepositoryAccess {
        RepositoryAccess {
            url: format!("file://{}", self.at("bucket").display()),
            endpoint: None,
            region: None,
            ca_pem: None,
            proxy: None,
            allow_http: false,
            credentials: [].into(),
            passphrase: PASSPHRASE.to_owned(),
        }
    }

    fn task(&self, work: Work) -> MoverTask {
        MoverTask {
            repository: self.access(),
            work,
            limit_upload: None,
            limit_download: None,
        }
    }

    fn save(&self, what: What, session: u8, before: Option<SavedRoot>) -> MoverTask {
        self.task(Work::Save {
            what,
            session: SessionId::from_bytes([session; 16]),
            cluster_uid: "uid".to_owned(),
            host: "frankfurt".to_owned(),
            path: "shop/data".to_owned(),
            taken_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default(),
            before,
        })
    }

    fn start(&self, task: &MoverTask, volume: &str) -> Result<Child> {
        fs::write(self.at("task.json"), serde_json::to_vec(task)?)?;
        fs::write(self.at("end"), "")?;
        Ok(Command::new(env!("CARGO_BIN_EXE_lifebuoy"))
            .arg("mover")
            .arg("--task")
            .arg(self.at("task.json"))
            .arg("--volume")
            .arg(self.at(volume))
            .arg("--end")
            .arg(self.at("end"))
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }

    /// How a mover has ended, by what it said.
    fn end(&self, output: &Output) -> Result<MoverEnd> {
        let text = fs::read_to_string(self.at("end"))?;
        let log = format!("{output:?}{text}");
        ensure!(!log.contains(PASSPHRASE), "a secret is in {log}");
        let end = MoverEnd::from_message(&text).with_context(|| log.clone())?;
        let code = i32::from(!matches!(end, MoverEnd::Done(_)));
        ensure!(output.status.code() == Some(code), "{log}");
        Ok(end)
    }

    fn done(&self, task: &MoverTask, volume: &str) -> Result<MoverReport> {
        let output = self.start(task, volume)?.wait_with_output()?;
        match self.end(&output)? {
            MoverEnd::Done(report) => Ok(report),
            failed => bail!("{failed:?}: {output:?}"),
        }
    }

    fn failed(&self, task: &MoverTask, volume: &str) -> Result<(String, bool)> {
        let output = self.start(task, volume)?.wait_with_output()?;
        match self.end(&output)? {
            MoverEnd::Failed { message, again } => Ok((message, again)),
            done => bail!("{done:?}"),
        }
    }
}

fn saved(report: &MoverReport) -> Result<SavedRoot> {
    Ok(SavedRoot {
        session: report.session.context("no session")?,
        root: report.root.context("no root")?,
    })
}

fn make(top: &Path) -> Result<()> {
    fs::create_dir_all(top.join("deep/lost+found"))?;
    fs::create_dir(top.join("lost+found"))?;
    fs::write(top.join("lost+found/#12"), "nobody's")?;
    fs::write(top.join("deep/lost+found/mine"), "mine")?;
    fs::write(top.join("a"), vec![7; 300_000])?;
    Ok(())
}

fn sigterm(child: &Child) -> Result<()> {
    let kill = Command::new("kill").arg(child.id().to_string()).status()?;
    ensure!(kill.success());
    Ok(())
}

#[test]
fn a_volume_comes_back_without_what_the_file_system_keeps_for_itself() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    let first = place.done(&place.save(What::Files, 1, None), "from")?;
    ensure!(
        (first.entries, first.bytes, first.problems) == (5, 300_004, 0),
        "{first:?}"
    );
    ensure!(first.bytes_stored > 0 && first.unchanged == 0, "{first:?}");
    ensure!(
        first.session == Some(SessionId::from_bytes([1; 16])),
        "{first:?}"
    );

    let before = Some(saved(&first)?);
    let second = place.done(&place.save(What::Files, 2, before), "from")?;
    ensure!(second.unchanged == second.bytes, "{second:?}");
    let saved = saved(&second)?;

    // As a new file system is: with a directory of its own.
    fs::create_dir_all(place.at("to/lost+found"))?;
    let restore = place.task(Work::Restore {
        what: What::Files,
        saved,
    });
    let back = place.done(&restore, "to")?;
    ensure!((back.problems, back.bytes) == (0, 300_004), "{back:?}");
    ensure!(fs::read(place.at("to/a"))? == vec![7; 300_000]);
    ensure!(fs::read(place.at("to/deep/lost+found/mine"))? == b"mine");
    ensure!(fs::read_dir(place.at("to/lost+found"))?.next().is_none());

    // Once more, as after a pod that was lost.
    fs::write(place.at("to/a"), "half of it")?;
    let again = place.done(&restore, "to")?;
    ensure!((again.problems, again.unchanged) == (0, 4), "{again:?}");
    ensure!(fs::read(place.at("to/a"))? == vec![7; 300_000]);
    Ok(())
}

#[test]
fn a_volume_is_overwritten_but_for_what_the_file_system_keeps_for_itself() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    let report = place.done(&place.save(What::Files, 1, None), "from")?;
    fs::create_dir_all(place.at("to/a/theirs"))?;
    fs::create_dir_all(place.at("to/lost+found"))?;
    fs::write(place.at("to/lost+found/#7"), "found")?;
    fs::write(place.at("to/deep"), "a file")?;
    fs::write(place.at("to/new"), "not saved")?;
    let overwrite = place.task(Work::Overwrite {
        what: What::Files,
        saved: saved(&report)?,
    });
    for unchanged in [0, 300_004] {
        let back = place.done(&overwrite, "to")?;
        ensure!((back.problems, back.bytes) == (0, 300_004), "{back:?}");
        ensure!(back.unchanged == unchanged, "{back:?}");
    }
    ensure!(fs::read(place.at("to/a"))? == vec![7; 300_000]);
    ensure!(fs::read(place.at("to/deep/lost+found/mine"))? == b"mine");
    ensure!(fs::read(place.at("to/lost+found/#7"))? == b"found");
    ensure!(!place.at("to/new").exists());
    Ok(())
}

#[test]
fn a_volume_that_was_not_touched_is_said_to_be_so() -> Result<()> {
    let place = Place::new()?;
    make(&place.at("from"))?;
    let report = place.done(&place.save(What::Files, 1, None), "from")?;
    let nothing = SavedRoot {
        root: ChunkId::from_bytes([9; 32]),
        ..saved(&report)?
    };
    let overwrite = place.task(Work::Overwrite {
        what: What::Files,
        saved: nothing,
    });
    fs::create_dir_all(place.at("to"))?;
    fs::write(place.at("to/mine"), "stays")?;
    let output = place.start(&overwrite, "to")?.wait_with_output()?;
    let end = place.end(&output)?;
    ensure!(matches!(end, MoverEnd::Untouched { .. }), "{end:?}");
    ensure!(fs::read(place.at("to/mine"))? == b"stays");
    Ok(())
}

#[test]
fn what_cannot_be_brought_back_is_a_problem_with_its_reason() -> Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.at("from"))?;
    fs::write(place.at("from/a"), "file")?;
    let report = place.done(&place.save(What::Files, 1, None), "from")?;
    let restore = place.task(Work::Restore {
        what: What::Files,
        saved: saved(&report)?,
    });
    // A directory that is not empty is in the way, and is left.
    fs::create_dir_all(place.at("to/a/theirs"))?;
    let back = place.done(&restore, "to")?;
    ensure!(back.problems == 1, "{back:?}");
    ensure!(
        back.examples
            .iter()
            .any(|text| text.starts_with("a: not restored")),
        "{back:?}"
    );
    Ok(())
}

#[test]
fn a_device_comes_back() -> Result<()> {
    let place = Place::new()?;
    let image = fs::File::create(place.at("from"))?;
    image.set_len(4 << 20)?;
    image.write_all_at(&[9; 100_000], 1 << 20)?;
    let report = place.done(&place.save(What::Device, 1, None), "from")?;
    ensure!((report.entries, report.bytes) == (1, 4 << 20), "{report:?}");
    let restore = place.task(Work::Restore {
        what: What::Device,
        saved: saved(&report)?,
    });
    let back = place.done(&restore, "to")?;
    ensure!(back.problems == 0, "{back:?}");
    ensure!(fs::read(place.at("to"))? == fs::read(place.at("from"))?);
    Ok(())
}

#[test]
fn a_failure_says_why_and_whether_it_may_pass() -> Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.at("from"))?;
    let task = place.save(What::Files, 1, None);
    let (message, again) = place.failed(&task, "nothing")?;
    ensure!(message.contains("nothing") && !again, "{message}");
    // The session is used up by that.
    let (message, again) = place.failed(&task, "from")?;
    ensure!(again, "{message}");

    let mut wrong = place.save(What::Files, 2, None);
    wrong.repository.passphrase = "another".to_owned();
    let (message, again) = place.failed(&wrong, "from")?;
    ensure!(
        message.starts_with("wrong passphrase") && !again,
        "{message}"
    );
    Ok(())
}

#[tokio::test]
async fn one_that_is_told_to_end_ends_at_once_and_can_be_settled() -> Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.at("from"))?;
    let mut bytes = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    fs::write(place.at("from/a"), &bytes)?;
    let mut task = place.save(What::Files, 1, None);
    // Minutes.
    task.limit_upload = Some(32 * 1024);
    let child = place.start(&task, "from")?;
    sleep(Duration::from_secs(5));
    sigterm(&child)?;
    let told = Instant::now();
    let output = child.wait_with_output()?;
    ensure!(told.elapsed() < SOON / 10, "it took {:?}", told.elapsed());
    let MoverEnd::Failed { again: true, .. } = place.end(&output)? else {
        bail!("{output:?}");
    };
    let log = String::from_utf8(output.stdout)?;
    let progress = MoverProgress::last_of(&log).with_context(|| log.clone())?;
    ensure!(progress.entries <= 2, "{progress:?}");

    // Nothing was committed, and nothing ever will be.
    ensure!(settle(&task).await?.is_none());
    let (message, again) = place.failed(&task, "from")?;
    ensure!(message.contains("begun before") && again, "{message}");

    // What has committed is found, whoever asks.
    let task = place.save(What::Files, 2, None);
    let report = place.done(&task, "from")?;
    let settled = settle(&task).await?.context("not found")?;
    ensure!(
        (settled.root, settled.session, settled.entries)
            == (report.root, report.session, report.entries),
        "{settled:?}"
    );
    let repo = place.access().open(Limits::default()).await?;
    ensure!(repo.snapshots().await?.snapshots.len() == 1);
    Ok(())
}

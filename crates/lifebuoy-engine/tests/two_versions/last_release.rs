//! The last release: processes of `tests/reader/golden_writer.py`, which keep a
//! repository open.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use lifebuoy_repo::SessionId;
use lifebuoy_testkit::python::{ensure_python, reader_folder};

use super::objects;

pub(super) const PASSPHRASE: &str = "of both releases";

// Exit codes of the writer.
pub(super) const ACKNOWLEDGED: i32 = 0;
pub(super) const CANNOT_OPEN: i32 = 2;
pub(super) const REFUSED: i32 = 3;
pub(super) const FENCED: i32 = 4;
pub(super) const NOT_ACKNOWLEDGED: i32 = 5;

/// The programs in Python, and the repository that they work on.
#[derive(Clone)]
pub(super) struct Programs {
    python: PathBuf,
    pub(super) folder: PathBuf,
}

impl Programs {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        Ok(Self {
            python: ensure_python(&|_| {})?,
            folder: folder.to_owned(),
        })
    }

    pub(super) fn bucket(&self) -> PathBuf {
        self.folder.join("bucket")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.python);
        command
            .arg("-B")
            .arg(reader_folder().join(program))
            .arg("--repository")
            .arg(self.bucket())
            .env("LIFEBUOY_PASSPHRASE", PASSPHRASE);
        command
    }

    /// Runs a program to its end. Returns its exit code and what it printed.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> Result<(i32, String)> {
        let output = self.command(program).args(args).output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok((output.status.code().context("it was killed")?, said))
    }

    pub(super) fn serve(&self) -> Result<Served> {
        let mut child = self
            .command("golden_writer.py")
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("no stdin")?;
        let output = child.stdout.take().context("no stdout")?;
        let mut served = Served {
            programs: self.clone(),
            child,
            input,
            output: BufReader::new(output),
        };
        served.until("open")?;
        Ok(served)
    }
}

/// One that has had the repository open since before the upgrade.
pub(super) struct Served {
    programs: Programs,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Served {
    /// Saves a version of the objects, and returns the exit code.
    pub(super) fn save(
        &mut self,
        cluster: &str,
        session: SessionId,
        version: usize,
    ) -> Result<i32> {
        self.begin(cluster, session, version, None)?;
        self.exit()
    }

    /// Begins to save, and stops before this step.
    pub(super) fn save_until(
        &mut self,
        step: &str,
        cluster: &str,
        session: SessionId,
        version: usize,
    ) -> Result<()> {
        self.begin(cluster, session, version, Some(step))?;
        self.until(&format!("paused before {step}"))
    }

    /// Goes on to the end, and returns the exit code.
    pub(super) fn go_on(&mut self) -> Result<i32> {
        writeln!(self.input)?;
        self.exit()
    }

    pub(super) fn forget(&mut self, session: SessionId) -> Result<()> {
        writeln!(self.input, "forget --session {session}")?;
        let code = self.exit()?;
        ensure!(code == ACKNOWLEDGED, "it does not forget: {code}");
        Ok(())
    }

    fn begin(
        &mut self,
        cluster: &str,
        session: SessionId,
        version: usize,
        pause: Option<&str>,
    ) -> Result<()> {
        let file = self.programs.folder.join(format!("{session}.json"));
        objects::write_file(&file, version)?;
        let pause = pause.map_or(String::new(), |step| format!("--pause-before {step}"));
        writeln!(
            self.input,
            "write --cluster {cluster} --session {session} --objects '{}' {pause}",
            file.display()
        )?;
        Ok(())
    }

    fn exit(&mut self) -> Result<i32> {
        loop {
            let line = self.line()?;
            if let Some(code) = line.strip_prefix("exit ") {
                return Ok(code.parse()?);
            }
        }
    }

    fn until(&mut self, wanted: &str) -> Result<()> {
        let line = self.line()?;
        ensure!(line == wanted, "{line:?} instead of {wanted:?}");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the writer ended: {:?}", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! `lifebuoy repo` on the same volume and S3 server: what a mover does, without a pod
//! around it. It reads what a mover reads, a snapshot that nobody has read yet, and
//! writes into the same file system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lifebuoy_data::What;

use super::{Case, binaries, btrfs, copy, cost, rows::Taken, sampling::Seen, succeed};
use crate::bench::repo::process;

pub(super) fn measure(case: &Case<'_>, what: What, volume: &Path) -> Result<Vec<Taken>> {
    let beside = volume.parent().context("a volume is in a folder")?;
    let (snapshot, back) = (beside.join("snapshot"), beside.join("back"));
    let device = matches!(what, What::Device).then_some("--device");
    let lifebuoy = |words: &[&str], places: &[&Path]| -> Result<process::Cost> {
        let mut command = Command::new(binaries()?.join("lifebuoy"));
        command.envs(case.direct.environment());
        command.args(["repo"]).args(words).args(places);
        command.arg("--allow-http");
        cost(&command, "direct.log")
    };
    lifebuoy(&["init"], &[])?;
    let (from, to) = take(what, volume, &snapshot, &back)?;
    let save = [Some("save"), device].into_iter().flatten();
    let save: Vec<&str> = save.collect();
    let saved = lifebuoy(&save, &[&from])?;
    let restored = lifebuoy(&["restore", "--verify", "latest"], &[&to])?;
    remove(what, &snapshot, &back, [&from, &to])?;
    let taken = |op, cost: process::Cost| Taken {
        case: case.case,
        op,
        wall_s: cost.wall_s,
        seen: Seen {
            movers_s: cost.wall_s,
            cpu_s: cost.cpu_s,
            mover_peak_mib: cost.peak_mib,
            ..Seen::default()
        },
        bytes_sent: 0,
    };
    Ok(vec![
        taken("repo save", saved),
        taken("repo restore", restored),
    ])
}

/// Makes a snapshot, as the driver of these volumes does it. Gives what a pod would have of
/// it, and of an empty volume.
fn take(what: What, volume: &Path, snapshot: &Path, back: &Path) -> Result<(PathBuf, PathBuf)> {
    match what {
        What::Files => {
            btrfs("snapshot", &[volume, snapshot])?;
            Ok((snapshot.to_owned(), back.to_owned()))
        }
        What::Device => {
            copy(&["--reflink=always"], volume, snapshot)?;
            File::create(back)?.set_len(fs::metadata(volume)?.len())?;
            Ok((attach(snapshot, &["--read-only"])?, attach(back, &[])?))
        }
    }
}

fn remove(what: What, snapshot: &Path, back: &Path, devices: [&Path; 2]) -> Result<()> {
    match what {
        What::Files => {
            fs::remove_dir_all(back)?;
            btrfs("delete", &[snapshot])
        }
        What::Device => {
            succeed(Command::new("losetup").arg("--detach").args(devices))?;
            fs::remove_file(back)?;
            Ok(fs::remove_file(snapshot)?)
        }
    }
}

/// A loop device over a file.
fn attach(file: &Path, options: &[&str]) -> Result<PathBuf> {
    let mut command = Command::new("losetup");
    command.args(["--find", "--show"]).args(options).arg(file);
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

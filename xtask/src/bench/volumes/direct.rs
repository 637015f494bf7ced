//! `lifebuoy repo` on the same volume and S3 server: what a mover does, without a pod
//! around it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use lifebuoy_data::What;
use lifebuoy_testkit::directory;

use super::{Case, binaries, rows::Taken, sampling::Seen};
use crate::bench::repo::process;

pub(super) fn measure(case: &Case<'_>, what: What, volume: &Path) -> Result<Vec<Taken>> {
    let device = matches!(what, What::Device).then_some("--device");
    let back = directory::root().join("back");
    let lifebuoy = |words: &[&str], places: &[&Path]| -> Result<process::Cost> {
        let mut command = Command::new(binaries()?.join("lifebuoy"));
        command.envs(case.direct.environment());
        command.args(["repo"]).args(words).args(places);
        command.arg("--allow-http");
        nix::unistd::sync();
        let log = directory::root().join("direct.log");
        tokio::task::block_in_place(|| process::measure(&command, &log))
    };
    lifebuoy(&["init"], &[])?;
    let save = [Some("save"), device].into_iter().flatten();
    let save: Vec<&str> = save.collect();
    let saved = lifebuoy(&save, &[volume])?;
    let restored = lifebuoy(&["restore", "--verify", "latest"], &[&back])?;
    if device.is_some() {
        std::fs::remove_file(&back)?;
    } else {
        std::fs::remove_dir_all(&back)?;
    }
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

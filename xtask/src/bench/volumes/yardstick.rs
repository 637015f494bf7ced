//! `tar | zstd -1 | curl` of the same files to the same S3 server: what a person
//! would do without lifebuoy, of a snapshot that nobody has read yet. Neither encrypted
//! nor incremental.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use lifebuoy_testkit::s3::{BUCKET, REGION};
use lifebuoy_testkit::{S3Server, directory};

use super::{btrfs, cost, rows::Taken, sampling::Seen};

/// The shell gives the stream to a file first: the server wants to know its length.
const SCRIPT: &str = "set -e
    tar -C \"$1\" -cf - . | zstd -q -1 -c > \"$2\"
    curl --silent --show-error --fail --aws-sigv4 \"aws:amz:$4:s3\" --config \"$5\" \
        -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -T \"$2\" \"$3\"";

pub(super) fn measure(s3: &S3Server, files: &Path, number: usize) -> Result<Taken> {
    println!("… files, tar | zstd -1");
    let snapshot = files.with_file_name("yardstick");
    btrfs("snapshot", &[files, &snapshot])?;
    let root = directory::root();
    let (archive, config) = (root.join("yardstick.tar.zst"), root.join("curl.conf"));
    // In a file, since command lines are seen by everybody.
    let user = format!("user = \"{}:{}\"\n", s3.access_key(), s3.secret_key());
    fs::write(&config, user)?;
    let url = format!("{}/{BUCKET}/yardstick-{number}.tar.zst", s3.endpoint());
    let mut command = Command::new("sh");
    command
        .args(["-c", SCRIPT, "sh"])
        .arg(&snapshot)
        .arg(&archive);
    command.args([&url, REGION]).arg(&config);
    let cost = cost(&command, "yardstick.log")?;
    let bytes_sent = archive.metadata()?.len();
    let stored = s3
        .bucket_directory()
        .join(format!("yardstick-{number}.tar.zst"));
    ensure!(stored.metadata()?.len() == bytes_sent, "not all was stored");
    fs::remove_file(stored)?;
    fs::remove_file(archive)?;
    btrfs("delete", &[&snapshot])?;
    Ok(Taken {
        case: "files",
        op: "tar | zstd",
        wall_s: cost.wall_s,
        seen: Seen {
            cpu_s: cost.cpu_s,
            mover_peak_mib: cost.peak_mib,
            ..Seen::default()
        },
        bytes_sent,
    })
}

//! `cargo xtask bench`: figures, measured beside the floor in one run.
//!
//! It measures and prints; it never judges, and no test depends on a figure.

mod cluster;
mod figures;
pub(crate) mod repo;
mod volumes;

use std::path::PathBuf;

use anyhow::Result;
use lifebuoy_testkit::install_tls_provider;

/// Benchmarks.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// Backup and restore of a cluster full of objects, beside what listing and
    /// creating them takes at all.
    Cluster(Options),
    /// Saving and restoring files and block devices, side by side with the programs
    /// that people use for it.
    Repo(repo::Options),
    /// Saving volumes on a real node with the operator's own movers, beside tar and zstd;
    /// as root on Debian.
    Volumes(volumes::Options),
}

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// How many objects; several sizes are measured one after another.
    #[arg(long, value_delimiter = ',', default_value = "10000")]
    objects: Vec<usize>,
    /// Secrets of 1 MB on top.
    #[arg(long, default_value_t = 0)]
    big_secrets: usize,
    /// How often each backup is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seed of the objects' contents.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Also writes the figures to this file: one JSON object a line, one line a size.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Bench {
    /// Runs the benchmark.
    pub(crate) fn run(&self) -> Result<()> {
        if !matches!(self.what, What::Volumes(_)) {
            crate::build::release()?;
        }
        install_tls_provider();
        let runtime = tokio::runtime::Runtime::new()?;
        let options = match &self.what {
            What::Cluster(options) => options,
            What::Repo(options) => return runtime.block_on(options.run()),
            What::Volumes(options) => return options.run(),
        };
        let mut lines = String::new();
        for &objects in &options.objects {
            let figures = runtime.block_on(cluster::measure(options, objects))?;
            println!("{}", figures.table());
            lines.push_str(&serde_json::to_string(&figures)?);
            lines.push('\n');
            if let Some(file) = &options.json {
                std::fs::write(file, &lines)?;
            }
        }
        Ok(())
    }
}

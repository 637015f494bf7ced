//! `cargo xtask demo --volumes`: PostgreSQL and Redis move to another cluster with
//! all that they had acknowledged, on two clusters whose pods really run.
//!
//! The story is that of the scenario; what is here shows it. It runs in
//! namespaces of its own, and never touches the machine's network or mounts.

use std::time::Duration;

use anyhow::Result;
use lifebuoy_scenarios::{NodeWorlds, bring_back_databases, save_databases};
use lifebuoy_testkit::{install_tls_provider, namespace};

use super::timeline::{Timeline, say};

/// A demo that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs the demo: once outside, which builds what it needs, and once inside.
pub(super) fn run() -> Result<()> {
    if !namespace::is_inside() && namespace::missing().is_none() {
        crate::build::operator()?;
    }
    let needs = NodeWorlds::needs_of_databases();
    namespace::program(&needs, LIMIT, &say, || {
        install_tls_provider();
        tokio::runtime::Runtime::new()?.block_on(demonstrate())
    })
}

async fn demonstrate() -> Result<()> {
    let mut timeline = Timeline::new();
    let NodeWorlds { a, b, s3 } = NodeWorlds::start_for_databases().await?;
    timeline.done(
        "two clusters with a node each, storage, and the operator in pods are up",
        &format!("one repository in {}", s3.url()),
    );
    let mut tell = |what: &str, detail: &str| timeline.done(what, detail);
    let known = a.recorded(save_databases(&a, &mut tell).await).await?;
    drop(a);
    tell(
        "cluster A is lost",
        "its API server, etcd, kubelet, containerd and volumes",
    );
    let found = bring_back_databases(&b, &known, &mut tell).await;
    b.recorded(found).await?;
    timeline.print();
    Ok(())
}

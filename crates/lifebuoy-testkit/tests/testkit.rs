//! The testkit, tried on itself.

use std::time::Instant;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions, S3Server, TestDirectory};

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_and_a_store_run_side_by_side() -> anyhow::Result<()> {
    let directory = TestDirectory::new("s3")?;
    let started = Instant::now();
    let (a, b, s3) = tokio::join!(
        ControlPlane::start(ControlPlaneOptions::named("a")),
        ControlPlane::start(ControlPlaneOptions::named("b")),
        S3Server::start(directory.path()),
    );
    let (a, b, s3) = (a?, b?, s3?);
    println!("started in {:?}", started.elapsed());
    for plane in [&a, &b] {
        let namespaces: Api<Namespace> = Api::all(plane.admin());
        namespaces.get("default").await?;
    }
    assert!(s3.bucket_directory().is_dir());
    let started = Instant::now();
    tokio::join!(a.stop(), b.stop());
    println!("stopped in {:?}", started.elapsed());
    Ok(())
}

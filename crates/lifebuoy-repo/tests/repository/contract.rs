//! The contract of a store, on those that need no server.

use std::{collections::BTreeMap, sync::Arc};

use lifebuoy_repo::{Credentials, Location, LocationOptions, contract};
use object_store::memory::InMemory;

#[tokio::test(flavor = "multi_thread")]
async fn memory_holds_a_repository() {
    contract::check_store(Arc::new(InMemory::new()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_holds_a_repository() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let location = Location::parse(&url, LocationOptions::default()).unwrap();
    let store = location.open(&Credentials::new(BTreeMap::new())).unwrap();
    contract::check_store(store).await.unwrap();
}

/// Set `LIFEBUOY_TEST_S3_URL`, `…_ENDPOINT`, `AWS_ACCESS_KEY_ID` and
/// `AWS_SECRET_ACCESS_KEY` to run the contract on an S3 server by hand; the
/// scenario tests always run it on one.
#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_holds_a_repository() {
    let var = |name: &str| std::env::var(name).ok();
    let Some(url) = var("LIFEBUOY_TEST_S3_URL") else {
        return;
    };
    let options = LocationOptions {
        endpoint: var("LIFEBUOY_TEST_S3_ENDPOINT"),
        allow_http: true,
        ..LocationOptions::default()
    };
    let credentials = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), var(name)?)))
        .collect();
    let location = Location::parse(&url, options).unwrap();
    contract::check_store(location.open(&credentials).unwrap())
        .await
        .unwrap();
}

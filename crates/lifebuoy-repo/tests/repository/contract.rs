//! The contract of a store, on those that need no server.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
};

use lifebuoy_repo::{Credentials, Location, LocationOptions, contract};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};

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

/// What a locked bucket of the cloud asks of every upload.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_s3_has_its_checksum_in_a_header() {
    // SHA-256 of "something", as S3 wants it.
    const CHECKSUM: &str = "x-amz-checksum-sha256: P8m2iUWdc4+MiKOkiqnjNUIBa3pAUuABqqU2/KdIE8s=";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = LocationOptions {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        allow_http: true,
        ..LocationOptions::default()
    };
    let credentials = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        .map(|name| (name.to_owned(), "a".to_owned()))
        .into_iter()
        .collect();
    let store = Location::parse("s3://b/p", options).unwrap();
    let store = store.open(&credentials).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"something") {
            let mut some = [0; 4096];
            let read = stream.read(&mut some).unwrap();
            assert!(read > 0, "the request is cut off");
            request.extend_from_slice(&some[..read]);
        }
        let answer = b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).unwrap();
        String::from_utf8(request).unwrap()
    });
    let path = Path::from("an/object");
    store.put(&path, "something".into()).await.unwrap();
    let request = server.join().unwrap();
    assert!(request.contains(CHECKSUM), "{request}");
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

//! What goes wrong outside: each has its own error, and a way out.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use lifebuoy_repo::{
    Credentials, Error, KdfCost, Location, LocationOptions, Operation, Passphrase, Repository,
    StoreAbilities,
};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};

use crate::support::*;

/// The error with its causes and its hint, as a person sees it.
fn told(error: &Error) -> String {
    let mut text = format!("error: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!("\ncause: {cause}"));
        source = cause.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\nhint: {hint}"));
    }
    text
}

#[tokio::test]
async fn opening_the_wrong_thing_says_what_it_is() {
    let store = Arc::new(InMemory::new());
    let empty = open(store.clone()).await.unwrap_err();
    store
        .put(
            &Path::from("photos/cat.jpg"),
            Bytes::from_static(b"x").into(),
        )
        .await
        .unwrap();
    let foreign = open(store.clone()).await.unwrap_err();
    let refused = Repository::init(store, &passphrase(), KdfCost::cheapest()).await;
    assert!(matches!(refused, Err(Error::Foreign { .. })));

    let store = Arc::new(InMemory::new());
    init(store.clone()).await;
    let wrong = Passphrase::new("guess").unwrap();
    let wrong = Repository::open(store.clone(), &wrong).await.unwrap_err();
    let again = Repository::init(store.clone(), &passphrase(), KdfCost::cheapest()).await;
    let format = store
        .get(&Path::from("format/1"))
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    store
        .put(&Path::from("format/3"), format.into())
        .await
        .unwrap();
    let newer = open(store).await.unwrap_err();

    let all = [empty, foreign, wrong, again.unwrap_err(), newer].map(|error| told(&error));
    insta::assert_snapshot!(all.join("\n\n"));
}

#[tokio::test]
async fn a_repository_made_at_the_same_moment_is_not_foreign() {
    let other = Arc::new(InMemory::new());
    init(other.clone()).await;
    let store = FaultyStore::new(Arc::default());
    store.put_after_list(objects(&other).await);
    let lost = Repository::init(store.clone(), &passphrase(), KdfCost::cheapest()).await;
    assert!(matches!(lost, Err(Error::AlreadyInitialized)), "{lost:?}");
    open(store).await.unwrap();
}

#[tokio::test]
async fn an_interrupted_init_can_be_repeated() {
    let memory = Arc::new(InMemory::new());
    for cut in 0..8 {
        let store = FaultyStore::new(memory.clone());
        store.plan(Calls::From(cut), Fault::Denied);
        let _ = Repository::init(store, &passphrase(), KdfCost::cheapest()).await;
        if open(memory.clone()).await.is_ok() {
            return;
        }
        assert!(matches!(
            open(memory.clone()).await,
            Err(Error::NotInitialized)
        ));
    }
    panic!("init never finished");
}

#[tokio::test]
async fn credentials_that_read_and_do_not_write_are_told_apart() {
    let store = FaultyStore::new(Arc::default());
    let repository = init(store.clone()).await;
    let snapshot = backup(&repository, 1, 0..3).await.unwrap();

    store.plan(Calls::Puts, Fault::Denied);
    let repository = open(store.clone()).await.unwrap();
    assert_eq!(restore(&repository, &snapshot).await.unwrap().len(), 3);
    let denied = backup(&repository, 2, 0..3).await.unwrap_err();
    assert!(matches!(
        denied,
        Error::Denied {
            operation: Operation::Write,
            ..
        }
    ));
    let read_only = StoreAbilities {
        can_write: false,
        can_list: true,
        atomic_create: None,
    };
    assert_eq!(repository.probe().await.unwrap(), read_only);
    assert!(!told(&denied).contains("AKIDSECRET"));

    store.plan(Calls::Lists, Fault::Denied);
    let unlisted = repository.probe().await.unwrap();
    assert!(unlisted.can_write && !unlisted.can_list);
    let denied = backup(&repository, 3, 0..3).await.unwrap_err();
    assert!(matches!(
        denied,
        Error::Denied {
            operation: Operation::List,
            ..
        }
    ));
    let denied = open(store.clone()).await.unwrap_err();
    assert!(matches!(
        denied,
        Error::Denied {
            operation: Operation::List,
            ..
        }
    ));

    store.plan(Calls::Gets, Fault::Denied);
    let denied = open(store).await.unwrap_err();
    assert!(matches!(
        denied,
        Error::Denied {
            operation: Operation::Read,
            ..
        }
    ));
    insta::assert_snapshot!(told(&denied));
}

/// As clouds answer to credentials that may create and not replace: a create of
/// what is there is denied, and must not look like credentials that only read.
#[tokio::test]
async fn an_object_that_may_not_be_replaced_is_one_that_exists() {
    let store = FaultyStore::new(Arc::default());
    store.deny_replacing();
    lifebuoy_repo::contract::check_store(store).await.unwrap();
}

#[test]
fn a_bad_location_names_the_field() {
    let parse = |url: &str, options: LocationOptions| match Location::parse(url, options) {
        Ok(location) => format!("{url}: fine, {}", location.url),
        Err(error) => format!("{url}: {error}"),
    };
    let plain = |url: &str| parse(url, LocationOptions::default());
    let endpoint = |endpoint: &str, allow_http| {
        let endpoint = Some(endpoint.to_owned());
        parse(
            "s3://b/p",
            LocationOptions {
                endpoint,
                allow_http,
                ..LocationOptions::default()
            },
        )
    };
    let ca = LocationOptions {
        ca_pem: Some(b"not pem".to_vec()),
        ..LocationOptions::default()
    };
    let proxy = LocationOptions {
        proxy: Some("::".into()),
        ..LocationOptions::default()
    };
    let region = LocationOptions {
        region: Some("x".into()),
        ..LocationOptions::default()
    };
    insta::assert_snapshot!(
        [
            plain("s3://bucket/some/prefix"),
            plain("bucket/prefix"),
            plain("ftp://bucket"),
            plain("s3:///prefix"),
            plain("s3://key:secret@bucket"),
            plain("s3://bucket?versionId=1"),
            plain("file://relative/path"),
            plain("gs://bucket"),
            plain("az://container/p"),
            endpoint("http://127.0.0.1:9000", false),
            endpoint("http://127.0.0.1:9000", true),
            endpoint("minio", false),
            parse("s3://b", ca),
            parse("s3://b", proxy),
            parse("file:///tmp", region),
        ]
        .join("\n")
    );
}

#[test]
fn every_cloud_opens_and_credentials_are_never_shown() {
    let open = |url: &str, pairs: &[(&str, &str)]| {
        let credentials: Credentials = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        assert!(!format!("{credentials:?}").contains("s3cr3t"));
        Location::parse(url, LocationOptions::default())
            .unwrap()
            .open(&credentials)
    };
    let key = [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3t"),
    ];
    open("s3://bucket/p", &key).unwrap();
    let azure = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "a"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "czNjcjN0"),
    ];
    open("az://container/p", &azure).unwrap();
    open("gs://bucket/p", &[("GOOGLE_BEARER_TOKEN", "s3cr3t")]).unwrap();
    let unknown = open("s3://bucket", &[("AWS_SECRET", "s3cr3t")]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "credentials: the name \"AWS_SECRET\" is not known"
    );
}

#[tokio::test]
async fn an_endpoint_that_nobody_listens_on_is_unreachable_soon() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    drop(socket);
    let options = LocationOptions {
        endpoint: Some(endpoint),
        allow_http: true,
        ..LocationOptions::default()
    };
    let key = [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3t"),
    ];
    let credentials = key
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    let store = Location::parse("s3://b/p", options)
        .unwrap()
        .open(&credentials)
        .unwrap();
    let begun = Instant::now();
    let error = open(store).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(begun.elapsed().as_secs() < 20);
    assert!(!told(&error).contains("s3cr3t"));
}

#[tokio::test]
async fn a_directory_that_is_missing_or_vanishes_is_not_an_empty_repository() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("bucket");
    let url = format!("file://{}", directory.display());
    let location = Location::parse(&url, LocationOptions::default()).unwrap();
    let none = Credentials::new(BTreeMap::new());
    assert!(matches!(
        location.open(&none),
        Err(Error::BucketMissing { .. })
    ));

    std::fs::create_dir(&directory).unwrap();
    let repository = init(location.open(&none).unwrap()).await;
    backup(&repository, 1, 0..3).await.unwrap();
    let writer = repository.begin(request(&repository, 2)).await.unwrap();
    let root = writer
        .put(lifebuoy_repo::ChunkKind::Data, contents(77))
        .await
        .unwrap();
    std::fs::rename(&directory, parent.path().join("elsewhere")).unwrap();
    let gone = writer.commit(root, Bytes::new()).await.unwrap_err();
    assert!(matches!(gone, Error::Missing { .. }), "{gone:?}");
    assert!(repository.snapshots().await.is_err());
    assert!(backup(&repository, 3, 0..3).await.is_err());
}

/// A writer that is killed leaves its unfinished file, which is not an object.
#[tokio::test]
async fn unfinished_files_of_a_directory_are_not_objects() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let location = Location::parse(&url, LocationOptions::default()).unwrap();
    let store = location.open(&Credentials::default()).unwrap();
    let repository = init(store).await;
    let snapshot = backup(&repository, 1, 0..3).await.unwrap();
    for (prefix, _) in [("end", 0), ("index", 0)] {
        let dir = directory.path().join(prefix);
        std::fs::write(dir.join(format!("{}#1", session(9))), b"half").unwrap();
    }
    let fresh = open(location.open(&Credentials::default()).unwrap())
        .await
        .unwrap();
    let listed = fresh.snapshots().await.unwrap();
    assert_eq!((listed.snapshots.len(), listed.unreadable.len()), (1, 0));
    assert_eq!(restore(&fresh, &snapshot).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_committed() {
    // /dev/full cannot hold files, so the classification is tested on the error
    // that the file system gives.
    let full = object_store::Error::Generic {
        store: "LocalFileSystem",
        source: Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)),
    };
    let store = FaultyStore::new(Arc::default());
    let repository = init(store.clone()).await;
    store.fail_puts_with(full);
    let error = backup(&repository, 1, 0..3).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    store.plan(Calls::None, Fault::Before);
    assert!(repository.snapshots().await.unwrap().snapshots.is_empty());
}

//! What is saved and restored under limits takes its time, and no longer. On a clock
//! that stands still while something can be done: most of these take no time themselves.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use futures::future;
use lifebuoy_repo::{ChunkKind, Limits, Location, LocationOptions, Rate};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::support::*;

const MIB: u64 = 1 << 20;
const CHUNKS: u64 = 40;

fn limits(upload: Option<u64>, download: Option<u64>) -> Limits {
    let rate = |bytes| Rate::per_second(bytes).unwrap();
    Limits {
        upload: upload.map(rate),
        download: download.map(rate),
    }
}

/// Bytes that do not compress.
fn noise(seed: u64) -> bytes::Bytes {
    let mut bytes = vec![0; MIB as usize];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

/// Between 0.8 and 1.3 of the seconds.
fn assert_about(took: Duration, seconds: f64) {
    let share = took.as_secs_f64() / seconds;
    assert!((0.8..1.3).contains(&share), "{took:?} for {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn what_is_saved_and_read_under_limits_takes_as_long_as_they_say() {
    let memory = Arc::new(InMemory::new());
    init(memory.clone()).await;

    let slow = open(limits(Some(MIB), None).on(memory.clone()))
        .await
        .unwrap();
    let begun = Instant::now();
    let writer = slow.begin(request(&slow, 1)).await.unwrap();
    let mut ids = Vec::new();
    for seed in 0..CHUNKS {
        let put = writer.put(ChunkKind::Data, noise(seed)).await;
        ids.push(put.unwrap());
    }
    writer.commit(ids[0], bytes::Bytes::new()).await.unwrap();
    assert_about(begun.elapsed(), 40.0);

    let begun = Instant::now();
    let reader = slow.reader().await.unwrap();
    reader.get(&ids[0]).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "no limit to that");

    let slow = open(limits(None, Some(2 * MIB)).on(memory)).await.unwrap();
    let begun = Instant::now();
    let reader = slow.reader().await.unwrap();
    let read = future::join_all(ids.iter().map(|id| reader.get(id))).await;
    assert_about(begun.elapsed(), 20.0);
    for (seed, plain) in (0..).zip(read) {
        assert_eq!(plain.unwrap(), noise(seed));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_at_one_time_share_a_limit_evenly() {
    let memory = Arc::new(InMemory::new());
    let store = limits(None, Some(MIB)).on(memory.clone());
    let get = |key: &'static str| {
        let store = Arc::clone(&store);
        async move {
            let found = store.get(&Path::from(key)).await.unwrap();
            found.bytes().await.unwrap();
            Instant::now()
        }
    };
    for (key, bytes) in [("large", vec![0; 16 << 20]), ("small", vec![0; 1 << 20])] {
        memory.put(&Path::from(key), bytes.into()).await.unwrap();
    }
    let begun = Instant::now();
    let (large, small) = future::join(get("large"), get("small")).await;
    assert_about(large - begun, 17.0);
    // Half of the rate is its own, as long as it takes.
    assert_about(small - begun, 2.0);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_do_not_wait_behind_packs() {
    let store = limits(Some(MIB), None).on(Arc::new(InMemory::new()));
    let put = |key: &'static str, length: usize| {
        let store = Arc::clone(&store);
        async move {
            let bytes = vec![0; length];
            store.put(&Path::from(key), bytes.into()).await.unwrap();
            Instant::now()
        }
    };
    let begun = Instant::now();
    let (first, second, beat) =
        future::join3(put("1", 8 << 20), put("2", 8 << 20), put("beat", 100)).await;
    assert!(first - begun < Duration::from_secs(1));
    assert_about(second - begun, 8.0);
    assert!(beat - begun < Duration::from_secs(1));
}

/// A server that takes one upload, and says when it had how much of the body.
fn take(listener: TcpListener, length: usize) -> JoinHandle<Vec<(Duration, usize)>> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut begun = None;
        let mut seen = Vec::new();
        let mut some = vec![0; 16 * 1024];
        loop {
            let read = stream.read(&mut some).unwrap();
            assert!(read > 0, "the request is cut off");
            request.extend_from_slice(&some[..read]);
            let Some(head) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                continue;
            };
            let body = request.len() - head - 4;
            let begun = *begun.get_or_insert_with(std::time::Instant::now);
            seen.push((begun.elapsed(), body));
            if body == length {
                break;
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).unwrap();
        seen
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_goes_over_the_network_evenly_and_not_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = LocationOptions {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        allow_http: true,
        limits: limits(Some(2 * MIB), None),
        ..LocationOptions::default()
    };
    let credentials = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        .map(|name| (name.to_owned(), "a".to_owned()))
        .into_iter()
        .collect();
    let store = Location::parse("s3://b/p", options).unwrap();
    let store = store.open(&credentials).unwrap();
    let length = 4 << 20;
    let server = take(listener, length);
    let pack = vec![7; length];
    store.put(&Path::from("pack"), pack.into()).await.unwrap();
    let seen = server.join().unwrap();
    let at = |share: usize| {
        seen.iter()
            .find(|(_, body)| *body >= length * share / 4)
            .unwrap()
            .0
    };
    for (share, seconds) in [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)] {
        let took = at(share).as_secs_f64();
        assert!(
            (seconds - 0.3..seconds + 1.0).contains(&took),
            "{share}: {took}"
        );
    }
}

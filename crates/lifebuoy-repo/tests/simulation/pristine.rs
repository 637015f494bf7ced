//! An empty repository whose keys are known, so that the keys of objects, and
//! with them the order of listings, depend on the seed alone.

use std::sync::LazyLock;

use bytes::Bytes;
use lifebuoy_repo::Passphrase;
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};

/// Objects as `Repository::init` made them once, for [`passphrase`] and with the
/// cheapest derivation of keys.
const OBJECTS: [(&str, &str); 2] = [
    (
        "format/1",
        "4c49464542554f5901000100000000006db3ac9eb176e2ea2b704428df4c5900 \
         0000000000000000000000000000000000000000000000000001000000000000 \
         607a7d7150af01c849daabe17df8168b38b5135b64ab3895103c784e822869ab \
         fe7e3b4761487610ff2cd464b63a5c3b86f5dc59d2108cd1dbc7d7772b53c1f6",
    ),
    (
        "keys/529e54cda6e98f1a680d12e7fc793298",
        "4c49464542554f5901000200000000006db3ac9eb176e2ea2b704428df4c5900 \
         010000000800000001000000010000004d016f1c15c3a67f89db5f39faa00a75 \
         9950ee8b79c17de80e48249204ebd9d930c18ff526004dccdfdcc86971f6b54a \
         d6f452e0108507f77ad069d22cb83932750767d099a102ede596d23c0e0b40d9 \
         fecfaed4e02628d55014f11dfd6362d7e74eaaa455ddc12fbf0ebf58929e407a \
         7c409595a575c277a5762b8ba601a82f6bfc0eeba2f2d956da7668c6716620f2",
    ),
];

/// The passphrase of the empty repository.
pub(crate) fn passphrase() -> Passphrase {
    Passphrase::new("simulated").unwrap()
}

/// Places the empty repository into a store.
pub(crate) async fn place(store: &InMemory) {
    static DECODED: LazyLock<Vec<(Path, Bytes)>> = LazyLock::new(|| {
        let decode = |(key, hex): (&str, &str)| (Path::from(key), unhex(hex));
        OBJECTS.into_iter().map(decode).collect()
    });
    for (key, bytes) in DECODED.iter() {
        store.put(key, bytes.clone().into()).await.unwrap();
    }
}

fn unhex(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

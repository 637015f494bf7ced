//! Plans and reports as the operator keeps them: gzip of JSON lines, in pieces,
//! in Secrets. Reads only.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::Value;

use crate::{cluster::Cluster, error::Error};

/// The largest document that is unpacked, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 512 << 20;

/// The bytes of a document from its Secrets, in the order of their names in the
/// status; none if there is no Secret.
///
/// # Errors
/// [`Error::Kube`] when one may not be read, [`Error::Document`] when one is
/// gone or holds something else.
pub(crate) async fn read(cluster: &Cluster, secrets: &[String]) -> Result<Option<Vec<u8>>, Error> {
    let api: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut bytes = Vec::new();
    for name in secrets {
        let found = api
            .get_opt(name)
            .await
            .map_err(|error| Error::kube(format!("read the Secret {name}"), error))?;
        let data = found.and_then(|secret| secret.data).unwrap_or_default();
        let piece = data.into_values().next().ok_or_else(|| {
            Error::document(
                format!("the Secret {name}"),
                "it is gone, or it holds no document",
            )
        })?;
        bytes.extend_from_slice(&piece.0);
    }
    Ok((!secrets.is_empty()).then_some(bytes))
}

/// The lines of a document, each a JSON value.
///
/// # Errors
/// [`Error::Document`] when it is not gzip of JSON lines, or too large.
pub(crate) fn lines(what: &str, bytes: &[u8]) -> Result<Vec<Value>, Error> {
    let mut text = String::new();
    let unpacked = MultiGzDecoder::new(bytes)
        .take(DOCUMENT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Error::document(what, error))?;
    if unpacked as u64 == DOCUMENT_BYTES_MAX {
        return Err(Error::document(what, "it is too large to be shown"));
    }
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(|error| Error::document(what, error)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use serde_json::json;

    use super::*;

    #[test]
    fn pieces_of_one_document_are_read_as_one() {
        let mut writer = GzEncoder::new(Vec::new(), Compression::default());
        writer.write_all(b"{\"a\":1}\n{\"b\":2}\n").unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(
            lines("it", &bytes).unwrap(),
            [json!({"a": 1}), json!({"b": 2})]
        );
        assert!(lines("it", &bytes[..8]).is_err());
        assert!(lines("it", b"no gzip").is_err());
    }
}

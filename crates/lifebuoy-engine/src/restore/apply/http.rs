//! Requests to the API server as bytes: no object types, no decisions.
//!
//! kube's client speaks HTTP/1.1 only and keeps every idle connection, so the
//! requests in flight have a connection each. That suits many small writes:
//! over one multiplexed connection, they would share its flow control and one
//! goroutine of the server.

use std::{fmt::Write as _, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use kube::client::Body;
use lifebuoy_api::FIELD_MANAGER;

use super::answer::Answer;
use crate::archive::TypeId;
use crate::restore::Key;

/// How long the server may take for one answer. Its own limit is one minute.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(75);
/// How much of an answer is read: no object is larger.
const ANSWER_BYTES_MAX: usize = 16 << 20;

pub(crate) const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
/// The metadata is all that is looked at.
const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// The same for lists; servers that cannot leave the bodies out send them.
pub(crate) const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// The connection broke, or no answer came in time. Whether the write happened
/// is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost(pub(crate) String);

/// Where the objects of one type are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    root: String,
    resource: String,
    namespaced: bool,
}

impl Place {
    pub(crate) fn new(id: &TypeId, version: &str, namespaced: bool) -> Self {
        let root = if id.group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{}/{version}", id.group)
        };
        Self {
            root,
            resource: id.resource.clone(),
            namespaced,
        }
    }

    /// The path of the type's list in one namespace, or in all where
    /// `namespace` is empty.
    pub(crate) fn list(&self, namespace: &str) -> String {
        let Self {
            root,
            resource,
            namespaced,
        } = self;
        if *namespaced && !namespace.is_empty() {
            let mut path = format!("{root}/namespaces/");
            put_escaped(&mut path, namespace);
            path.push('/');
            path.push_str(resource);
            path
        } else {
            format!("{root}/{resource}")
        }
    }

    pub(crate) fn object(&self, key: &Key) -> String {
        let mut path = self.list(&key.namespace);
        path.push('/');
        put_escaped(&mut path, &key.name);
        path
    }
}

/// Escapes what is no unreserved character of a URI.
pub(crate) fn put_escaped(uri: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            uri.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
}

/// What a request does with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Creates it.
    Create,
    /// Goes as far as creating it would, and changes nothing.
    Check,
    /// Replaces it; the body says which uid and resourceVersion.
    Replace,
    /// Merges a JSON merge patch into it.
    Merge,
    /// Changes it by a JSON Patch.
    Patch,
    /// Deletes what has exactly the uid and resourceVersion of the options.
    Delete,
    /// Reads its metadata.
    Metadata,
    /// Reads all of it.
    Read,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) op: Op,
    pub(crate) place: &'a Place,
    pub(crate) key: &'a Key,
    pub(crate) body: Bytes,
}

/// Sends requests.
#[derive(Clone)]
pub(crate) struct Http {
    client: kube::Client,
}

impl Http {
    pub(crate) fn new(client: &kube::Client) -> Self {
        Self {
            client: client.clone(),
        }
    }

    /// Sends one request. The body of a deletion is its options, those of the
    /// others what is written.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Answer, Lost> {
        let Call {
            op,
            place,
            key,
            body,
        } = call;
        let (method, content, accept) = match op {
            Op::Create | Op::Check => (Method::POST, JSON, JSON),
            Op::Replace => (Method::PUT, JSON, METADATA),
            Op::Merge => (Method::PATCH, MERGE_PATCH, METADATA),
            Op::Patch => (Method::PATCH, JSON_PATCH, METADATA),
            Op::Delete => (Method::DELETE, JSON, METADATA),
            Op::Metadata => (Method::GET, JSON, METADATA),
            Op::Read => (Method::GET, JSON, JSON),
        };
        let mut uri = match op {
            Op::Create | Op::Check => place.list(&key.namespace),
            _ => place.object(key),
        };
        if matches!(
            op,
            Op::Create | Op::Check | Op::Replace | Op::Merge | Op::Patch
        ) {
            let _ = write!(uri, "?fieldManager={FIELD_MANAGER}&fieldValidation=Warn");
        }
        if matches!(op, Op::Check) {
            uri.push_str("&dryRun=All");
        }
        self.send(method, uri, content, accept, body.clone()).await
    }

    /// Reads any path.
    pub(crate) async fn read(&self, uri: String, accept: &str) -> Result<Answer, Lost> {
        self.send(Method::GET, uri, JSON, accept, Bytes::new())
            .await
    }

    async fn send(
        &self,
        method: Method,
        uri: String,
        content: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<Answer, Lost> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::ACCEPT, accept)
            // Compression costs the API server more than the bytes cost us.
            .header(header::ACCEPT_ENCODING, "identity");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content);
        }
        let request = request
            .body(Body::from(body))
            .map_err(|error| Lost(error.to_string()))?;
        match tokio::time::timeout(ANSWER_TIME_MAX, self.answer(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Lost(format!(
                "no answer came within {} s",
                ANSWER_TIME_MAX.as_secs()
            ))),
        }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Answer, Lost> {
        let response = self
            .client
            .send(request)
            .await
            .map_err(|error| lost(&error))?;
        let code = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        // Read to its end, so that the connection can be used again.
        let mut stream = response.into_body().into_data_stream();
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        while let Some(bytes) = stream.try_next().await.map_err(|error| lost(&error))? {
            if first.is_empty() {
                first = bytes;
            } else {
                if more.len() + bytes.len() > ANSWER_BYTES_MAX {
                    return Err(Lost(format!(
                        "the answer is longer than {ANSWER_BYTES_MAX} bytes"
                    )));
                }
                more.extend_from_slice(&bytes);
            }
        }
        let body = if more.is_empty() {
            first
        } else {
            let mut whole = BytesMut::with_capacity(first.len() + more.len());
            whole.extend_from_slice(&first);
            whole.extend_from_slice(&more);
            whole.freeze()
        };
        Ok(Answer {
            code,
            retry_after,
            body,
        })
    }
}

fn lost(error: &dyn std::error::Error) -> Lost {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    Lost(lifebuoy_api::bounded(&text, 300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let pods = Place::new(&TypeId::new("", "pods"), "v1", true);
        assert_eq!(pods.list("shop"), "/api/v1/namespaces/shop/pods");
        assert_eq!(pods.list(""), "/api/v1/pods");
        let roles = Place::new(
            &TypeId::new("rbac.authorization.k8s.io", "clusterroles"),
            "v1",
            false,
        );
        assert_eq!(
            roles.object(&Key::new("", "system:x y")),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Ax%20y"
        );
    }
}

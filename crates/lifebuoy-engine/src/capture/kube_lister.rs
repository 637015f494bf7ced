//! Lists from a real API server: raw requests, raw bodies, no object types.

use std::{fmt::Write as _, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use lifebuoy_api::bounded;
use serde::Deserialize;

use super::lister::{At, ListError, ListRequest, Lister, PageBody};
use crate::{
    Error,
    discovery::{self, Discovered},
};

/// How long nothing may come: a consistent list may have to wait, no healthy
/// server takes this long.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How much of an error's body is read.
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
/// How much of the server's own words are kept.
const MESSAGE_BYTES_MAX: usize = 200;

const JSON: &str = "application/json";
/// Servers that cannot leave the bodies out send them.
const METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// See the module.
pub(crate) struct KubeLister {
    client: kube::Client,
}

impl KubeLister {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client }
    }

    async fn open(&self, request: ListRequest) -> Result<PageBody, ListError> {
        let accept = if request.metadata_only {
            METADATA
        } else {
            JSON
        };
        let request = Request::get(uri(&request))
            .header(header::ACCEPT, accept)
            // Compression costs the API server more than the bytes cost us.
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Body::empty())
            .map_err(|error| ListError::Refused {
                message: error.to_string(),
            })?;
        let response = tokio::time::timeout(SILENCE_MAX, self.client.send(request))
            .await
            .map_err(|_| silent())?
            .map_err(|error| transport(&error))?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let body = response.into_body().into_data_stream();
        Ok(futures::stream::try_unfold(body, |mut body| async move {
            let next = tokio::time::timeout(SILENCE_MAX, body.next())
                .await
                .map_err(|_| silent())?;
            match next {
                Some(Ok(bytes)) => Ok(Some((bytes, body))),
                Some(Err(error)) => Err(transport(&error)),
                None => Ok(None),
            }
        })
        .boxed())
    }
}

impl Lister for KubeLister {
    fn page(&self, request: ListRequest) -> BoxFuture<'_, Result<PageBody, ListError>> {
        self.open(request).boxed()
    }

    fn served(&self) -> BoxFuture<'_, Result<Discovered, Error>> {
        discovery::discover(&self.client).boxed()
    }
}

fn uri(request: &ListRequest) -> String {
    let mut uri = format!("{}?limit={}", request.path, request.limit);
    match &request.at {
        // No `resourceVersion` asks for a consistent list.
        At::Latest => {}
        At::Exact(revision) => {
            uri.push_str("&resourceVersionMatch=Exact&resourceVersion=");
            put_escaped(&mut uri, revision);
        }
        At::Continue(token) => {
            uri.push_str("&continue=");
            put_escaped(&mut uri, token);
        }
    }
    if let Some(selector) = &request.field_selector {
        uri.push_str("&fieldSelector=");
        put_escaped(&mut uri, selector);
    }
    uri
}

fn put_escaped(uri: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            uri.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    metadata: StatusMetadata,
    details: StatusDetails,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusMetadata {
    #[serde(rename = "continue")]
    continue_token: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StatusDetails {
    causes: Vec<StatusCause>,
    retry_after_seconds: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusCause {
    reason: String,
}

async fn refusal(response: Response<Body>) -> ListError {
    let code = response.status();
    let after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    let mut stream = response.into_body().into_data_stream();
    while let Ok(Ok(Some(bytes))) = tokio::time::timeout(SILENCE_MAX, stream.try_next()).await {
        body.extend_from_slice(&bytes);
        if body.len() > ERROR_BODY_BYTES_MAX {
            break;
        }
    }
    classify(code, after, &body)
}

fn classify(code: StatusCode, after: Option<u64>, body: &[u8]) -> ListError {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let words = if status.message.is_empty() {
        code.canonical_reason().unwrap_or("no reason given")
    } else {
        &status.message
    };
    let message = format!(
        "the API server answered {}: {}",
        code.as_u16(),
        bounded(words, MESSAGE_BYTES_MAX)
    );
    let caused_by = |reason: &str| status.details.causes.iter().any(|c| c.reason == reason);
    if caused_by("ResourceVersionTooLarge") {
        return ListError::TooNew { message };
    }
    let after = after
        .or(status.details.retry_after_seconds)
        .map(Duration::from_secs);
    match code.as_u16() {
        410 => ListError::Expired {
            continue_token: Some(status.metadata.continue_token).filter(|t| !t.is_empty()),
            message,
        },
        429 => ListError::Throttled { after, message },
        503 if after.is_some() => ListError::Throttled { after, message },
        404 => ListError::NotFound { message },
        401 | 403 => ListError::Denied { message },
        500..=599 => ListError::Failed { message },
        400 if status.reason == "Expired" => ListError::Expired {
            continue_token: None,
            message,
        },
        _ => ListError::Refused { message },
    }
}

fn silent() -> ListError {
    ListError::Transport {
        message: format!("nothing came for {} s", SILENCE_MAX.as_secs()),
    }
}

fn transport(error: &dyn std::error::Error) -> ListError {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            let _ = write!(message, ": {cause_text}");
        }
        source = cause.source();
    }
    ListError::Transport {
        message: bounded(&message, MESSAGE_BYTES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_of_which_moment() {
        let of = |at| uri(&ListRequest::page("/api/v1/pods".to_owned(), at));
        assert_eq!(of(At::Latest), "/api/v1/pods?limit=500");
        assert_eq!(
            of(At::Exact("7".to_owned())),
            "/api/v1/pods?limit=500&resourceVersionMatch=Exact&resourceVersion=7"
        );
        assert_eq!(
            of(At::Continue("a+b=".to_owned())),
            "/api/v1/pods?limit=500&continue=a%2Bb%3D"
        );
    }

    #[test]
    fn refusals_are_told_apart() {
        let classify =
            |code, body: &str| classify(StatusCode::from_u16(code).unwrap(), None, body.as_bytes());
        assert!(matches!(
            classify(410, r#"{"metadata":{"continue":"t"},"message":"expired"}"#),
            ListError::Expired { continue_token: Some(token), .. } if token == "t"
        ));
        assert!(matches!(
            classify(
                504,
                r#"{"details":{"causes":[{"reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1}}"#
            ),
            ListError::TooNew { .. }
        ));
        assert!(matches!(
            classify(429, r#"{"details":{"retryAfterSeconds":2}}"#),
            ListError::Throttled { after: Some(after), .. } if after.as_secs() == 2
        ));
        assert!(matches!(classify(503, "down"), ListError::Failed { .. }));
        assert!(matches!(classify(403, "{}"), ListError::Denied { .. }));
        assert!(matches!(classify(404, "{}"), ListError::NotFound { .. }));
        assert!(matches!(classify(406, "{}"), ListError::Refused { .. }));
    }
}

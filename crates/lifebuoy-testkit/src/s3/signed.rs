//! Signed requests that no object store library makes: of buckets, policies and
//! versions, and those of a thief. For a handful of small requests; no retries.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ETAG, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;

use super::REGION;

const CHECKSUM: &str = "x-amz-checksum-sha256";

/// A key of the S3 server.
#[derive(Clone)]
pub struct S3Key {
    /// The key id.
    pub access_key: String,
    /// The secret.
    pub secret_key: String,
}

// By hand, so that no secret gets into a log.
impl std::fmt::Debug for S3Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3Key({})", self.access_key)
    }
}

/// What a server answered, whatever it was.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The header of this name.
    pub etag: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// True for the statuses 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The text of the first XML element of this name in the body.
    pub fn element(&self, name: &str) -> Option<String> {
        element(&self.text(), name).map(str::to_owned)
    }

    /// The same answer, if it tells of success.
    ///
    /// # Errors
    /// When it does not; with what it tells.
    pub fn success(self) -> Result<Self> {
        if !self.is_success() {
            bail!("the S3 server answered {}: {}", self.status, self.text());
        }
        Ok(self)
    }
}

/// The text of the first XML element of this name.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(text, _)| text)
}

/// Sends one request to a `service` at `endpoint`; its URI is path and query.
///
/// # Errors
/// When there is no answer.
pub(super) async fn send(
    endpoint: &str,
    service: &str,
    key: &S3Key,
    request: Request<Bytes>,
) -> Result<Answer> {
    let credential = AwsCredential {
        key_id: key.access_key.clone(),
        secret_key: key.secret_key.clone(),
        token: None,
    };
    let (mut parts, body) = request.into_parts();
    // Wanted by many requests with a body; of an upload in parts it would be the
    // sum of something else.
    let in_parts = parts.uri.query().is_some_and(|it| it.contains("uploadId="));
    if service == "s3" && !body.is_empty() && !in_parts {
        let sum = digest(&SHA256, &body);
        let sum = BASE64.encode(sum.as_ref());
        parts.headers.insert(CHECKSUM, HeaderValue::from_str(&sum)?);
    }
    parts.uri = format!("{endpoint}{}", parts.uri).parse()?;
    let mut request = Request::from_parts(parts, HttpRequestBody::from(body.clone()));
    AwsAuthorizer::new(&credential, service, REGION).try_authorize(&mut request, None)?;
    let (mut parts, _) = request.into_parts();
    let host = parts
        .uri
        .authority()
        .context("the endpoint has no host")?
        .as_str();
    parts.headers.insert(HOST, HeaderValue::from_str(host)?);

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client
        .request(Request::from_parts(parts, Full::new(body)))
        .await?;
    let status = response.status().as_u16();
    let etag = response.headers().get(ETAG);
    let etag = etag.and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { status, etag, body })
}

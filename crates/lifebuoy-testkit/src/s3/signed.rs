//! Signed requests that no object store library makes: creating a bucket and
//! setting its policy. For a handful of small requests; no retries.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;

use super::REGION;
use super::users::S3User;

/// Sends one request to `endpoint` and returns the answer's body.
pub(super) async fn request(
    endpoint: &str,
    user: &S3User,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<String> {
    let body = Bytes::from(body);
    let credential = AwsCredential {
        key_id: user.access_key.clone(),
        secret_key: user.secret_key.clone(),
        token: None,
    };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{endpoint}{path}"))
        .body(HttpRequestBody::from(body.clone()))?;
    AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(&mut request, None)?;
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
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if !status.is_success() {
        bail!("the S3 server answered {status}: {answer}");
    }
    Ok(answer)
}

//! One HTTP/1.1 connection over TLS, one request at a time. Decodes nothing
//! but the status and the token of a next page; follows nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::control_plane::Access;
use crate::install_tls_provider;

/// How much of the start and the end of an answer is looked at, in bytes.
const EDGE_BYTES: usize = 4096;
/// The wait after a 429 that names none.
const DEFAULT_BACKOFF: Duration = Duration::from_secs(1);
/// How often the server may ask to come back later.
const BACKOFFS_MAX: u32 = 120;

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// The verb.
    pub method: Method,
    /// The path with the query.
    pub path: String,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl RawRequest {
    /// A GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            content_type: "application/json",
            body: Bytes::new(),
        }
    }

    /// A POST of one object.
    pub fn post(path: impl Into<String>, object: &serde_json::Value) -> Self {
        Self {
            method: Method::POST,
            body: object.to_string().into(),
            ..Self::get(path)
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Bytes of the body.
    pub(super) bytes: u64,
    /// The token of the next page, if there is one.
    pub(super) next: Option<String>,
}

/// An open connection to an API server.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: String,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When the server does not answer or its certificate does not fit.
    pub async fn open(access: &Access) -> Result<Self> {
        install_tls_provider();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(access.ca_pem.as_bytes()) {
            roots.add(certificate.context("the CA is no certificate")?)?;
        }
        let tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let url: Uri = access.url.parse()?;
        let host = url.authority().context("the URL has no host")?.to_string();
        let name = ServerName::try_from(url.host().unwrap_or_default().to_owned())?;
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // The next request on this connection reports what broke it.
            let _ = driver.await;
        });
        let token = access.token.clone();
        Ok(Self {
            sender,
            host,
            token,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    /// Sends one request and reads the answer to its end. Comes back later
    /// when the server asks for it (429).
    ///
    /// # Errors
    /// When the answer is anything else but a success.
    pub async fn send(&mut self, request: &RawRequest) -> Result<()> {
        self.exchange(request).await.map(|_| ())
    }

    pub(super) async fn exchange(&mut self, request: &RawRequest) -> Result<Answer> {
        for _ in 0..BACKOFFS_MAX {
            let raw = Request::builder()
                .method(&request.method)
                .uri(&request.path)
                .header(HOST, &self.host)
                .header(AUTHORIZATION, format!("Bearer {}", self.token))
                .header(CONTENT_TYPE, request.content_type)
                .body(Full::new(request.body.clone()))?;
            self.sender.ready().await?;
            let response = self.sender.send_request(raw).await?;
            let status = response.status();
            let wait = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok());
            let wait = wait
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs);
            let (answer, start) = read(response.into_body()).await?;
            if status.is_success() {
                return Ok(answer);
            }
            if status != StatusCode::TOO_MANY_REQUESTS {
                bail!("{} {}: {status}: {start}", request.method, request.path);
            }
            tokio::time::sleep(wait.unwrap_or(DEFAULT_BACKOFF)).await;
        }
        bail!(
            "{} {} was put off {BACKOFFS_MAX} times",
            request.method,
            request.path
        );
    }
}

/// Reads to the end. Returns the start of the body as text too.
async fn read(mut body: Incoming) -> Result<(Answer, String)> {
    let mut bytes = 0;
    let mut head = Vec::with_capacity(EDGE_BYTES);
    let mut tail: Vec<u8> = Vec::with_capacity(2 * EDGE_BYTES);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        bytes += data.len() as u64;
        let wanted = EDGE_BYTES.saturating_sub(head.len()).min(data.len());
        head.extend_from_slice(&data[..wanted]);
        tail.extend_from_slice(&data[data.len().saturating_sub(EDGE_BYTES)..]);
        tail.drain(..tail.len().saturating_sub(EDGE_BYTES));
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let next = next_page(&head, &String::from_utf8_lossy(&tail));
    Ok((Answer { bytes, next }, head))
}

/// Built-in types have the list's metadata before the items, custom
/// resources after them.
fn next_page(head: &str, tail: &str) -> Option<String> {
    let before_items = head.split("\"items\":").next().unwrap_or_default();
    let after_items = tail
        .rsplit_once("\"metadata\":{")
        .map_or("", |(_, metadata)| metadata);
    let token = |text: &str| {
        let (_, rest) = text.split_once("\"continue\":\"")?;
        let (token, _) = rest.split_once('"')?;
        (!token.is_empty()).then(|| token.to_owned())
    };
    token(before_items).or_else(|| token(after_items))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_on_either_side_of_the_items() {
        let built_in =
            r#"{"kind":"PodList","metadata":{"continue":"abc"},"items":[{"metadata":{}}]}"#;
        let custom = r#"{"items":[{"continue":"no"}],"metadata":{"continue":"def"}}"#;
        let last = r#"{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}}]}"#;
        assert_eq!(next_page(built_in, built_in).as_deref(), Some("abc"));
        assert_eq!(next_page(custom, custom).as_deref(), Some("def"));
        assert_eq!(next_page(last, last), None);
    }
}

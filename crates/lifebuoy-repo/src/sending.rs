//! Sends the bodies of large requests piece by piece, at a rate. The client of
//! `object_store` takes a body as a whole; so these few requests have a client of their
//! own, which is made of the same options. All others go through the usual one.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService, ReqwestConnector,
    },
};
use reqwest::{Body, Certificate, Proxy};

use crate::{
    paced::{SMALL_BYTES, pieces},
    rate::Throttle,
};

/// What a client of our own is made of.
#[derive(Debug)]
pub(crate) struct SendingOptions<'a> {
    pub(crate) allow_http: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) proxy: Option<&'a str>,
    pub(crate) ca_pem: Option<&'a [u8]>,
}

/// Makes clients whose large requests share a throttle.
#[derive(Debug)]
pub(crate) struct PacedConnector {
    large: reqwest::Client,
    throttle: Arc<Throttle>,
}

impl PacedConnector {
    pub(crate) fn new(options: &SendingOptions<'_>, throttle: Throttle) -> reqwest::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .https_only(!options.allow_http)
            .http1_only()
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout);
        if let Some(proxy) = options.proxy {
            builder = builder.proxy(Proxy::all(proxy)?);
        }
        if let Some(pem) = options.ca_pem {
            builder = builder.tls_certs_merge(Certificate::from_pem_bundle(pem)?);
        }
        Ok(Self {
            large: builder.build()?,
            throttle: Arc::new(throttle),
        })
    }
}

impl HttpConnector for PacedConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(PacedClient {
            small: ReqwestConnector::default().connect(options)?,
            large: self.large.clone(),
            throttle: Arc::clone(&self.throttle),
        }))
    }
}

#[derive(Debug)]
struct PacedClient {
    small: HttpClient,
    large: reqwest::Client,
    throttle: Arc<Throttle>,
}

#[async_trait]
impl HttpService for PacedClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let length = request.body().content_length();
        if length <= SMALL_BYTES {
            self.throttle.count(length as u64);
            return self.small.execute(request).await;
        }
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        // All that it holds is in memory.
        let bytes = body.collect().await?.to_bytes();
        let mut paced = reqwest::Request::new(parts.method, url);
        *paced.headers_mut() = parts.headers;
        *paced.body_mut() = Some(Body::wrap_stream(self.paced(bytes)));
        let response: http::Response<Body> =
            self.large.execute(paced).await.map_err(http_error)?.into();
        let (parts, body) = response.into_parts();
        let body = HttpResponseBody::new(body.map_err(http_error));
        Ok(HttpResponse::from_parts(parts, body))
    }
}

impl PacedClient {
    fn paced(&self, bytes: Bytes) -> impl futures::Stream<Item = Result<Bytes, HttpError>> + use<> {
        let throttle = Arc::clone(&self.throttle);
        stream::iter(pieces(bytes)).then(move |piece| {
            let throttle = Arc::clone(&throttle);
            async move {
                throttle.pass(piece.len() as u64).await;
                Ok(piece)
            }
        })
    }
}

/// As the usual client sorts its errors: what is retried depends on it.
fn http_error(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else if error.is_request() || error.is_body() {
        HttpErrorKind::Request
    } else {
        HttpErrorKind::Unknown
    };
    HttpError::new(kind, error.without_url())
}

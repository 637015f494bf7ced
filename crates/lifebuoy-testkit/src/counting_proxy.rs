//! A loopback HTTP proxy before an S3 server: counts requests by verb and
//! bytes by direction, adds latency, and fails on demand.
//!
//! It passes every header on as it came, Host included, so that signatures
//! stay valid. It never looks into a body.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

type Body = BoxBody<Bytes, hyper::Error>;
type Upstream = Client<HttpConnector, Body>;

/// What the proxy does instead of passing a request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers 503 `SlowDown`, as an overloaded store does.
    Unavailable,
    /// Answers 404 `NoSuchBucket`, as after the bucket was deleted.
    NoSuchBucket,
    /// Answers 507, as a full disk behind the store does.
    Full,
    /// Closes the connection without an answer.
    Dropped,
    /// Never answers.
    Hang,
}

/// Which requests a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultScope {
    /// Every request.
    All,
    /// Only PUT, POST and DELETE.
    Writes,
}

/// What went through so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests by verb. Listings count as `LIST`, not as `GET`.
    pub requests: BTreeMap<String, u64>,
    /// Bytes of request bodies.
    pub sent_bytes: u64,
    /// Bytes of response bodies.
    pub received_bytes: u64,
}

impl Traffic {
    /// The number of requests with this verb.
    pub fn of(&self, verb: &str) -> u64 {
        self.requests.get(verb).copied().unwrap_or(0)
    }

    /// The number of all requests.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

#[derive(Debug)]
struct PlannedFault {
    fault: Fault,
    scope: FaultScope,
    /// How many requests in scope still pass before it begins.
    passes: u64,
}

#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<BTreeMap<String, u64>>,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    latency_us: AtomicU64,
    fault: Mutex<Option<PlannedFault>>,
}

/// A running proxy. Dropping it closes its port and its connections.
#[derive(Debug)]
#[must_use = "dropping it closes the proxy"]
pub struct CountingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepts: AbortOnDropHandle<()>,
}

impl CountingProxy {
    /// Starts a proxy in front of `target`, an `http://HOST:PORT` URL.
    ///
    /// # Errors
    /// When the URL is not one, or no port is free.
    pub async fn start(target: &str) -> Result<Self> {
        let target: Uri = target
            .parse()
            .with_context(|| format!("{target:?} is no URL"))?;
        let authority = target
            .authority()
            .context("the target has no host")?
            .to_string();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepts = tokio::spawn(accept(listener, authority.into(), Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            _accepts: AbortOnDropHandle::new(accepts),
        })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What went through since the start or the last [`CountingProxy::reset`].
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self
                .shared
                .requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            sent_bytes: self.shared.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.shared.received_bytes.load(Ordering::Relaxed),
        }
    }

    /// Counts from zero again.
    pub fn reset(&self) {
        self.shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.shared.sent_bytes.store(0, Ordering::Relaxed);
        self.shared.received_bytes.store(0, Ordering::Relaxed);
    }

    /// Delays every request by this much.
    pub fn set_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.shared.latency_us.store(micros, Ordering::Relaxed);
    }

    /// Fails requests in `scope`, after the next `passes` of them, until
    /// [`CountingProxy::heal`].
    pub fn fail(&self, fault: Fault, scope: FaultScope, passes: u64) {
        self.plan(Some(PlannedFault {
            fault,
            scope,
            passes,
        }));
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        self.plan(None);
    }

    fn plan(&self, fault: Option<PlannedFault>) {
        *self
            .shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

async fn accept(listener: TcpListener, target: Arc<str>, shared: Arc<Shared>) {
    let upstream: Upstream = Client::builder(TokioExecutor::new()).build_http();
    let mut connections = JoinSet::new();
    loop {
        // A failed accept is the client's loss of one connection.
        if let Ok((stream, _)) = listener.accept().await {
            let serve = serve(
                stream,
                Arc::clone(&target),
                Arc::clone(&shared),
                upstream.clone(),
            );
            connections.spawn(serve);
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, target: Arc<str>, shared: Arc<Shared>, upstream: Upstream) {
    let answer = service_fn(move |request| {
        let (target, shared, upstream) =
            (Arc::clone(&target), Arc::clone(&shared), upstream.clone());
        async move { pass_on(request, &target, &shared, &upstream).await }
    });
    // Small requests and answers alternate: waiting to fill packets costs 40 ms.
    let _ = stream.set_nodelay(true);
    // An error closes the connection, which is what the client then sees.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn pass_on(
    request: Request<Incoming>,
    target: &str,
    shared: &Arc<Shared>,
    upstream: &Upstream,
) -> Result<Response<Body>> {
    shared.count(&request);
    let latency = Duration::from_micros(shared.latency_us.load(Ordering::Relaxed));
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if let Some(fault) = shared.fault_for(request.method()) {
        return fail(fault).await;
    }
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("http://{target}{path}").parse()?;
    let counted = Arc::clone(shared);
    let body = body.map_frame(move |frame| {
        counted
            .sent_bytes
            .fetch_add(data_bytes(&frame), Ordering::Relaxed);
        frame
    });
    let Ok(response) = upstream
        .request(Request::from_parts(parts, body.boxed()))
        .await
    else {
        // The server is down: its clients see that as a broken connection.
        return Err(anyhow!("the server behind the proxy does not answer"));
    };
    let counted = Arc::clone(shared);
    Ok(response.map(|body| {
        let body = body.map_frame(move |frame| {
            counted
                .received_bytes
                .fetch_add(data_bytes(&frame), Ordering::Relaxed);
            frame
        });
        body.boxed()
    }))
}

fn data_bytes(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

async fn fail(fault: Fault) -> Result<Response<Body>> {
    let (status, code) = match fault {
        Fault::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        Fault::NoSuchBucket => (StatusCode::NOT_FOUND, "NoSuchBucket"),
        Fault::Full => (StatusCode::INSUFFICIENT_STORAGE, "InsufficientStorage"),
        Fault::Dropped => return Err(anyhow!("dropped on purpose")),
        Fault::Hang => return std::future::pending().await,
    };
    let body = format!("<Error><Code>{code}</Code><Message>planned by the test</Message></Error>");
    let body = Full::from(body)
        .map_err(|never: Infallible| match never {})
        .boxed();
    Ok(Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(body)?)
}

impl Shared {
    fn count(&self, request: &Request<Incoming>) {
        let query = request.uri().query().unwrap_or_default();
        let is_listing = request.method() == Method::GET && query.contains("list-type=2");
        let verb = if is_listing {
            "LIST"
        } else {
            request.method().as_str()
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(verb.to_owned()).or_default() += 1;
    }

    fn fault_for(&self, method: &Method) -> Option<Fault> {
        let mut planned = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let planned = planned.as_mut()?;
        let is_write = matches!(*method, Method::PUT | Method::POST | Method::DELETE);
        if planned.scope == FaultScope::Writes && !is_write {
            return None;
        }
        if planned.passes > 0 {
            planned.passes -= 1;
            return None;
        }
        Some(planned.fault)
    }
}

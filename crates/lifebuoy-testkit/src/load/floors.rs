//! How fast the machine is with nothing in between: what the benchmarks are
//! measured against.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use kube::discovery::{Discovery, verbs};

use super::connection::{Connection, RawRequest};
use super::recipe::{CONNECTIONS, LoadSpec};
use crate::control_plane::Access;

/// Objects on one page.
const PAGE_OBJECTS: u32 = 500;

/// What listing everything took.
#[derive(Clone, Copy, Debug)]
pub struct ListFloor {
    /// Types that can be listed.
    pub types: usize,
    /// Requests.
    pub pages: usize,
    /// Bytes of the answers.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub duration: Duration,
}

/// What creating everything took.
#[derive(Clone, Copy, Debug)]
pub struct CreateFloor {
    /// Objects created.
    pub objects: usize,
    /// From the first request to the last answer.
    pub duration: Duration,
}

/// Lists every type page by page over one connection. Asking which types
/// there are, and connecting, do not count.
///
/// # Errors
/// When a type cannot be listed.
pub async fn list_floor(access: &Access) -> Result<ListFloor> {
    let discovery = Discovery::new(access.client().await?)
        .run_aggregated()
        .await?;
    let mut paths = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if capabilities.supports_operation(verbs::LIST) {
                let root = if resource.group.is_empty() {
                    "/api"
                } else {
                    "/apis"
                };
                paths.push(format!(
                    "{root}/{}/{}",
                    resource.api_version, resource.plural
                ));
            }
        }
    }
    let mut connection = Connection::open(access).await?;
    let started = Instant::now();
    let (mut pages, mut bytes) = (0, 0);
    for path in &paths {
        let mut next = Some(format!("{path}?limit={PAGE_OBJECTS}"));
        while let Some(page) = next {
            let answer = connection.exchange(&RawRequest::get(page)).await?;
            pages += 1;
            bytes += answer.bytes;
            // A token is URL-safe base64.
            next = answer
                .next
                .map(|token| format!("{path}?limit={PAGE_OBJECTS}&continue={token}"));
        }
    }
    Ok(ListFloor {
        types: paths.len(),
        pages,
        bytes,
        duration: started.elapsed(),
    })
}

/// Creates the namespaces and objects of `spec` over [`CONNECTIONS`]
/// connections: this fills a cluster and measures the floor at once.
///
/// # Errors
/// When an object is refused, for example since it exists.
pub async fn create_floor(access: &Access, spec: LoadSpec) -> Result<CreateFloor> {
    let namespaces = spec.namespaces();
    let first = send_all(access, CONNECTIONS, namespaces, LoadSpec::namespace).await?;
    let second = send_all(access, CONNECTIONS, spec.objects, |index| {
        spec.object(index)
    })
    .await?;
    Ok(CreateFloor {
        objects: first.objects + second.objects,
        duration: first.duration + second.duration,
    })
}

/// Sends `count` requests over `connections` connections, each taking the
/// next one when it is done.
///
/// # Errors
/// When one of them is refused.
pub async fn send_all(
    access: &Access,
    connections: usize,
    count: usize,
    request: impl Fn(usize) -> RawRequest,
) -> Result<CreateFloor> {
    let opened = (0..connections.min(count)).map(|_| Connection::open(access));
    let opened = try_join_all(opened).await?;
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let workers = opened.into_iter().map(async |mut connection| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return anyhow::Ok(());
            }
            connection.send(&request(index)).await?;
        }
    });
    try_join_all(workers).await?;
    Ok(CreateFloor {
        objects: count,
        duration: started.elapsed(),
    })
}

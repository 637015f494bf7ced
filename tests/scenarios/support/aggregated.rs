//! A small aggregated API: an API server of its own, with revisions of its own,
//! behind the cluster's. It serves one type with two objects, for ever the same.

use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceSpec, ServiceReference,
};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use lifebuoy_scenarios::{SOON, until_cluster};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const GROUP: &str = "gadgets.example.dev";

/// The type that it serves.
pub(crate) const RESOURCE: &str = "gadgets.gadgets.example.dev";

/// A running aggregated API; it ends when this is dropped.
pub(crate) struct Aggregated(tokio::task::JoinHandle<()>);

impl Drop for Aggregated {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves the API on loopback, registers it, and waits until it is available.
pub(crate) async fn start(client: &Client) -> Result<Aggregated> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let acceptor = acceptor()?;
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            // A connection that breaks concerns the API server, which retries.
            tokio::spawn(async move { drop(answer(acceptor, stream).await) });
        }
    });
    register(client, port).await?;
    until_cluster(
        client,
        &format!("v1.{GROUP}"),
        SOON,
        |service: &APIService| {
            service
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|condition| condition.type_ == "Available" && condition.status == "True")
        },
    )
    .await?;
    Ok(Aggregated(task))
}

fn acceptor() -> Result<TlsAcceptor> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        certified.signing_key.serialize_der(),
    ));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn register(client: &Client, port: u16) -> Result<()> {
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    };
    // An ExternalName is the one kind of Service that leads to loopback.
    let service = Service {
        metadata: metadata("gadgets"),
        spec: Some(ServiceSpec {
            type_: Some("ExternalName".to_owned()),
            external_name: Some("localhost".to_owned()),
            ports: Some(vec![ServicePort {
                port: i32::from(port),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Api::<Service>::namespaced(client.clone(), "default")
        .create(&PostParams::default(), &service)
        .await?;
    let service = APIService {
        metadata: metadata(&format!("v1.{GROUP}")),
        spec: Some(APIServiceSpec {
            group: Some(GROUP.to_owned()),
            version: Some("v1".to_owned()),
            group_priority_minimum: 1000,
            version_priority: 10,
            insecure_skip_tls_verify: Some(true),
            service: Some(ServiceReference {
                name: Some("gadgets".to_owned()),
                namespace: Some("default".to_owned()),
                port: Some(i32::from(port)),
            }),
            ..APIServiceSpec::default()
        }),
        ..APIService::default()
    };
    Api::<APIService>::all(client.clone())
        .create(&PostParams::default(), &service)
        .await?;
    Ok(())
}

/// Answers one request on a connection, and closes it.
async fn answer(acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8(request)?;
    let path = request.split_whitespace().nth(1).context("no path")?;
    let (status, body) = match document(path.split('?').next().unwrap_or(path)) {
        Some(body) => ("200 OK", body.to_string()),
        None => ("404 Not Found", "{}".to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

fn document(path: &str) -> Option<Value> {
    let group_version = format!("{GROUP}/v1");
    if path == format!("/apis/{group_version}") {
        return Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
            "resources": [{
                "name": "gadgets", "singularName": "gadget", "namespaced": true, "kind": "Gadget",
                "verbs": ["create", "delete", "get", "list"],
            }],
        }));
    }
    if path == format!("/apis/{group_version}/gadgets") {
        let gadget = |name: &str| {
            json!({
                "apiVersion": group_version, "kind": "Gadget",
                "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "7"},
            })
        };
        return Some(json!({
            "kind": "GadgetList", "apiVersion": group_version,
            "metadata": {"resourceVersion": "7"},
            "items": [gadget("one"), gadget("two")],
        }));
    }
    None
}

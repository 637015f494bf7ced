//! Where an API server listens, and the network of its Services.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;

use crate::{namespace, ports};

/// Below it are the networks of Services.
const SERVICES: u8 = 96;

/// The network of one control plane.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) apiserver: SocketAddrV4,
    /// The addresses of its Services.
    pub(super) services: String,
}

impl Network {
    /// On loopback. Inside of a namespace, at the address of its Service
    /// `kubernetes`, each cluster at another: pods find it there without a
    /// kube-proxy.
    pub(super) fn allocate() -> Result<Self> {
        if namespace::folder().is_none() {
            return Ok(Self {
                apiserver: SocketAddrV4::new(Ipv4Addr::LOCALHOST, ports::free()?),
                services: services(SERVICES),
            });
        }
        static NEXT: AtomicU8 = AtomicU8::new(SERVICES);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(10, number, 0, 1);
        namespace::add_address(address)?;
        Ok(Self {
            apiserver: SocketAddrV4::new(address, 443),
            services: services(number),
        })
    }
}

fn services(number: u8) -> String {
    format!("10.{number}.0.0/16")
}

//! The objects of the benchmark. The same seed makes the same objects, byte
//! by byte.

use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde_json::{Value, json};

use super::connection::RawRequest;
use super::floors::{CreateFloor, send_all};
use crate::control_plane::Access;

/// Connections that create at the same time.
pub const CONNECTIONS: usize = 24;
/// Objects in each namespace.
pub const OBJECTS_PER_NAMESPACE: usize = 100;

const CONFIG_MAPS: usize = 40;
const SECRETS: usize = 30;
const SECRET_BYTES: usize = 700;
const CONFIG_MAP_BYTES_MIN: usize = 512;
const CONFIG_MAP_BYTES_MAX: usize = 3072;

/// How many objects, and which.
#[derive(Clone, Copy, Debug)]
pub struct LoadSpec {
    /// Objects besides the namespaces: a multiple of [`OBJECTS_PER_NAMESPACE`],
    /// or rounded up to one.
    pub objects: usize,
    /// What the random contents come from.
    pub seed: u64,
}

impl LoadSpec {
    /// The number of namespaces.
    pub fn namespaces(&self) -> usize {
        self.objects.div_ceil(OBJECTS_PER_NAMESPACE)
    }

    /// The name of the namespace with this index.
    pub fn namespace_name(index: usize) -> String {
        format!("load-{index:04}")
    }

    pub(super) fn namespace(index: usize) -> RawRequest {
        let name = Self::namespace_name(index);
        let object = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"load": "true"}},
        });
        RawRequest::post("/api/v1/namespaces", &object)
    }

    /// The request that creates the object with this index.
    pub(super) fn object(&self, index: usize) -> RawRequest {
        let namespace = Self::namespace_name(index / OBJECTS_PER_NAMESPACE);
        let slot = index % OBJECTS_PER_NAMESPACE;
        let (collection, object) = if slot < CONFIG_MAPS {
            ("api/v1 configmaps", self.config_map(index, slot))
        } else if slot < CONFIG_MAPS + SECRETS {
            ("api/v1 secrets", self.secret(index, slot - CONFIG_MAPS))
        } else {
            let slot = slot - CONFIG_MAPS - SECRETS;
            small_object(slot / 5, slot % 5)
        };
        let (group, resource) = collection.split_once(' ').unwrap_or((collection, ""));
        let path = format!("/{group}/namespaces/{namespace}/{resource}");
        RawRequest::post(path, &object)
    }

    fn config_map(&self, index: usize, slot: usize) -> Value {
        let span = CONFIG_MAP_BYTES_MAX - CONFIG_MAP_BYTES_MIN;
        let random = self.random_bytes(index, CONFIG_MAP_BYTES_MAX);
        let pick = usize::from(u16::from_le_bytes([random[0], random[1]]));
        let size = CONFIG_MAP_BYTES_MIN + pick % span;
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": format!("config-{slot}"), "labels": {"app": format!("app-{}", slot % 5)}},
            "data": {"settings.conf": settings(&random, size)},
        })
    }

    fn secret(&self, index: usize, slot: usize) -> Value {
        let random = self.random_bytes(index, SECRET_BYTES);
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": format!("secret-{slot}")},
            "data": {"key": BASE64_STANDARD.encode(random)},
        })
    }

    fn random_bytes(&self, index: usize, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&self.seed.to_le_bytes())
            .update(&(index as u64).to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }
}

/// Text like that of a configuration file: names repeat, values do not.
fn settings(random: &[u8], bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    for (line, chunk) in random.chunks(8).enumerate() {
        if text.len() >= bytes {
            break;
        }
        let value = chunk
            .iter()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        text.push_str(&format!("service.option_{line} = {value:x}\n"));
    }
    text.truncate(bytes);
    text
}

/// One of the kinds of which each namespace has five.
fn small_object(kind: usize, number: usize) -> (&'static str, Value) {
    let app = format!("app-{number}");
    let meta = json!({"name": app, "labels": {"app": app}});
    let selector = json!({"app": app});
    match kind {
        0 => (
            "apis/apps/v1 deployments",
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": selector},
                    "template": {
                        "metadata": {"labels": selector},
                        "spec": {"containers": [
                            {"name": "main", "image": format!("registry.a.example/load/{app}:1")},
                        ]},
                    },
                },
            }),
        ),
        1 => (
            "api/v1 services",
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": meta,
                "spec": {"selector": selector, "ports": [{"port": 80}]},
            }),
        ),
        2 => (
            "apis/rbac.authorization.k8s.io/v1 roles",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta,
                "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
            }),
        ),
        3 => (
            "apis/rbac.authorization.k8s.io/v1 rolebindings",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": app},
                "subjects": [{"kind": "ServiceAccount", "name": app}],
            }),
        ),
        4 => (
            "api/v1 serviceaccounts",
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta,
            }),
        ),
        _ => (
            "apis/networking.k8s.io/v1 networkpolicies",
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta,
                "spec": {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"]},
            }),
        ),
    }
}

/// Changes one ConfigMap for each 100 objects. Returns the number of changes.
///
/// # Errors
/// When a change is refused.
pub async fn change_one_percent(access: &Access, spec: LoadSpec, round: u64) -> Result<usize> {
    let count = spec.namespaces();
    let request = move |index: usize| {
        let namespace = LoadSpec::namespace_name(index);
        let body = json!({"data": {"round": format!("{round} of {}", spec.seed)}});
        RawRequest {
            method: Method::PATCH,
            path: format!("/api/v1/namespaces/{namespace}/configmaps/config-0"),
            content_type: "application/merge-patch+json",
            body: body.to_string().into(),
        }
    };
    send_all(access, CONNECTIONS, count, request).await?;
    Ok(count)
}

/// Creates `count` Secrets of `bytes` random bytes each in a new namespace.
///
/// # Errors
/// When one is refused; the API server takes at most 1 MiB for each.
pub async fn create_big_secrets(
    access: &Access,
    namespace: &str,
    count: usize,
    bytes: usize,
    seed: u64,
) -> Result<CreateFloor> {
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
    });
    send_all(access, 1, 1, |_| {
        RawRequest::post("/api/v1/namespaces", &object)
    })
    .await?;
    let spec = LoadSpec {
        objects: count,
        seed,
    };
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let request = |index: usize| {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": format!("big-{index:04}")},
            "data": {"blob": BASE64_STANDARD.encode(spec.random_bytes(index, bytes))},
        });
        RawRequest::post(path.clone(), &secret)
    };
    send_all(access, CONNECTIONS, count, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_holds_what_the_recipe_says() {
        let spec = LoadSpec {
            objects: 100,
            seed: 7,
        };
        let count = |resource: &str| {
            let paths = (0..100).map(|index| spec.object(index).path);
            paths
                .filter(|path| path.ends_with(&format!("/{resource}")))
                .count()
        };
        assert_eq!((count("configmaps"), count("secrets")), (40, 30));
        for resource in [
            "deployments",
            "services",
            "roles",
            "rolebindings",
            "serviceaccounts",
            "networkpolicies",
        ] {
            assert_eq!(count(resource), 5, "{resource}");
        }
    }

    #[test]
    fn sizes_are_within_the_recipe_and_the_seed_decides() {
        let spec = LoadSpec {
            objects: 100,
            seed: 7,
        };
        for index in 0..40 {
            let value: Value = serde_json::from_slice(&spec.object(index).body).unwrap();
            let size = value["data"]["settings.conf"].as_str().unwrap().len();
            assert!(
                (CONFIG_MAP_BYTES_MIN..=CONFIG_MAP_BYTES_MAX).contains(&size),
                "{size}"
            );
        }
        assert_eq!(spec.object(3).body, spec.object(3).body);
        let other = LoadSpec {
            objects: 100,
            seed: 8,
        };
        assert_ne!(spec.object(3).body, other.object(3).body);
    }
}

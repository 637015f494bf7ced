//! Services: addresses and ports that the source cluster gave out stay there,
//! those that a person chose come along.

use serde_json::{Map, Value};

use crate::restore::map::LAST_APPLIED;

/// The address of a headless Service.
const NO_ADDRESS: &str = "None";

/// Drops what the source cluster assigned.
pub(super) fn apply(body: &mut Value, volatile: &Map<String, Value>) {
    let chosen = Chosen::read(body, volatile);
    let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if spec.get("clusterIP").and_then(Value::as_str) != Some(NO_ADDRESS) {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    if !chosen.health_check {
        spec.remove("healthCheckNodePort");
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        let keep = chosen.ports.contains(&port_id(port));
        if let Some(port) = port.as_object_mut().filter(|_| !keep) {
            port.remove("nodePort");
        }
    }
}

/// What a person chose, by the evidence that the object carries: what
/// `kubectl apply` sent, and which fields some client ever set.
struct Chosen {
    ports: Vec<(i64, String)>,
    health_check: bool,
}

impl Chosen {
    fn read(body: &Value, volatile: &Map<String, Value>) -> Self {
        let mut chosen = Self {
            ports: Vec::new(),
            health_check: false,
        };
        let applied = body["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(applied) = applied {
            chosen.add_applied(&applied["spec"]);
        }
        let entries = volatile.get("managedFields").and_then(Value::as_array);
        for entry in entries.into_iter().flatten() {
            chosen.add_managed(&entry["fieldsV1"]["f:spec"]);
        }
        chosen
    }

    fn add_applied(&mut self, spec: &Value) {
        self.health_check |= spec["healthCheckNodePort"].is_i64();
        for port in spec["ports"].as_array().into_iter().flatten() {
            if port["nodePort"].as_i64().is_some_and(|port| port != 0) {
                self.ports.push(port_id(port));
            }
        }
    }

    fn add_managed(&mut self, spec: &Value) {
        self.health_check |= !spec["f:healthCheckNodePort"].is_null();
        for (key, fields) in spec["f:ports"].as_object().into_iter().flatten() {
            if fields["f:nodePort"].is_null() {
                continue;
            }
            let port = key
                .strip_prefix("k:")
                .and_then(|key| serde_json::from_str::<Value>(key).ok());
            self.ports.extend(port.as_ref().map(port_id));
        }
    }
}

/// What identifies a port within its Service.
fn port_id(port: &Value) -> (i64, String) {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    (
        port["port"].as_i64().unwrap_or_default(),
        protocol.to_owned(),
    )
}

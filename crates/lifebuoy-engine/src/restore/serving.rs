//! Which workloads answer for webhooks, conversions and aggregated APIs: those
//! whose pods a Service selects that one of these names. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::map::{pod_templates_of, visit};
use super::order::can_serve;

/// Where objects name the Service that answers for them.
const REFERENCES: &[(&str, &str)] = &[
    (
        "admissionregistration.k8s.io",
        "webhooks[].clientConfig.service",
    ),
    (
        "apiextensions.k8s.io",
        "spec.conversion.webhook.clientConfig.service",
    ),
    ("apiregistration.k8s.io", "spec.service"),
];

/// Namespace and name.
type Name = (String, String);

/// What is known about serving. What names Services must be shown first, then
/// the Services, then the workloads.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    named: BTreeSet<Name>,
    /// The selectors of the named Services, by namespace.
    selectors: BTreeMap<String, Vec<BTreeMap<String, String>>>,
}

impl Serving {
    /// Looks at a prepared object; whether it is a workload that serves.
    pub(crate) fn look(&mut self, group: &str, kind: &str, body: &Value) -> bool {
        for (_, path) in REFERENCES.iter().filter(|(g, _)| *g == group) {
            visit(body, path, &mut |service| {
                self.named
                    .insert((text(service, "namespace"), text(service, "name")));
            });
        }
        let metadata = &body["metadata"];
        if (group, kind) == ("", "Service") {
            self.look_at_service((text(metadata, "namespace"), text(metadata, "name")), body);
        }
        if !can_serve(group, kind) {
            return false;
        }
        let Some(selectors) = self.selectors.get(&text(metadata, "namespace")) else {
            return false;
        };
        let mut serves = false;
        for template in pod_templates_of(group, kind) {
            visit(body, template, &mut |pod| {
                let labels = &pod["metadata"]["labels"];
                serves |= selectors.iter().any(|selector| {
                    selector
                        .iter()
                        .all(|(key, value)| labels[key].as_str() == Some(value))
                });
            });
        }
        serves
    }

    fn look_at_service(&mut self, name: Name, body: &Value) {
        if !self.named.contains(&name) {
            return;
        }
        let selector: BTreeMap<String, String> = body["spec"]["selector"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        if !selector.is_empty() {
            self.selectors.entry(name.0).or_default().push(selector);
        }
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_workload_serves_when_a_named_service_selects_its_pods() {
        let mut serving = Serving::default();
        let hook = json!({"webhooks": [{"clientConfig": {"service": {"namespace": "ops", "name": "gate"}}}]});
        let service = |name: &str, app: &str| json!({"metadata": {"namespace": "ops", "name": name}, "spec": {"selector": {"app": app}}});
        let workload = |app: &str| json!({"metadata": {"namespace": "ops", "name": app}, "spec": {"template": {"metadata": {"labels": {"app": app}}}}});
        assert!(!serving.look(
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration",
            &hook
        ));
        serving.look("", "Service", &service("gate", "gate"));
        serving.look("", "Service", &service("web", "web"));
        assert!(serving.look("apps", "Deployment", &workload("gate")));
        assert!(!serving.look("apps", "Deployment", &workload("web")));
        assert!(!serving.look("batch", "Job", &workload("gate")));
    }
}

//! How many nodes there are for movers. Where there are fewer places on them than movers may
//! run, the rest waits here and not as pods: pods that wait make some clusters grow.

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use kube::{Api, Client, api::ListParams};
use lifebuoy_engine::volumes::MoverConfig;

use super::error::MoverError;

const PAGE: u32 = 100;

/// The nodes on which movers may run, or as many of them as are `enough`; at least one.
pub(super) async fn count(
    client: &Client,
    config: &MoverConfig,
    enough: usize,
) -> Result<usize, MoverError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut found = 0;
    loop {
        let page = nodes.list(&params).await;
        let page = page.map_err(MoverError::kube("list the nodes for movers"))?;
        found += page.items.iter().filter(|node| takes(node, config)).count();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) if found < enough => params = params.continue_token(&token),
            _ => return Ok(found.clamp(1, enough.max(1))),
        }
    }
}

/// Whether a new mover may come to a node.
fn takes(node: &Node, config: &MoverConfig) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|all| all.get(key)) == Some(value);
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref());
    let keeps_off = |taint: &&Taint| taint.effect != "PreferNoSchedule";
    let tolerated = |taint: &Taint| config.tolerations.iter().any(|one| tolerates(one, taint));
    config.node_selector.iter().all(has)
        && spec.is_none_or(|spec| spec.unschedulable != Some(true))
        && taints
            .unwrap_or_default()
            .iter()
            .filter(keeps_off)
            .all(tolerated)
}

/// As <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/> says.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let of_effect = given(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let of_key = given(&toleration.key).is_none_or(|key| key == taint.key);
    let of_value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => given(&toleration.key).is_some() && given(&toleration.value) == given(&taint.value),
    };
    of_effect && of_key && of_value
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(spec: Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"labels": {"disk": "fast"}}, "spec": spec,
        }))
        .unwrap()
    }

    fn config(tolerations: Value) -> MoverConfig {
        MoverConfig {
            tolerations: serde_json::from_value(tolerations).unwrap(),
            ..MoverConfig::new("lifebuoy")
        }
    }

    #[test]
    fn movers_come_to_nodes_that_take_pods() {
        let plain = config(json!([]));
        assert!(takes(&node(json!({})), &plain));
        assert!(!takes(&node(json!({"unschedulable": true})), &plain));
        let preferred = json!({"taints": [{"key": "old", "effect": "PreferNoSchedule"}]});
        assert!(takes(&node(preferred), &plain));
    }

    #[test]
    fn movers_come_to_nodes_with_the_labels_that_were_asked_for() {
        let selecting = |value: &str| MoverConfig {
            node_selector: [("disk".to_owned(), value.to_owned())].into(),
            ..config(json!([]))
        };
        assert!(takes(&node(json!({})), &selecting("fast")));
        assert!(!takes(&node(json!({})), &selecting("slow")));
    }

    #[test]
    fn movers_come_to_nodes_whose_taints_they_tolerate() {
        let tainted = node(json!({
            "taints": [{"key": "for", "value": "db", "effect": "NoSchedule"}],
        }));
        for (tolerations, expected) in [
            (json!([]), false),
            (json!([{"operator": "Exists"}]), true),
            (json!([{"key": "for", "operator": "Exists"}]), true),
            (json!([{"key": "of", "operator": "Exists"}]), false),
            (json!([{"key": "for", "value": "db"}]), true),
            (json!([{"key": "for", "value": "web"}]), false),
            (
                json!([{"key": "for", "value": "db", "effect": "NoExecute"}]),
                false,
            ),
        ] {
            assert_eq!(
                takes(&tainted, &config(tolerations.clone())),
                expected,
                "{tolerations}"
            );
        }
    }
}

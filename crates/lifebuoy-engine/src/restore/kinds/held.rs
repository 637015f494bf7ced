//! Workloads that were captured while a restore held them come back as they were before.

use lifebuoy_api::HELD_ANNOTATION;
use serde_json::Value;

/// Puts back what the record on a workload says that it was.
pub(super) fn let_go(body: &mut Value) {
    let record = body["metadata"]["annotations"][HELD_ANNOTATION].as_str();
    let Some(record) = record.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return;
    };
    for field in ["replicas", "suspend"] {
        let was = record.get(field).filter(|was| !was.is_null());
        let spec = body.get_mut("spec").and_then(Value::as_object_mut);
        if let (Some(was), Some(spec)) = (was, spec) {
            spec.insert(field.to_owned(), was.clone());
        }
    }
    super::remove_key(body, "/spec/template/spec", "nodeSelector", |key| {
        key == HELD_ANNOTATION
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_held_comes_back_as_it_was() {
        let held = |record: Value, spec: Value| {
            let record = record.to_string();
            let mut body =
                json!({"metadata": {"annotations": {HELD_ANNOTATION: record}}, "spec": spec});
            let_go(&mut body);
            body["spec"].clone()
        };
        let claims = json!(["data"]);
        let of = json!({"claims": claims, "replicas": 3});
        assert_eq!(held(of, json!({"replicas": 0})), json!({"replicas": 3}));
        let of = json!({"claims": claims, "suspend": false});
        assert_eq!(
            held(of, json!({"suspend": true})),
            json!({"suspend": false})
        );
        let nodes = json!({"template": {"spec": {"nodeSelector": {HELD_ANNOTATION: "true", "disk": "fast"}}}});
        let before = json!({"template": {"spec": {"nodeSelector": {"disk": "fast"}}}});
        assert_eq!(held(json!({"claims": claims}), nodes), before);
        assert_eq!(
            held(json!("odd"), json!({"replicas": 0})),
            json!({"replicas": 0})
        );
    }
}

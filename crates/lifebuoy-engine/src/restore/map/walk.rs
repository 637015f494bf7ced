//! Walks a JSON value along a path: `spec.rules[].host`. `[]` after a name
//! stands for every item of a list, `**` for any depth.

use serde_json::Value;

/// Calls `found` for every value at `path` that exists.
pub(crate) fn visit_mut(value: &mut Value, path: &str, found: &mut dyn FnMut(&mut Value)) {
    if path.is_empty() {
        found(value);
        return;
    }
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    if head == "**" {
        visit_mut(value, rest, found);
        for child in children_mut(value) {
            visit_mut(child, path, found);
        }
        return;
    }
    match head.strip_suffix("[]") {
        Some(name) => {
            if let Some(Value::Array(items)) = value.get_mut(name) {
                for item in items {
                    visit_mut(item, rest, found);
                }
            }
        }
        None => {
            if let Some(child) = value.get_mut(head) {
                visit_mut(child, rest, found);
            }
        }
    }
}

/// As [`visit_mut`], for looking only.
pub(crate) fn visit<'a>(value: &'a Value, path: &str, found: &mut dyn FnMut(&'a Value)) {
    if path.is_empty() {
        found(value);
        return;
    }
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    match head.strip_suffix("[]") {
        Some(name) => {
            for item in value
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                visit(item, rest, found);
            }
        }
        None => {
            if let Some(child) = value.get(head) {
                visit(child, rest, found);
            }
        }
    }
}

fn children_mut(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_reach_lists_and_any_depth_and_ignore_what_is_not_there() {
        let mut value = json!({
            "a": [{"b": "x"}, {"c": 1}, {"b": "y"}],
            "p": {"auth": {"ref": {"b": "z"}}},
        });
        let mut seen = Vec::new();
        for path in ["a[].b", "p.**.b", "a.b", "p[].b", "q.r[]"] {
            visit_mut(&mut value, path, &mut |found| seen.push(found.clone()));
        }
        assert_eq!(seen, [json!("x"), json!("y"), json!("z")]);
        let mut seen = 0;
        visit(&value, "a[].b", &mut |_| seen += 1);
        assert_eq!(seen, 2);
    }
}

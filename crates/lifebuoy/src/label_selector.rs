//! Label selectors as `kubectl -l` takes them. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

const WAY_OUT: &str = "expected terms such as a=b, a!=b, a in (b,c), a notin (b,c), a, !a";

/// Parses terms that are joined by commas; an object must fulfil all.
///
/// # Errors
/// A sentence that names the term.
pub(crate) fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut selector = LabelSelector::default();
    for term in terms(text) {
        let term = term.trim();
        match requirement(term).ok_or_else(|| format!("`{term}`: {WAY_OUT}"))? {
            Requirement::Equals(key, value) => {
                selector
                    .match_labels
                    .get_or_insert_default()
                    .insert(key, value);
            }
            Requirement::Expression(expression) => {
                selector
                    .match_expressions
                    .get_or_insert_default()
                    .push(expression);
            }
        }
    }
    Ok(selector)
}

enum Requirement {
    Equals(String, String),
    Expression(LabelSelectorRequirement),
}

/// Splits at the commas outside of parentheses.
fn terms(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(term: &str) -> Option<Requirement> {
    if let Some(key) = term.strip_prefix('!') {
        return expression(key, "DoesNotExist", None);
    }
    if let Some((head, values)) = term.split_once('(') {
        let values = values
            .strip_suffix(')')?
            .split(',')
            .map(|v| v.trim().to_owned())
            .collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let operator = match word {
            "in" => "In",
            "notin" => "NotIn",
            _ => return None,
        };
        return expression(key, operator, Some(values));
    }
    if let Some((key, value)) = term.split_once("!=") {
        return expression(key, "NotIn", Some(vec![word(value)?]));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Some(Requirement::Equals(key_of(key)?, word(value)?));
    }
    expression(term, "Exists", None)
}

fn expression(key: &str, operator: &str, values: Option<Vec<String>>) -> Option<Requirement> {
    Some(Requirement::Expression(LabelSelectorRequirement {
        key: key_of(key)?,
        operator: operator.to_owned(),
        values,
    }))
}

fn key_of(text: &str) -> Option<String> {
    word(text).filter(|key| !key.is_empty())
}

/// Letters as labels have them; what else a label must be is for the engine.
fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    text.chars().all(fits).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_is_understood() {
        let parsed = parse("app=web,tier==back, a!=b,c in (d, e),f notin (g),h,!i").unwrap();
        insta::assert_json_snapshot!(parsed, @r#"
        {
          "matchExpressions": [
            {
              "key": "a",
              "operator": "NotIn",
              "values": [
                "b"
              ]
            },
            {
              "key": "c",
              "operator": "In",
              "values": [
                "d",
                "e"
              ]
            },
            {
              "key": "f",
              "operator": "NotIn",
              "values": [
                "g"
              ]
            },
            {
              "key": "h",
              "operator": "Exists"
            },
            {
              "key": "i",
              "operator": "DoesNotExist"
            }
          ],
          "matchLabels": {
            "app": "web",
            "tier": "back"
          }
        }
        "#);
    }

    #[test]
    fn what_is_no_selector_is_named() {
        for text in [
            "",
            "a b",
            "=x",
            "a in b",
            "a in (b",
            "a like (b)",
            "a=b=c",
            "a,,b",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(WAY_OUT), "{text}: {error}");
        }
    }
}

//! Label selectors: `matchLabels` and `matchExpressions`, as Kubernetes reads
//! them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::Error;

/// A parsed label selector. All its requirements must hold.
#[derive(Clone, Debug, Default)]
pub struct LabelMatcher {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl LabelMatcher {
    /// Parses a selector. `path` is where it stands.
    ///
    /// # Errors
    /// [`Error::InvalidField`] with the path of the expression that is wrong.
    pub fn parse(selector: &LabelSelector, path: &str) -> Result<Self, Error> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let at = format!("{path}.matchLabels[{key}]");
            check_key(key, &at)?;
            check_value(value, &at)?;
            requirements.push(Requirement::In(key.clone(), vec![value.clone()]));
        }
        for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let at = format!("{path}.matchExpressions[{index}]");
            requirements.push(requirement(expression, &at)?);
        }
        Ok(Self { requirements })
    }

    /// Whether an object with these labels matches.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| match r {
            Requirement::In(key, values) => {
                get(key).is_some_and(|found| values.iter().any(|v| v == found))
            }
            Requirement::NotIn(key, values) => {
                get(key).is_none_or(|found| values.iter().all(|v| v != found))
            }
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::Absent(key) => get(key).is_none(),
        })
    }
}

fn requirement(expression: &LabelSelectorRequirement, at: &str) -> Result<Requirement, Error> {
    let LabelSelectorRequirement {
        key,
        operator,
        values,
    } = expression;
    check_key(key, &format!("{at}.key"))?;
    let values = values.clone().unwrap_or_default();
    for (index, value) in values.iter().enumerate() {
        check_value(value, &format!("{at}.values[{index}]"))?;
    }
    let some = |make: fn(String, Vec<String>) -> Requirement| {
        if values.is_empty() {
            Err(Error::invalid(
                format!("{at}.values"),
                format!("operator {operator} needs at least one value"),
            ))
        } else {
            Ok(make(key.clone(), values.clone()))
        }
    };
    let none = |make: fn(String) -> Requirement| {
        if values.is_empty() {
            Ok(make(key.clone()))
        } else {
            Err(Error::invalid(
                format!("{at}.values"),
                format!("operator {operator} takes no values: remove them"),
            ))
        }
    };
    match operator.as_str() {
        "In" => some(Requirement::In),
        "NotIn" => some(Requirement::NotIn),
        "Exists" => none(Requirement::Exists),
        "DoesNotExist" => none(Requirement::Absent),
        other => Err(Error::invalid(
            format!("{at}.operator"),
            format!("`{other}` is not an operator: use In, NotIn, Exists or DoesNotExist"),
        )),
    }
}

/// The longest label name, prefix and slash included.
const LABEL_KEY_BYTES_MAX: usize = 253 + 1 + 63;
/// The longest label value, and the longest label name without its prefix.
const LABEL_NAME_BYTES_MAX: usize = 63;

fn check_key(key: &str, at: &str) -> Result<(), Error> {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    if key.len() <= LABEL_KEY_BYTES_MAX && !name.is_empty() && is_label_text(name) {
        return Ok(());
    }
    Err(Error::invalid(
        at,
        format!(
            "`{key}` is not a label key: at most 63 letters, digits, `-`, `_`, `.`, after an optional `prefix/`"
        ),
    ))
}

fn check_value(value: &str, at: &str) -> Result<(), Error> {
    if value.is_empty() || is_label_text(value) {
        return Ok(());
    }
    Err(Error::invalid(
        at,
        format!(
            "`{value}` is not a label value: at most 63 letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit"
        ),
    ))
}

fn is_label_text(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= LABEL_NAME_BYTES_MAX
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

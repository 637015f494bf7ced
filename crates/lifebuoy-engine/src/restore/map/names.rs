//! Mappings of names: exact or with `*`, image prefixes, host names. Parsed
//! once; the first entry that matches wins.

use lifebuoy_api::{NameMapping, PrefixMapping};

use crate::Error;

/// The registry that an image without one comes from.
const IMPLICIT_REGISTRY: &str = "docker.io";

/// The longest label of a DNS name, in bytes; also the longest namespace name.
const DNS_LABEL_MAX_BYTES: usize = 63;

/// The longest DNS name, in bytes.
const DNS_NAME_MAX_BYTES: usize = 253;

/// Which texts are names of this sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameSort {
    /// A DNS label: namespaces.
    Label,
    /// Labels with dots between them: everything else.
    Subdomain,
}

impl NameSort {
    fn holds(self, name: &str) -> bool {
        match self {
            Self::Label => is_label(name),
            Self::Subdomain => {
                name.len() <= DNS_NAME_MAX_BYTES && name.split('.').all(is_label_of_any_length)
            }
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Label => {
                "at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit"
            }
            Self::Subdomain => {
                "lower-case letters, digits, `-` and `.`, each part beginning and ending with a letter or digit"
            }
        }
    }
}

/// Whether `name` can be a namespace.
pub(crate) fn is_label(name: &str) -> bool {
    name.len() <= DNS_LABEL_MAX_BYTES && is_label_of_any_length(name)
}

fn is_label_of_any_length(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        && bytes.first().copied().is_some_and(inner)
        && bytes.last().copied().is_some_and(inner)
}

/// A list of names that become other names.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameMap(Vec<NameRule>);

#[derive(Clone, Debug)]
struct NameRule {
    /// The literal parts around the `*` of `from`.
    from: Vec<String>,
    /// The literal parts around the `*` of `to`.
    to: Vec<String>,
}

impl NameMap {
    pub(crate) fn parse(list: &[NameMapping], path: &str, sort: NameSort) -> Result<Self, Error> {
        reject_doubles(list.iter().map(|entry| entry.from.as_str()), path)?;
        let mut rules = Vec::with_capacity(list.len());
        for (index, NameMapping { from, to }) in list.iter().enumerate() {
            check_pattern(from, &format!("{path}[{index}].from"), sort)?;
            check_pattern(to, &format!("{path}[{index}].to"), sort)?;
            let rule = NameRule {
                from: from.split('*').map(str::to_owned).collect(),
                to: to.split('*').map(str::to_owned).collect(),
            };
            if rule.to.len() > rule.from.len() {
                return Err(Error::invalid(
                    format!("{path}[{index}].to"),
                    format!(
                        "`{to}` has more `*` than `{from}`: each `*` in `to` stands for what one in `from` matched"
                    ),
                ));
            }
            rules.push(rule);
        }
        Ok(Self(rules))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What `name` becomes; `None` when no entry matches or nothing changes.
    pub(crate) fn map(&self, name: &str) -> Option<String> {
        let rule_and_parts = self
            .0
            .iter()
            .find_map(|rule| captures(&rule.from, name).map(|parts| (rule, parts)));
        let (rule, parts) = rule_and_parts?;
        let mut mapped = rule.to[0].clone();
        for (part, literal) in parts.iter().zip(&rule.to[1..]) {
            mapped.push_str(part);
            mapped.push_str(literal);
        }
        (mapped != name).then_some(mapped)
    }
}

/// What each `*` between the literal parts stands for in `name`; every `*` but
/// the last takes as little as it can.
fn captures<'a>(literals: &[String], name: &'a str) -> Option<Vec<&'a str>> {
    let (first, rest) = literals.split_first()?;
    let mut left = name.strip_prefix(first.as_str())?;
    let Some((last, middle)) = rest.split_last() else {
        return left.is_empty().then(Vec::new);
    };
    let mut parts = Vec::with_capacity(rest.len());
    for literal in middle {
        let at = left.find(literal.as_str())?;
        parts.push(&left[..at]);
        left = &left[at + literal.len()..];
    }
    parts.push(left.strip_suffix(last.as_str())?);
    Some(parts)
}

fn check_pattern(text: &str, path: &str, sort: NameSort) -> Result<(), Error> {
    if let Some(special) = text.chars().find(|c| "?[]{}\\!,".contains(*c)) {
        return Err(Error::invalid(
            path,
            format!("`{text}` uses `{special}`: a mapping knows names and `*` only"),
        ));
    }
    if text.contains("**") {
        return Err(Error::invalid(
            path,
            format!("`{text}` has two `*` in a row, which mean the same as one"),
        ));
    }
    // `*` stands for at least nothing: `x` in its place must make a valid name.
    if sort.holds(&text.replace('*', "x")) {
        return Ok(());
    }
    Err(Error::invalid(
        path,
        format!("`{text}` cannot be a name: it has {}", sort.describe()),
    ))
}

fn reject_doubles<'a>(froms: impl Iterator<Item = &'a str>, path: &str) -> Result<(), Error> {
    let mut seen: Vec<&str> = Vec::new();
    for (index, from) in froms.enumerate() {
        if let Some(first) = seen.iter().position(|other| *other == from) {
            return Err(Error::invalid(
                format!("{path}[{index}].from"),
                format!(
                    "`{from}` stands in {path}[{first}] already, and the first one wins: remove one of them"
                ),
            ));
        }
        seen.push(from);
    }
    Ok(())
}

/// A list of image prefixes that become other prefixes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixMap(Vec<PrefixMapping>);

impl PrefixMap {
    pub(crate) fn parse(list: &[PrefixMapping], path: &str) -> Result<Self, Error> {
        reject_doubles(list.iter().map(|entry| entry.from.as_str()), path)?;
        for (index, PrefixMapping { from, to }) in list.iter().enumerate() {
            for (field, text) in [("from", from), ("to", to)] {
                if text.is_empty() || text.contains("://") || text.contains(char::is_whitespace) {
                    return Err(Error::invalid(
                        format!("{path}[{index}].{field}"),
                        format!(
                            "`{text}` is not the beginning of an image name: write it as in `registry.example/team/`, without a scheme"
                        ),
                    ));
                }
            }
            if from.ends_with('/') != to.ends_with('/') {
                return Err(Error::invalid(
                    format!("{path}[{index}].to"),
                    format!(
                        "`{from}` and `{to}` must both end with `/`, or neither: otherwise names run together"
                    ),
                ));
            }
        }
        Ok(Self(list.to_vec()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What an image becomes; `None` when nothing changes. An image without a
    /// registry counts as the `docker.io/` image that it is.
    pub(crate) fn map(&self, image: &str) -> Option<String> {
        let canonical = canonical_image(image);
        self.0.iter().find_map(|rule| {
            let rest = rest_after(image, &rule.from)
                .or_else(|| rest_after(canonical.as_deref()?, &rule.from))?;
            let mapped = format!("{}{rest}", rule.to);
            (mapped != image).then_some(mapped)
        })
    }

    /// What a registry host becomes, when an entry moves the whole of it.
    pub(crate) fn map_registry(&self, host: &str) -> Option<&str> {
        let rule = self
            .0
            .iter()
            .find(|rule| rule.from.trim_end_matches('/') == host)?;
        let to = rule.to.split('/').next().unwrap_or(&rule.to);
        (to != host).then_some(to)
    }
}

fn rest_after<'a>(image: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = image.strip_prefix(prefix)?;
    let at_boundary = prefix.ends_with('/') || rest.is_empty() || rest.starts_with(['/', ':', '@']);
    at_boundary.then_some(rest)
}

/// The full name of an image that names no registry.
fn canonical_image(image: &str) -> Option<String> {
    match image.split_once('/') {
        None => Some(format!("{IMPLICIT_REGISTRY}/library/{image}")),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => None,
        Some(_) => Some(format!("{IMPLICIT_REGISTRY}/{image}")),
    }
}

/// A list of host names that become others.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostMap(Vec<NameMapping>);

impl HostMap {
    pub(crate) fn parse(list: &[NameMapping], path: &str) -> Result<Self, Error> {
        reject_doubles(list.iter().map(|entry| entry.from.as_str()), path)?;
        for (index, NameMapping { from, to }) in list.iter().enumerate() {
            for (field, text) in [("from", from), ("to", to)] {
                let name = text.strip_prefix("*.").unwrap_or(text);
                if name.contains('*') || !NameSort::Subdomain.holds(name) {
                    return Err(Error::invalid(
                        format!("{path}[{index}].{field}"),
                        format!(
                            "`{text}` is not a host name: write `shop.example`, or `*.example` for everything below a domain"
                        ),
                    ));
                }
            }
            if to.starts_with("*.") && !from.starts_with("*.") {
                return Err(Error::invalid(
                    format!("{path}[{index}].to"),
                    format!(
                        "`{to}` begins with `*.` and `{from}` does not: there is nothing that the `*` stands for"
                    ),
                ));
            }
        }
        Ok(Self(list.to_vec()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a host becomes; `None` when nothing changes.
    pub(crate) fn map(&self, host: &str) -> Option<String> {
        let mapped = self.0.iter().find_map(|NameMapping { from, to }| {
            if host == from {
                return Some(to.clone());
            }
            let below = from.strip_prefix('*')?;
            let left = host.strip_suffix(below).filter(|left| !left.is_empty())?;
            Some(match to.strip_prefix('*') {
                Some(domain) => format!("{left}{domain}"),
                None => to.clone(),
            })
        })?;
        (mapped != host).then_some(mapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[(&str, &str)]) -> Vec<NameMapping> {
        list.iter()
            .map(|(from, to)| NameMapping {
                from: (*from).to_owned(),
                to: (*to).to_owned(),
            })
            .collect()
    }

    fn namespaces(list: &[(&str, &str)]) -> NameMap {
        NameMap::parse(&names(list), "spec.mapping.namespaces", NameSort::Label).unwrap()
    }

    fn refused(list: &[(&str, &str)]) -> String {
        NameMap::parse(&names(list), "spec.mapping.namespaces", NameSort::Label)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn each_star_stands_for_what_the_same_star_matched() {
        let map = namespaces(&[
            ("shop", "store"),
            ("team-*-*", "t-*-x-*"),
            ("keep", "keep"),
            ("*", "old-*"),
        ]);
        assert_eq!(map.map("shop").as_deref(), Some("store"));
        assert_eq!(map.map("team-a-b-c").as_deref(), Some("t-a-x-b-c"));
        assert_eq!(map.map("keep"), None);
        assert_eq!(map.map("other").as_deref(), Some("old-other"));
        assert_eq!(namespaces(&[("a*", "b")]).map("abc").as_deref(), Some("b"));
        assert_eq!(namespaces(&[("a*a", "b*")]).map("a"), None);
    }

    #[test]
    fn what_cannot_be_a_mapping_is_refused_with_its_place() {
        insta::assert_snapshot!([
            refused(&[("a", "b"), ("a", "c")]),
            refused(&[("a-*", "b-*-*")]),
            refused(&[("a", "B")]),
            refused(&[("a", "b.c")]),
            refused(&[("a", &"x".repeat(64))]),
            refused(&[("a?", "b")]),
            refused(&[("a**", "b")]),
        ].join("\n"), @r#"
        spec.mapping.namespaces[1].from: `a` stands in spec.mapping.namespaces[0] already, and the first one wins: remove one of them
        spec.mapping.namespaces[0].to: `b-*-*` has more `*` than `a-*`: each `*` in `to` stands for what one in `from` matched
        spec.mapping.namespaces[0].to: `B` cannot be a name: it has at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit
        spec.mapping.namespaces[0].to: `b.c` cannot be a name: it has at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit
        spec.mapping.namespaces[0].to: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx` cannot be a name: it has at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit
        spec.mapping.namespaces[0].from: `a?` uses `?`: a mapping knows names and `*` only
        spec.mapping.namespaces[0].from: `a**` has two `*` in a row, which mean the same as one
        "#);
    }

    #[test]
    fn image_prefixes_end_at_boundaries() {
        let map = |from: &str, to: &str, image: &str| {
            let list = [PrefixMapping {
                from: from.to_owned(),
                to: to.to_owned(),
            }];
            PrefixMap::parse(&list, "spec.mapping.images")
                .unwrap()
                .map(image)
        };
        let a = "registry.a.example";
        assert_eq!(
            map(a, "b.example/m", "registry.a.example/x:1").as_deref(),
            Some("b.example/m/x:1")
        );
        assert_eq!(map(a, "b.example", "registry.a.example.org/x:1"), None);
        assert_eq!(
            map("a.example/x", "b.example/y", "a.example/x@sha256:0").as_deref(),
            Some("b.example/y@sha256:0")
        );
        assert_eq!(map("a.example/x", "b.example/y", "a.example/xy:1"), None);
        assert_eq!(
            map("docker.io/", "b.example/", "nginx:1").as_deref(),
            Some("b.example/library/nginx:1")
        );
        assert_eq!(
            map("docker.io/", "b.example/", "grafana/loki").as_deref(),
            Some("b.example/grafana/loki")
        );
        assert_eq!(
            map("nginx", "b.example/nginx", "nginx:1").as_deref(),
            Some("b.example/nginx:1")
        );
    }

    #[test]
    fn hosts_map_exactly_or_below_a_domain() {
        let map = HostMap::parse(
            &names(&[
                ("api.a.example", "gate.b.example"),
                ("*.a.example", "*.b.example"),
            ]),
            "spec.mapping.hosts",
        )
        .unwrap();
        assert_eq!(map.map("api.a.example").as_deref(), Some("gate.b.example"));
        assert_eq!(map.map("shop.a.example").as_deref(), Some("shop.b.example"));
        assert_eq!(map.map("*.a.example").as_deref(), Some("*.b.example"));
        assert_eq!(map.map("a.example"), None);
        assert_eq!(map.map("nota.example"), None);
        let error = HostMap::parse(
            &names(&[("a.example", "*.b.example")]),
            "spec.mapping.hosts",
        );
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("spec.mapping.hosts[0].to: ")
        );
    }
}

//! What a selection takes, parsed once: globs, label selectors, and what they
//! say of a namespace, a type or an object's labels. Pure.

mod glob;
mod labels;

use std::collections::BTreeMap;

use lifebuoy_api::ClusterScoped;

use crate::Error;

pub use glob::Glob;
pub use labels::LabelMatcher;

/// A parsed [`Selection`](lifebuoy_api::Selection).
#[derive(Clone, Debug)]
pub struct Selector {
    namespaces: Vec<Glob>,
    excluded_namespaces: Vec<Glob>,
    resources: Vec<Glob>,
    excluded_resources: Vec<Glob>,
    labels: Option<LabelMatcher>,
    cluster_scoped: ClusterScoped,
}

impl Selector {
    /// Parses a selection. `path` is where it stands, such as `spec.selection`.
    ///
    /// # Errors
    /// [`Error::InvalidField`] with the exact path of the value that is wrong.
    pub fn parse(selection: &lifebuoy_api::Selection, path: &str) -> Result<Self, Error> {
        let lifebuoy_api::Selection {
            namespaces,
            excluded_namespaces,
            resources,
            excluded_resources,
            label_selector,
            cluster_scoped,
        } = selection;
        Ok(Self {
            namespaces: globs(namespaces, &format!("{path}.namespaces"))?,
            excluded_namespaces: globs(excluded_namespaces, &format!("{path}.excludedNamespaces"))?,
            resources: globs(resources, &format!("{path}.resources"))?,
            excluded_resources: globs(excluded_resources, &format!("{path}.excludedResources"))?,
            labels: label_selector
                .as_ref()
                .map(|labels| LabelMatcher::parse(labels, &format!("{path}.labelSelector")))
                .transpose()?,
            cluster_scoped: *cluster_scoped,
        })
    }

    /// Whether the namespace is selected.
    #[must_use]
    pub fn namespace(&self, name: &str) -> bool {
        (self.namespaces.is_empty() || any(&self.namespaces, name))
            && !any(&self.excluded_namespaces, name)
    }

    /// Whether the type is selected. A type of the core group is written without
    /// a dot: `configmaps`.
    #[must_use]
    pub fn resource(&self, group: &str, resource: &str) -> bool {
        let name = type_name(group, resource);
        (self.resources.is_empty() || any(&self.resources, &name))
            && !any(&self.excluded_resources, &name)
    }

    /// Whether the type is left out by name.
    #[must_use]
    pub fn resource_excluded(&self, group: &str, resource: &str) -> bool {
        any(&self.excluded_resources, &type_name(group, resource))
    }

    /// Whether a type of this group could be selected, when nothing but the
    /// group is known: of an API group that is down, the types are not.
    #[must_use]
    pub fn group_possible(&self, group: &str) -> bool {
        self.resources.is_empty()
            || self.resources.iter().any(|glob| {
                let text = glob.as_str();
                let of_group = text.split_once('.').map_or("", |(_, rest)| rest);
                text.starts_with('*') || of_group.contains('*') || of_group == group
            })
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels_by(|key| labels.get(key).map(String::as_str))
    }

    /// As [`Selector::labels`], for labels in whatever form the caller has them.
    pub fn labels_by<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.labels
            .as_ref()
            .is_none_or(|labels| labels.matches(get))
    }

    /// Which cluster-scoped objects are taken.
    #[must_use]
    pub fn cluster_scoped(&self) -> ClusterScoped {
        self.cluster_scoped
    }

    /// Whether every namespace is selected.
    #[must_use]
    pub fn all_namespaces(&self) -> bool {
        self.excluded_namespaces.is_empty()
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|g| g.as_str() == "*"))
    }

    /// Whether types are named at all.
    #[must_use]
    pub fn all_resources(&self) -> bool {
        self.resources.is_empty() && self.excluded_resources.is_empty()
    }

    /// The namespaces by name, when no glob is used and none is left out: they
    /// can then be listed one by one. In the order of their objects' keys.
    #[must_use]
    pub fn exact_namespaces(&self) -> Option<Vec<&str>> {
        if self.namespaces.is_empty() {
            return None;
        }
        let mut names = Vec::with_capacity(self.namespaces.len());
        for glob in &self.namespaces {
            let name = glob.literal()?;
            if !any(&self.excluded_namespaces, name) {
                names.push(name);
            }
        }
        names.sort_by(|a, b| a.bytes().chain([b'/']).cmp(b.bytes().chain([b'/'])));
        names.dedup();
        Some(names)
    }
}

fn any(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.matches(text))
}

fn type_name(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

fn globs(patterns: &[String], path: &str) -> Result<Vec<Glob>, Error> {
    patterns
        .iter()
        .enumerate()
        .map(|(index, text)| {
            Glob::parse(text).map_err(|message| Error::invalid(format!("{path}[{index}]"), message))
        })
        .collect()
}

#[cfg(test)]
mod tests;

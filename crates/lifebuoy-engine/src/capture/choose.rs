//! Which of the served types a selection takes, and how. Pure.

use lifebuoy_api::{ClusterScoped, Problem, Reason};

use super::{
    facts::{Stage, stage_of_needed},
    normalise::{never_captured, shown_as},
};
use crate::{
    archive::UnavailableGroup,
    discovery::{Discovered, ServedType},
    selection::{Glob, Selector},
};

/// How much of a type is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Every object that the selection matches.
    Whole,
    /// Only what objects in the selected namespaces need.
    Needed,
}

/// A type that is to be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) served: ServedType,
    pub(super) taken: Taken,
    pub(super) stage: Stage,
}

/// The types that the selection takes, in discovery's order. Types whose server
/// is down are among them: they must be accounted for.
pub(super) fn choose(discovered: &Discovered, selector: &Selector) -> Vec<Chosen> {
    discovered
        .types
        .iter()
        .filter(|t| t.can(&["list", "create"]) && !t.resource.contains('/'))
        .filter(|t| !never_captured(&t.group, &t.resource))
        .filter(|t| {
            shown_as(&t.group, &t.resource)
                .is_none_or(|(group, resource)| discovered.by_resource(group, resource).is_none())
        })
        .filter_map(|t| {
            let (taken, stage) = how(t, selector)?;
            Some(Chosen {
                served: t.clone(),
                taken,
                stage,
            })
        })
        .collect()
}

fn how(t: &ServedType, selector: &Selector) -> Option<(Taken, Stage)> {
    let name = (t.group.as_str(), t.resource.as_str());
    let selected = selector.resource(name.0, name.1);
    // Services tell which Endpoints are made by a controller.
    let stage = if name == ("", "endpoints") {
        Stage::Needed
    } else {
        Stage::First
    };
    if name == ("", "namespaces") || (t.namespaced && selected) {
        return Some((Taken::Whole, stage));
    }
    if t.namespaced {
        return None;
    }
    let needed = || {
        let stage = stage_of_needed(name.0, name.1)?;
        (!selector.resource_excluded(name.0, name.1)).then_some((Taken::Needed, stage))
    };
    match selector.cluster_scoped() {
        ClusterScoped::None => None,
        ClusterScoped::All => selected.then_some((Taken::Whole, stage)),
        ClusterScoped::Auto if selector.all_namespaces() && selected => Some((Taken::Whole, stage)),
        ClusterScoped::Auto => needed(),
    }
}

/// The API groups that are down and could matter, and what is to be said of
/// them. Groups that `only_warn` names make nothing incomplete.
pub(super) fn unavailable(
    discovered: &Discovered,
    selector: &Selector,
    only_warn: &[Glob],
) -> (Vec<UnavailableGroup>, Vec<Problem>) {
    let mut groups = Vec::new();
    let mut problems = Vec::new();
    for (group, version, message) in &discovered.unavailable_groups {
        if !selector.group_possible(group) {
            continue;
        }
        let subject = format!("{group}/{version}");
        let text = format!("the API group is down, what it holds was not saved: {message}");
        problems.push(if only_warns(group, only_warn) {
            Problem::warning(Reason::TypeUnavailable, subject, &text)
        } else {
            Problem::error(Reason::TypeUnavailable, subject, &text)
        });
        groups.push(UnavailableGroup {
            group: group.clone(),
            version: version.clone(),
            message: message.clone(),
        });
    }
    (groups, problems)
}

/// Whether a group is on the list: `*.metrics.k8s.io` matches `metrics.k8s.io`
/// as well.
pub(super) fn only_warns(group: &str, only_warn: &[Glob]) -> bool {
    let below = format!(".{group}");
    only_warn
        .iter()
        .any(|glob| glob.matches(group) || glob.matches(&below))
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::{Selection, Severity};

    use super::*;

    fn served(group: &str, resource: &str, namespaced: bool, verbs: &[&str]) -> ServedType {
        ServedType {
            group: group.to_owned(),
            version: "v1".to_owned(),
            served_versions: vec!["v1".to_owned()],
            kind: resource.to_owned(),
            resource: resource.to_owned(),
            namespaced,
            verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
            short_names: vec![],
            stale: false,
        }
    }

    fn chosen(selection: &Selection) -> Vec<String> {
        let all = ["list", "create"];
        let discovered = Discovered {
            types: vec![
                served("", "namespaces", false, &all),
                served("", "configmaps", true, &all),
                served("", "events", true, &all),
                served("", "persistentvolumes", false, &all),
                served("", "componentstatuses", false, &["list"]),
                served("apps", "deployments", true, &all),
                served("extensions", "deployments", true, &all),
                served("example.com", "policies", false, &all),
                served("rbac.authorization.k8s.io", "clusterroles", false, &all),
            ],
            ..Discovered::default()
        };
        let selector = Selector::parse(selection, "spec.selection").unwrap();
        choose(&discovered, &selector)
            .into_iter()
            .map(|c| {
                let mark = if c.taken == Taken::Needed { "?" } else { "" };
                format!("{}{mark}", c.served.resource)
            })
            .collect()
    }

    #[test]
    fn cluster_scoped_types_follow_the_selection() {
        let partial = |cluster_scoped| Selection {
            namespaces: vec!["shop".to_owned()],
            cluster_scoped,
            ..Selection::default()
        };
        assert_eq!(
            chosen(&Selection::default()),
            [
                "namespaces",
                "configmaps",
                "persistentvolumes",
                "deployments",
                "policies",
                "clusterroles"
            ]
        );
        assert_eq!(
            chosen(&partial(ClusterScoped::Auto)),
            [
                "namespaces",
                "configmaps",
                "persistentvolumes?",
                "deployments",
                "clusterroles?"
            ]
        );
        assert_eq!(
            chosen(&partial(ClusterScoped::None)),
            ["namespaces", "configmaps", "deployments"]
        );
        assert_eq!(
            chosen(&partial(ClusterScoped::All)),
            [
                "namespaces",
                "configmaps",
                "persistentvolumes",
                "deployments",
                "policies",
                "clusterroles"
            ]
        );
    }

    #[test]
    fn named_types_bring_what_they_need_unless_it_is_excluded() {
        let named = Selection {
            resources: vec!["deployments.apps".to_owned()],
            excluded_resources: vec!["persistentvolumes".to_owned()],
            ..Selection::default()
        };
        assert_eq!(
            chosen(&named),
            ["namespaces", "deployments", "clusterroles?"]
        );
    }

    #[test]
    fn groups_that_are_down_are_errors_unless_they_only_warn() {
        let discovered = Discovered {
            unavailable_groups: [("metrics.k8s.io", "v1beta1"), ("example.com", "v1")]
                .map(|(g, v)| (g.to_owned(), v.to_owned(), "no answer".to_owned()))
                .to_vec(),
            ..Discovered::default()
        };
        let only_warn = [Glob::parse("*.metrics.k8s.io").unwrap()];
        let all = Selector::parse(&Selection::default(), "s").unwrap();
        let (groups, problems) = unavailable(&discovered, &all, &only_warn);
        assert_eq!(groups.len(), 2);
        let severities: Vec<_> = problems.iter().map(|p| p.severity).collect();
        assert_eq!(severities, [Severity::Warning, Severity::Error]);
    }
}

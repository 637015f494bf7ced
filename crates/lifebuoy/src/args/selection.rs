//! Which objects are taken.

use clap::{Args, ValueEnum};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use lifebuoy_api::{ClusterScoped, Selection};

use crate::label_selector;

#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Selection")]
pub(crate) struct SelectionArgs {
    /// Namespaces to take: names or globs such as shop-*. Without it, all.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) namespaces: Vec<String>,

    /// Namespaces to leave out.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) exclude_namespaces: Vec<String>,

    /// Types to take, with their group: configmaps, deployments.apps, *.example.com. Without it, all.
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    pub(crate) resources: Vec<String>,

    /// Types to leave out.
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    pub(crate) exclude_resources: Vec<String>,

    /// Take only objects whose labels match: a=b,c!=d,e in (x,y),!f.
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = label_selector::parse)]
    pub(crate) selector: Option<LabelSelector>,

    /// Which cluster-scoped objects to take.
    #[arg(long, value_name = "WHICH")]
    pub(crate) cluster_scoped: Option<ClusterScopedArg>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub(crate) enum ClusterScopedArg {
    /// All, or what the selected namespaces need.
    #[value(alias = "auto")]
    Auto,
    /// All.
    #[value(alias = "all")]
    All,
    /// None but the Namespaces themselves.
    #[value(alias = "none")]
    None,
}

impl SelectionArgs {
    /// Puts what was given into `selection`, over what it has.
    pub(crate) fn apply(&self, selection: &mut Selection) {
        let replace = |target: &mut Vec<String>, given: &[String]| {
            if !given.is_empty() {
                *target = given.to_vec();
            }
        };
        replace(&mut selection.namespaces, &self.namespaces);
        replace(&mut selection.excluded_namespaces, &self.exclude_namespaces);
        replace(&mut selection.resources, &self.resources);
        replace(&mut selection.excluded_resources, &self.exclude_resources);
        if let Some(selector) = &self.selector {
            selection.label_selector = Some(selector.clone());
        }
        if let Some(which) = self.cluster_scoped {
            selection.cluster_scoped = match which {
                ClusterScopedArg::Auto => ClusterScoped::Auto,
                ClusterScopedArg::All => ClusterScoped::All,
                ClusterScopedArg::None => ClusterScoped::None,
            };
        }
    }
}

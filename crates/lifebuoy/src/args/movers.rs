//! `lifebuoy operator`: the flags that say how movers run.

use std::collections::BTreeMap;

use clap::Args;
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use lifebuoy_operator::{MoverConfig, NodePath};
use lifebuoy_repo::Rate;
use serde::de::DeserializeOwned;

use super::store::rate;

/// Movers are the Jobs that save and restore the data of volumes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Movers, which save and restore the data of volumes")]
pub(super) struct MoverFlags {
    /// The namespace of movers; without it, that of the operator with -movers.
    #[arg(
        long,
        value_name = "NAME",
        env = "LIFEBUOY_MOVER_NAMESPACE",
        hide_env_values = true
    )]
    mover_namespace: Option<String>,

    /// The image of movers: that of the operator.
    #[arg(
        long,
        value_name = "IMAGE",
        env = "LIFEBUOY_MOVER_IMAGE",
        hide_env_values = true
    )]
    mover_image: Option<String>,

    /// When the image is pulled: Always, IfNotPresent or Never.
    #[arg(
        long,
        value_name = "POLICY",
        value_parser = ["Always", "IfNotPresent", "Never"],
        env = "LIFEBUOY_MOVER_IMAGE_PULL_POLICY",
        hide_env_values = true
    )]
    mover_image_pull_policy: Option<String>,

    /// The ServiceAccount of movers, which needs no right.
    #[arg(
        long,
        value_name = "NAME",
        env = "LIFEBUOY_MOVER_SERVICE_ACCOUNT",
        hide_env_values = true
    )]
    mover_service_account: Option<String>,

    /// How many movers run at a time.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=64),
        env = "LIFEBUOY_MAX_CONCURRENT_MOVERS",
        hide_env_values = true
    )]
    max_concurrent_movers: u16,

    /// How many movers run at a time on one node.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 2,
        value_parser = clap::value_parser!(u16).range(1..=64),
        env = "LIFEBUOY_MAX_MOVERS_PER_NODE",
        hide_env_values = true
    )]
    max_movers_per_node: u16,

    /// The PriorityClass of movers.
    #[arg(
        long,
        value_name = "NAME",
        env = "LIFEBUOY_MOVER_PRIORITY_CLASS",
        hide_env_values = true
    )]
    mover_priority_class: Option<String>,

    /// The resources of a mover's container, as JSON.
    #[arg(
        long,
        value_name = "JSON",
        value_parser = json::<ResourceRequirements>,
        env = "LIFEBUOY_MOVER_RESOURCES",
        hide_env_values = true
    )]
    mover_resources: Option<Json<ResourceRequirements>>,

    /// The labels of nodes on which movers run, as JSON.
    #[arg(
        long,
        value_name = "JSON",
        value_parser = json::<BTreeMap<String, String>>,
        env = "LIFEBUOY_MOVER_NODE_SELECTOR",
        hide_env_values = true
    )]
    mover_node_selector: Option<Json<BTreeMap<String, String>>>,

    /// The tolerations of movers, as JSON.
    #[arg(
        long,
        value_name = "JSON",
        value_parser = json::<Vec<Toleration>>,
        env = "LIFEBUOY_MOVER_TOLERATIONS",
        hide_env_values = true
    )]
    mover_tolerations: Option<Json<Vec<Toleration>>>,

    /// The kubelet's directory on the nodes, below which movers read what pods have mounted.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/kubelet",
        env = "LIFEBUOY_KUBELET_DIRECTORY",
        hide_env_values = true
    )]
    kubelet_directory: String,

    /// Directories of the nodes that movers may read for volumes of the type hostPath, as JSON.
    #[arg(
        long,
        value_name = "JSON",
        value_parser = json::<Vec<NodePath>>,
        env = "LIFEBUOY_MOVER_HOST_PATHS",
        hide_env_values = true
    )]
    mover_host_paths: Option<Json<Vec<NodePath>>>,

    /// Each mover sends no more to the store than this a second, such as 500k or 10MiB.
    #[arg(
        long,
        value_name = "RATE",
        value_parser = rate,
        env = "LIFEBUOY_MOVER_LIMIT_UPLOAD",
        hide_env_values = true
    )]
    mover_limit_upload: Option<Rate>,

    /// Each mover receives no more from the store than this a second, such as 500k or 10MiB.
    #[arg(
        long,
        value_name = "RATE",
        value_parser = rate,
        env = "LIFEBUOY_MOVER_LIMIT_DOWNLOAD",
        hide_env_values = true
    )]
    mover_limit_download: Option<Rate>,
}

/// A value that is given as JSON.
#[derive(Clone, Debug)]
struct Json<T>(T);

fn json<T: DeserializeOwned>(text: &str) -> Result<Json<T>, String> {
    serde_json::from_str(text)
        .map(Json)
        .map_err(|error| error.to_string())
}

impl MoverFlags {
    /// What they say; `defaults` says the rest.
    pub(super) fn config(&self, defaults: MoverConfig, log_level: &str) -> MoverConfig {
        let Self {
            mover_namespace,
            mover_image,
            mover_image_pull_policy,
            mover_service_account,
            max_concurrent_movers,
            max_movers_per_node,
            mover_priority_class,
            mover_resources,
            mover_node_selector,
            mover_tolerations,
            kubelet_directory,
            mover_host_paths,
            mover_limit_upload,
            mover_limit_download,
        } = self;
        let given = |value: &Option<String>, default: String| match value {
            Some(text) if !text.is_empty() => text.clone(),
            _ => default,
        };
        MoverConfig {
            namespace: given(mover_namespace, defaults.namespace),
            image: given(mover_image, defaults.image),
            image_pull_policy: given(mover_image_pull_policy, defaults.image_pull_policy),
            service_account: given(mover_service_account, defaults.service_account),
            max_concurrent: usize::from(*max_concurrent_movers),
            max_per_node: *max_movers_per_node,
            priority_class: mover_priority_class.clone().filter(|name| !name.is_empty()),
            resources: value_of(mover_resources, defaults.resources),
            node_selector: value_of(mover_node_selector, defaults.node_selector),
            tolerations: value_of(mover_tolerations, defaults.tolerations),
            log_level: log_level.to_owned(),
            kubelet_directory: kubelet_directory.clone(),
            host_paths: value_of(mover_host_paths, defaults.host_paths),
            limit_upload: mover_limit_upload.map(Rate::bytes),
            limit_download: mover_limit_download.map(Rate::bytes),
        }
    }
}

fn value_of<T: Clone>(given: &Option<Json<T>>, default: T) -> T {
    given.as_ref().map_or(default, |Json(value)| value.clone())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        movers: MoverFlags,
    }

    fn config(args: &[&str]) -> Result<MoverConfig, clap::Error> {
        let args = std::iter::once("operator").chain(args.iter().copied());
        let flags = Flags::try_parse_from(args)?;
        Ok(flags.movers.config(MoverConfig::new("lifebuoy"), "debug"))
    }

    #[test]
    fn what_is_not_given_is_as_in_the_chart() {
        let expected = MoverConfig {
            log_level: "debug".to_owned(),
            ..MoverConfig::new("lifebuoy")
        };
        assert_eq!(config(&[]).unwrap(), expected);
        assert_eq!(expected.namespace, "lifebuoy-movers");
        assert_eq!(config(&["--mover-priority-class="]).unwrap(), expected);
    }

    #[test]
    fn values_of_kubernetes_are_json() {
        let config = config(&[
            r#"--mover-resources={"limits":{"memory":"1Gi"}}"#,
            r#"--mover-node-selector={"disk":"fast"}"#,
            r#"--mover-tolerations=[{"key":"backup","operator":"Exists"}]"#,
            r#"--mover-host-paths=["/srv/data/"]"#,
            "--mover-limit-upload=1MiB",
        ])
        .unwrap();
        assert_eq!(config.resources.limits.unwrap()["memory"].0, "1Gi");
        assert_eq!(config.node_selector["disk"], "fast");
        assert_eq!(config.tolerations[0].key.as_deref(), Some("backup"));
        assert_eq!(config.host_paths[0].as_str(), "/srv/data");
        assert_eq!(config.limit_upload, Some(1 << 20));
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        for wrong in [
            "--mover-resources=big",
            "--mover-tolerations={}",
            r#"--mover-host-paths=["/srv/../etc"]"#,
            "--mover-limit-upload=1",
        ] {
            assert!(config(&[wrong]).is_err(), "{wrong}");
        }
    }
}

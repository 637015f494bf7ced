//! Which cluster and namespace a command talks to.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// The kubeconfig file, instead of $KUBECONFIG or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The context in the kubeconfig, instead of the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// The operator's namespace: requests live there.
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME",
        default_value = "lifebuoy",
        env = "LIFEBUOY_NAMESPACE",
        hide_env_values = true
    )]
    pub(crate) namespace: String,
}

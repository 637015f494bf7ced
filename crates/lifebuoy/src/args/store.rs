//! Where a repository is, for commands that work direct.

use std::path::PathBuf;

use clap::{Args, builder::BoolishValueParser};

/// The credentials are those of the store's SDK: `AWS_ACCESS_KEY_ID` and so on.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Direct work on a repository")]
pub(crate) struct StoreArgs {
    /// Work direct on the repository at this URL (s3://bucket/prefix, gs://, az://, file:///) with
    /// the credentials of the SDK's environment variables. [env: LIFEBUOY_REPO_URL, which gives way
    /// to options that name objects in the cluster]
    // Not clap's `env`: one must be able to tell whether a person typed it.
    #[arg(long = "repo", value_name = "URL")]
    pub(crate) repo: Option<String>,

    /// The file with the passphrase; without it, $LIFEBUOY_PASSPHRASE.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,

    /// The endpoint of an S3-compatible server.
    #[arg(
        long,
        value_name = "URL",
        env = "LIFEBUOY_ENDPOINT",
        hide_env_values = true
    )]
    pub(crate) endpoint: Option<String>,

    /// The region of the bucket; without it, that of the SDK's variables.
    #[arg(
        long,
        value_name = "NAME",
        env = "LIFEBUOY_REGION",
        hide_env_values = true
    )]
    pub(crate) region: Option<String>,

    /// Allow an endpoint without TLS.
    #[arg(
        long,
        env = "LIFEBUOY_ALLOW_HTTP",
        hide_env_values = true,
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) allow_http: bool,

    /// A file with PEM certificates to trust besides the usual ones.
    #[arg(
        long,
        value_name = "FILE",
        env = "LIFEBUOY_CA_FILE",
        hide_env_values = true
    )]
    pub(crate) ca_file: Option<PathBuf>,

    /// An HTTP proxy on the way to the store.
    #[arg(
        long,
        value_name = "URL",
        env = "LIFEBUOY_PROXY",
        hide_env_values = true
    )]
    pub(crate) proxy: Option<String>,
}

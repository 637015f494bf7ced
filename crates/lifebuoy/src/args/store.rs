//! Where a repository is, for commands that work direct.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, builder::BoolishValueParser};
use lifebuoy_repo::Rate;

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

    /// Send no more to the store than this a second, such as 500k or 10MiB.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) limit_upload: Option<Rate>,

    /// Receive no more from the store than this a second, such as 500k or 10MiB.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) limit_download: Option<Rate>,
}

/// Reads bytes per second.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let bytes: ByteSize = text
        .strip_suffix("/s")
        .unwrap_or(text)
        .parse()
        .map_err(|_| "expected bytes per second, such as 500k, 10MB or 10MiB")?;
    Rate::per_second(bytes.as_u64())
        .ok_or_else(|| "a repository cannot be used with less than 16KiB per second".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("10MiB", 10 << 20),
            ("10 MiB/s", 10 << 20),
            ("500k", 500_000),
            ("1.5GB", 1_500_000_000),
            ("20000", 20_000),
        ] {
            assert_eq!(rate(text).ok(), Rate::per_second(bytes), "{text}");
        }
        for text in ["", "fast", "10 parsecs", "-1M", "0", "1k"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}

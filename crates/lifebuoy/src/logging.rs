//! The operator's log: JSON or text on standard output. The CLI itself logs
//! nothing.

use tracing_subscriber::EnvFilter;

use crate::{
    args::{LogArgs, LogFormat},
    error::Error,
};

/// Begins to log.
///
/// # Errors
/// When the filter makes no sense.
pub(crate) fn start(args: &LogArgs) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&args.log_level).map_err(|error| {
        Error::usage(
            format!("--log-level: {error}"),
            "give error, warn, info, debug, trace, or directives such as info,kube=warn",
        )
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let started = match args.log_format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    started.map_err(|error| Error::io("start the log", std::io::Error::other(error.to_string())))
}

//! Why a command failed: one line that says what and on what, a hint, and the
//! exit code. Never holds a secret.

use std::error::Error as _;

use lifebuoy_api::Reason;

use crate::exit::Exit;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line makes no sense, though it parses.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// The way out.
        hint: String,
    },
    /// The repository could not do what was asked of it.
    #[error(transparent)]
    Repo(#[from] lifebuoy_repo::Error),
    /// Files or a device could not be saved, restored or read.
    #[error(transparent)]
    Data(#[from] lifebuoy_data::Error),
    /// The engine could not do what was asked of it.
    #[error(transparent)]
    Engine(#[from] lifebuoy_engine::Error),
    /// The operator stopped with an error.
    #[error(transparent)]
    Operator(#[from] lifebuoy_operator::Error),
    /// A request to the API server failed.
    #[error("cannot {what}")]
    Kube {
        /// What was to be done, as in "list Backups".
        what: String,
        /// The client's words.
        #[source]
        source: Box<kube::Error>,
    },
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no such object.
    #[error("there is no {kind} `{name}` in the namespace `{namespace}`")]
    NotFound {
        /// The kind.
        kind: String,
        /// The name.
        name: String,
        /// The namespace.
        namespace: String,
    },
    /// A request ended otherwise than it should.
    #[error("{what}: {reason}: {message}")]
    Ended {
        /// Which request.
        what: String,
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
        /// What a person can do.
        hint: Option<String>,
        /// How the command ends.
        exit: Exit,
    },
    /// Something was refused before anything was changed.
    #[error("{what}: {message}")]
    Refused {
        /// What was refused.
        what: String,
        /// Why.
        message: String,
        /// What a person can do.
        hint: String,
    },
    /// `--timeout` passed.
    #[error("{what} has not ended in time")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// What goes on, and how to look at it.
        hint: String,
    },
    /// A file cannot be read or does not parse.
    #[error("{path}: {message}")]
    File {
        /// The path as it was given.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// Something of this machine failed.
    #[error("cannot {what}")]
    Io {
        /// What was to be done.
        what: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The result could not be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    /// A value has no JSON or YAML form, or a document does not parse.
    #[error("{what}: {message}")]
    Document {
        /// Which document.
        what: String,
        /// What is wrong.
        message: String,
    },
}

impl Error {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn kube(what: impl Into<String>, source: kube::Error) -> Self {
        Self::Kube {
            what: what.into(),
            source: Box::new(source),
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    pub(crate) fn document(what: impl Into<String>, message: impl ToString) -> Self {
        Self::Document {
            what: what.into(),
            message: message.to_string(),
        }
    }

    /// The error and what caused it, in one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        if let Some(status) = self.answer() {
            // The client's own words are the whole answer, for debugging.
            return format!("{line}: {}", status.message).replace('\n', " ");
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat their source in their own text.
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line.replace('\n', " ")
    }

    /// What the API server answered, if it is that.
    fn answer(&self) -> Option<&kube::core::Status> {
        let source = match self {
            Self::Kube { source, .. }
            | Self::Engine(lifebuoy_engine::Error::Kube { source, .. }) => source,
            _ => return None,
        };
        match source.as_ref() {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::Refused { hint, .. } | Self::TimedOut { hint, .. } => {
                Some(hint.clone())
            }
            Self::Repo(error) => error.hint().map(str::to_owned),
            Self::Data(lifebuoy_data::Error::Repository(error)) => error.hint().map(str::to_owned),
            Self::Data(error) => error.hint().map(str::to_owned),
            Self::Engine(error) => error.hint(),
            Self::Operator(error) => error.hint(),
            Self::Kube { source, .. } => kube_hint(source),
            Self::Kubeconfig(_) => Some(
                "give --kubeconfig or --context, or set KUBECONFIG; `kubectl config view` shows \
                 what there is"
                    .to_owned(),
            ),
            Self::NotFound {
                kind, namespace, ..
            } => Some(format!(
                "`kubectl get {} -n {namespace}` shows what there is; -n names another namespace",
                kind.to_lowercase()
            )),
            Self::Ended { hint, .. } => hint.clone(),
            Self::File { .. } | Self::Io { .. } | Self::Output(_) | Self::Document { .. } => None,
        }
    }

    /// What the process ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::File { .. } => Exit::Usage,
            Self::Refused { .. }
            | Self::Repo(
                lifebuoy_repo::Error::Refused { .. } | lifebuoy_repo::Error::UpgradeNeeded { .. },
            ) => Exit::Refused,
            Self::Ended { exit, .. } => *exit,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::Engine(error) => engine_exit(error),
            Self::Data(lifebuoy_data::Error::NotEmpty { .. }) => Exit::Refused,
            Self::Kube { source, .. } => kube_exit(source),
            Self::Repo(_)
            | Self::Data(_)
            | Self::Operator(_)
            | Self::Kubeconfig(_)
            | Self::NotFound { .. }
            | Self::Io { .. }
            | Self::Output(_)
            | Self::Document { .. } => Exit::Failed,
        }
    }
}

fn engine_exit(error: &lifebuoy_engine::Error) -> Exit {
    match error {
        lifebuoy_engine::Error::Kube { source, .. } => kube_exit(source),
        error if error.reason() == Reason::InvalidSpec => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// A request that the API server understood and did not want is refused; all
/// else is a failure.
fn kube_exit(error: &kube::Error) -> Exit {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 401 | 403 | 409 | 422) => {
            Exit::Refused
        }
        _ => Exit::Failed,
    }
}

fn kube_hint(error: &kube::Error) -> Option<String> {
    let kube::Error::Api(status) = error else {
        return Some("check that the API server can be reached; --context chooses another".into());
    };
    match status.code {
        401 => Some("the kubeconfig's credentials are not accepted: log in again".into()),
        403 => Some("ask for the right, or use another --context".into()),
        404 => Some(
            "lifebuoy seems not to be installed in this cluster: install the chart, or work \
             direct with --repo"
                .into(),
        ),
        409 => Some("choose another name, or leave the name out to get a new one".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16) -> Error {
        let status = kube::core::Status::failure("no", "Reason")
            .with_code(code)
            .boxed();
        Error::kube("create the Backup", kube::Error::Api(status))
    }

    #[test]
    fn refusals_and_failures_of_the_api_server_differ() {
        for (code, exit) in [
            (400, Exit::Refused),
            (403, Exit::Refused),
            (422, Exit::Refused),
            (500, Exit::Failed),
        ] {
            assert_eq!(answer(code).exit(), exit, "{code}");
        }
    }

    #[test]
    fn an_answer_is_in_its_own_words() {
        assert_eq!(answer(409).line(), "cannot create the Backup: no");
    }

    #[test]
    fn a_line_has_each_cause_once() {
        let cause = std::io::Error::other("disk\non fire");
        assert_eq!(
            Error::io("read it", cause).line(),
            "cannot read it: disk on fire"
        );
    }
}

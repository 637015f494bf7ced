//! Who reaches which API server, and the kubeconfig that says so.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// An API server's address and one user's credentials.
#[derive(Clone)]
pub struct Access {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The certificates that vouch for the server.
    pub ca_pem: String,
    /// The bearer token.
    pub token: String,
    /// Whom to act as, if not the token's owner.
    pub impersonate: Option<String>,
}

// By hand, so that no token gets into a log.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// The text of a kubeconfig with one context called `name`.
    pub fn kubeconfig(&self, name: &str) -> String {
        let Self {
            url,
            ca_pem,
            token,
            impersonate,
        } = self;
        let ca = BASE64_STANDARD.encode(ca_pem);
        let acting = match impersonate {
            Some(user) => format!("\n    as: {user:?}"),
            None => String::new(),
        };
        format!(
            r#"apiVersion: v1
kind: Config
current-context: {name:?}
clusters:
- name: {name:?}
  cluster:
    server: {url}
    certificate-authority-data: {ca}
contexts:
- name: {name:?}
  context:
    cluster: {name:?}
    user: {name:?}
users:
- name: {name:?}
  user:
    token: {token:?}{acting}
"#
        )
    }
}

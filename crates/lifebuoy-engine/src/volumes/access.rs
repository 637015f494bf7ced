//! All that is needed to open a repository, as it goes into the Secret of a mover.
//! Never printed.

use std::{collections::BTreeMap, fmt};

use lifebuoy_repo::{
    Credentials, Error, Limits, Location, LocationOptions, Passphrase, Repository,
};
use serde::{Deserialize, Serialize};

/// Where a repository is, and the secrets that open it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryAccess {
    /// `s3://bucket/prefix` and so on, as in a Repository.
    pub url: String,
    /// Another endpoint than the cloud's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Certificates in PEM that are trusted besides the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// An HTTP proxy on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Whether an endpoint without TLS is allowed.
    #[serde(default)]
    pub allow_http: bool,
    /// By the names of the SDKs' variables; empty for workload identity.
    #[serde(default)]
    pub credentials: BTreeMap<String, String>,
    /// The repository's passphrase.
    pub passphrase: String,
}

impl RepositoryAccess {
    /// Opens the repository. Makes none.
    ///
    /// # Errors
    /// Those of [`Location::parse`] and [`Repository::open`].
    pub async fn open(&self, limits: Limits) -> Result<Repository, Error> {
        let passphrase = Passphrase::new(self.passphrase.clone())?;
        let store = self
            .location(limits)?
            .open(&Credentials::new(self.credentials.clone()))?;
        Repository::open(store, &passphrase).await
    }

    /// Where it is, checked.
    ///
    /// # Errors
    /// Those of [`Location::parse`].
    pub fn location(&self, limits: Limits) -> Result<Location, Error> {
        let options = LocationOptions {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            ca_pem: self.ca_pem.as_ref().map(|pem| pem.clone().into_bytes()),
            proxy: self.proxy.clone(),
            allow_http: self.allow_http,
            limits,
        };
        Location::parse(&self.url, options)
    }
}

/// Where, and nothing of how. A proxy's URL may hold a password.
impl fmt::Debug for RepositoryAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryAccess")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        let access = RepositoryAccess {
            url: "s3://bucket/prefix".to_owned(),
            endpoint: None,
            region: None,
            ca_pem: None,
            proxy: Some("http://me:hunter2@proxy:3128".to_owned()),
            allow_http: false,
            credentials: [("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned())].into(),
            passphrase: "hunter2".to_owned(),
        };
        let printed = format!("{access:?}");
        assert!(printed.contains("s3://bucket/prefix"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
        let json = serde_json::to_string(&access).unwrap();
        assert_eq!(
            serde_json::from_str::<RepositoryAccess>(&json).unwrap(),
            access
        );
    }
}

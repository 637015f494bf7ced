//! Which of the two ways a command takes, and for direct work the opening of
//! the repository. Secrets come from files and the environment, never from the
//! command line, and are never printed.

use std::{env, fs, path::Path, sync::Arc};

use lifebuoy_repo::{
    Credentials, Limits, Location, LocationOptions, ObjectStore, Passphrase, Repository,
};

use crate::{args::StoreArgs, error::Error};

/// The variable that stands for `--repo`.
const URL_VARIABLE: &str = "LIFEBUOY_REPO_URL";
/// The variable that stands for the contents of `--passphrase-file`.
const PASSPHRASE_VARIABLE: &str = "LIFEBUOY_PASSPHRASE";

/// Credentials by scheme, as the SDKs name their variables.
const CREDENTIAL_VARIABLES: &[(&str, &[&str])] = &[
    (
        "s3",
        &[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_ROLE_ARN",
            "AWS_ROLE_SESSION_NAME",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        ],
    ),
    (
        "gs",
        &[
            "GOOGLE_SERVICE_ACCOUNT",
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ],
    ),
    (
        "az",
        &[
            "AZURE_STORAGE_ACCOUNT_NAME",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_SAS_KEY",
            "AZURE_STORAGE_TOKEN",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_TENANT_ID",
            "AZURE_FEDERATED_TOKEN_FILE",
        ],
    ),
];

/// Where the SDK looks for the region.
const REGION_VARIABLES: &[&str] = &["AWS_REGION", "AWS_DEFAULT_REGION"];

/// How a command does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the operator of the cluster.
    Operator,
    /// Direct on the repository at this URL.
    Direct(String),
}

/// The way. `names_objects` says whether options name objects of the cluster,
/// such as `--repository`: they win over the environment.
pub(crate) fn way(store: &StoreArgs, names_objects: bool, variable: Option<String>) -> Way {
    match (&store.repo, variable) {
        (Some(url), _) => Way::Direct(url.clone()),
        (None, Some(url)) if !names_objects && !url.is_empty() => Way::Direct(url),
        (None, _) => Way::Operator,
    }
}

/// [`way`] in the environment of this process.
pub(crate) fn way_here(store: &StoreArgs, names_objects: bool) -> Way {
    way(store, names_objects, variable(URL_VARIABLE))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The URL for a command that has no other way than the direct one.
///
/// # Errors
/// [`Error::Usage`] without one.
pub(crate) fn direct_only(store: &StoreArgs) -> Result<String, Error> {
    match way_here(store, false) {
        Way::Direct(url) => Ok(url),
        Way::Operator => Err(Error::usage(
            "which repository?",
            "give --repo: this works on the repository itself, without an operator",
        )),
    }
}

/// Opens the repository at `url`.
///
/// # Errors
/// [`Error::Repo`], [`Error::File`], or [`Error::Usage`] without a passphrase.
pub(crate) async fn open(store: &StoreArgs, url: &str) -> Result<Repository, Error> {
    let passphrase = passphrase(store)?;
    Ok(Repository::open(objects(store, url)?, &passphrase).await?)
}

/// The store at `url`. Talks to nothing yet.
///
/// # Errors
/// [`Error::Repo`] for a location that makes no sense, [`Error::File`].
pub(crate) fn objects(store: &StoreArgs, url: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    let location = location(store, url)?;
    Ok(location.open(&credentials(location.url.scheme(), variable))?)
}

fn location(store: &StoreArgs, url: &str) -> Result<Location, Error> {
    let cloud = !url.starts_with("file:");
    let given = |value: &Option<String>| value.clone().filter(|text| cloud && !text.is_empty());
    let options = LocationOptions {
        // The environment may name an endpoint for other commands.
        endpoint: given(&store.endpoint),
        region: given(&store.region).or_else(|| {
            REGION_VARIABLES
                .iter()
                .find_map(|name| variable(name))
                .filter(|_| cloud)
        }),
        ca_pem: store.ca_file.as_deref().map(read).transpose()?,
        proxy: given(&store.proxy),
        allow_http: store.allow_http,
        limits: Limits {
            upload: store.limit_upload,
            download: store.limit_download,
        },
    };
    Ok(Location::parse(url, options)?)
}

fn credentials(scheme: &str, variable: impl Fn(&str) -> Option<String>) -> Credentials {
    CREDENTIAL_VARIABLES
        .iter()
        .filter(|(of, _)| *of == scheme)
        .flat_map(|(_, names)| names.iter())
        .filter_map(|name| Some(((*name).to_owned(), variable(name)?)))
        .collect()
}

/// The passphrase.
///
/// # Errors
/// [`Error::Usage`] when there is none.
pub(crate) fn passphrase(store: &StoreArgs) -> Result<Passphrase, Error> {
    let text = match &store.passphrase_file {
        Some(path) => {
            let text = String::from_utf8(read(path)?).map_err(|_| Error::File {
                path: path.display().to_string(),
                message: "it is not UTF-8 text".to_owned(),
            })?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        None => variable(PASSPHRASE_VARIABLE).ok_or_else(|| {
            Error::usage(
                "there is no passphrase for the repository",
                format!("give --passphrase-file, or set {PASSPHRASE_VARIABLE}"),
            )
        })?,
    };
    Ok(Passphrase::new(text)?)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::File {
        path: path.display().to_string(),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_the_cluster_win_over_the_environment() {
        let url = || Some("s3://bucket".to_owned());
        let none = StoreArgs::default();
        let given = StoreArgs {
            repo: Some("s3://other".into()),
            ..StoreArgs::default()
        };
        let direct = |url: &str| Way::Direct(url.to_owned());
        assert_eq!(way(&none, true, url()), Way::Operator);
        assert_eq!(way(&none, false, url()), direct("s3://bucket"));
        assert_eq!(way(&none, false, None), Way::Operator);
        assert_eq!(way(&given, false, url()), direct("s3://other"));
    }

    #[test]
    fn credentials_are_those_of_the_scheme() {
        let all = |name: &str| Some(name.to_lowercase());
        assert!(credentials("file", all).is_empty());
        let some = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "id".to_owned());
        let expected = [("AWS_ACCESS_KEY_ID".to_owned(), "id".to_owned())];
        assert!(credentials("s3", some) == expected.into_iter().collect());
        assert!(credentials("gs", some).is_empty());
    }

    #[test]
    fn every_credential_is_known_to_its_store() {
        for (scheme, names) in CREDENTIAL_VARIABLES {
            for name in *names {
                let known = match *scheme {
                    "s3" => location("s3://bucket"),
                    "gs" => location("gs://bucket"),
                    _ => location("az://container"),
                }
                .open(&[((*name).to_owned(), "x".to_owned())].into_iter().collect());
                let unknown = known
                    .err()
                    .map(|error| error.to_string())
                    .unwrap_or_default();
                assert!(!unknown.contains("is not known"), "{name}: {unknown}");
            }
        }
    }

    fn location(url: &str) -> Location {
        Location::parse(url, LocationOptions::default()).unwrap()
    }
}

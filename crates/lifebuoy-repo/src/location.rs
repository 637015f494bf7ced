//! Where a repository is: parsing of its URL and options, which is pure, and
//! opening the store. Never creates a bucket; reads the environment only where
//! there are no credentials, for what workload identity puts there.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    prefix::PrefixStore,
};
use url::Url;

use crate::{
    error::{Error, Result},
    paced::Limits,
    rate::Throttle,
    sending::{PacedConnector, SendingOptions},
    store::{Operation, classify},
};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take, a pack over a slow line included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// No retry begins later than this after the first attempt.
const RETRY_TIMEOUT: Duration = Duration::from_secs(12);
const RETRIES_MAX: usize = 4;
const CREDENTIAL_BYTES_MAX: usize = 64 * 1024;

/// Where a repository is and how to get there. [`Location::parse`] checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// `s3://bucket/prefix`, `gs://…`, `az://container/…` or `file:///directory`.
    pub url: Url,
    /// Another endpoint than the cloud's own, such as `https://minio.example:9000`.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` if not given.
    pub region: Option<String>,
    /// Certificates in PEM that the endpoint's chain may end in, besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// An HTTP proxy.
    pub proxy: Option<String>,
    /// Allows `http://` endpoints. The contents are encrypted all the same.
    pub allow_http: bool,
    /// How fast bytes may go there and come from there.
    pub limits: Limits,
}

/// What [`Location::parse`] makes a location of; the fields as in a Repository.
#[derive(Debug, Clone, Default)]
pub struct LocationOptions {
    /// See [`Location::endpoint`].
    pub endpoint: Option<String>,
    /// See [`Location::region`].
    pub region: Option<String>,
    /// See [`Location::ca_pem`].
    pub ca_pem: Option<Vec<u8>>,
    /// See [`Location::proxy`].
    pub proxy: Option<String>,
    /// See [`Location::allow_http`].
    pub allow_http: bool,
    /// See [`Location::limits`].
    pub limits: Limits,
}

/// Credentials by the names that the SDKs use for environment variables, such
/// as `AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT_KEY`, `AZURE_STORAGE_ACCOUNT_KEY`.
/// Empty means workload identity. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, String>);

impl Credentials {
    /// These names and values.
    #[must_use]
    pub fn new(values: BTreeMap<String, String>) -> Self {
        Self(values)
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} values, not shown)", self.0.len())
    }
}

impl FromIterator<(String, String)> for Credentials {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    S3,
    Google,
    Azure,
    Directory,
}

impl Location {
    /// Checks a URL and its options.
    ///
    /// # Errors
    /// [`Error::Location`], which names the field.
    pub fn parse(url: &str, options: LocationOptions) -> Result<Self> {
        let LocationOptions {
            endpoint,
            region,
            ca_pem,
            proxy,
            allow_http,
            limits,
        } = options;
        let parsed = absolute("url", url)?;
        let scheme = scheme(&parsed)?;
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(invalid("url", "a query or fragment is not allowed"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(invalid(
                "url",
                "credentials belong into the Secret, not into the URL",
            ));
        }
        if scheme == Scheme::Directory {
            check_directory(&parsed, endpoint.as_deref(), region.as_deref())?;
        } else if parsed.host_str().is_none_or(str::is_empty) {
            return Err(invalid("url", "the bucket is missing"));
        }
        if prefix(&parsed)
            .split('/')
            .any(|part| part == "." || part == "..")
        {
            return Err(invalid(
                "url",
                "\".\" and \"..\" are not allowed in the prefix",
            ));
        }
        if let Some(endpoint) = &endpoint {
            check_endpoint(endpoint, allow_http)?;
        }
        if let Some(proxy) = &proxy {
            absolute("proxy", proxy)?;
        }
        if let Some(pem) = &ca_pem {
            certificates(pem)?;
        }
        Ok(Self {
            url: parsed,
            endpoint,
            region,
            ca_pem,
            proxy,
            allow_http,
            limits,
        })
    }

    /// The directory of a `file://` location.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        (self.url.scheme() == "file")
            .then(|| self.url.to_file_path().ok())
            .flatten()
    }

    /// Opens the store, scoped to the prefix. Talks to nothing yet, except that
    /// a directory must exist. An endpoint that cannot
    /// be reached is given up after about 20 seconds, one that accepts and never
    /// answers after 30; with a limit of bandwidth, after as much longer as that may
    /// take.
    ///
    /// # Errors
    /// [`Error::Location`] for credentials or options that the store refuses,
    /// [`Error::BucketMissing`] for a directory that does not exist.
    pub fn open(&self, credentials: &Credentials) -> Result<Arc<dyn ObjectStore>> {
        for (name, value) in &credentials.0 {
            if value.len() > CREDENTIAL_BYTES_MAX {
                return Err(invalid("credentials", format!("{name} is too long")));
            }
        }
        let prefix = prefix(&self.url);
        let store: Arc<dyn ObjectStore> = match scheme(&self.url)? {
            Scheme::S3 => scoped(self.s3(credentials)?, &prefix),
            Scheme::Google => scoped(self.google(credentials)?, &prefix),
            Scheme::Azure => scoped(self.azure(credentials)?, &prefix),
            Scheme::Directory => {
                let path = self
                    .directory()
                    .ok_or_else(|| invalid("url", "not a path on this machine"))?;
                let store = LocalFileSystem::new_with_prefix(path)
                    .map_err(|error| classify(Operation::List, "", &error))?;
                return Ok(self.limits.on(Arc::new(store.with_fsync(true))));
            }
        };
        // What is sent is paced by the connector.
        let received = Limits {
            upload: None,
            ..self.limits
        };
        Ok(received.on(store))
    }

    /// What paces the bodies of requests, if there is a limit to them.
    fn connector(&self) -> Result<Option<PacedConnector>> {
        let Some(rate) = self.limits.upload else {
            return Ok(None);
        };
        let options = SendingOptions {
            allow_http: self.allow_http,
            connect_timeout: CONNECT_TIMEOUT,
            timeout: self.request_timeout(),
            proxy: self.proxy.as_deref(),
            ca_pem: self.ca_pem.as_deref(),
        };
        PacedConnector::new(&options, Throttle::new(rate))
            .map(Some)
            .map_err(|error| invalid("url", format!("no client can be made: {error}")))
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(3),
                base: 2.0,
            },
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT + self.limits.delay_max(),
        }
    }

    fn request_timeout(&self) -> Duration {
        REQUEST_TIMEOUT + self.limits.delay_max()
    }

    fn bucket(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    fn client(&self) -> Result<ClientOptions> {
        let mut client = ClientOptions::new()
            .with_allow_http(self.allow_http)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(self.request_timeout());
        if let Some(proxy) = &self.proxy {
            client = client.with_proxy_url(proxy);
        }
        if let Some(pem) = &self.ca_pem {
            for certificate in certificates(pem)? {
                client = client.with_root_certificate(certificate);
            }
        }
        Ok(client)
    }

    fn s3(&self, credentials: &Credentials) -> Result<object_store::aws::AmazonS3> {
        let mut builder = if credentials.is_empty() {
            AmazonS3Builder::from_env()
        } else {
            AmazonS3Builder::new()
        };
        builder = builder
            .with_bucket_name(self.bucket())
            .with_client_options(self.client()?)
            .with_retry(self.retry())
            .with_allow_http(self.allow_http);
        if let Some(connector) = self.connector()? {
            builder = builder.with_http_connector(connector);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        for (name, value) in &credentials.0 {
            let key: AmazonS3ConfigKey = config_key(name)?;
            builder = builder.with_config(key, value);
        }
        // Locked buckets want a checksum with every upload. This one costs nothing:
        // the signature is over the same hash.
        if builder
            .get_config_value(&AmazonS3ConfigKey::Checksum)
            .is_none()
        {
            builder = builder.with_checksum_algorithm(Checksum::SHA256);
        }
        builder.build().map_err(unusable)
    }

    fn google(&self, credentials: &Credentials) -> Result<object_store::gcp::GoogleCloudStorage> {
        let mut builder = if credentials.is_empty() {
            GoogleCloudStorageBuilder::from_env()
        } else {
            GoogleCloudStorageBuilder::new()
        };
        builder = builder
            .with_bucket_name(self.bucket())
            .with_client_options(self.client()?)
            .with_retry(self.retry());
        if let Some(connector) = self.connector()? {
            builder = builder.with_http_connector(connector);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        for (name, value) in &credentials.0 {
            let key: GoogleConfigKey = config_key(name)?;
            builder = builder.with_config(key, value);
        }
        builder.build().map_err(unusable)
    }

    fn azure(&self, credentials: &Credentials) -> Result<object_store::azure::MicrosoftAzure> {
        let mut builder = if credentials.is_empty() {
            MicrosoftAzureBuilder::from_env()
        } else {
            MicrosoftAzureBuilder::new()
        };
        builder = builder
            .with_container_name(self.bucket())
            .with_client_options(self.client()?)
            .with_retry(self.retry());
        if let Some(connector) = self.connector()? {
            builder = builder.with_http_connector(connector);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        for (name, value) in &credentials.0 {
            let key: AzureConfigKey = config_key(name)?;
            builder = builder.with_config(key, value);
        }
        builder.build().map_err(unusable)
    }
}

fn invalid(field: &'static str, problem: impl fmt::Display) -> Error {
    Error::Location {
        field,
        problem: problem.to_string(),
    }
}

fn absolute(field: &'static str, text: &str) -> Result<Url> {
    Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => invalid(
            field,
            format!("{text:?} has no scheme, such as https:// or s3://"),
        ),
        error => invalid(field, error),
    })
}

/// A builder's refusal. Only its first line, which names what is missing.
fn unusable(error: object_store::Error) -> Error {
    let text = error.to_string();
    invalid("credentials", text.lines().next().unwrap_or_default())
}

fn scheme(url: &Url) -> Result<Scheme> {
    match url.scheme() {
        "s3" => Ok(Scheme::S3),
        "gs" => Ok(Scheme::Google),
        "az" => Ok(Scheme::Azure),
        "file" => Ok(Scheme::Directory),
        other => Err(invalid(
            "url",
            format!("the scheme {other:?} is not one of s3, gs, az, file"),
        )),
    }
}

fn prefix(url: &Url) -> String {
    url.path().trim_matches('/').to_owned()
}

fn check_directory(url: &Url, endpoint: Option<&str>, region: Option<&str>) -> Result<()> {
    if url.to_file_path().is_err() {
        return Err(invalid(
            "url",
            "an absolute path is expected, as in file:///directory",
        ));
    }
    if endpoint.is_some() {
        return Err(invalid("endpoint", "a directory has no endpoint"));
    }
    if region.is_some() {
        return Err(invalid("region", "a directory has no region"));
    }
    Ok(())
}

fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<()> {
    let url = absolute("endpoint", endpoint)?;
    match url.scheme() {
        "https" => Ok(()),
        "http" if allow_http => Ok(()),
        "http" => Err(invalid("endpoint", "http:// needs allowHttp: true")),
        other => Err(invalid(
            "endpoint",
            format!("the scheme {other:?} is not https"),
        )),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>> {
    let found =
        Certificate::from_pem_bundle(pem).map_err(|_| invalid("ca", "not a certificate in PEM"))?;
    if found.is_empty() {
        return Err(invalid("ca", "there is no certificate in it"));
    }
    Ok(found)
}

fn config_key<K: std::str::FromStr>(name: &str) -> Result<K> {
    name.to_ascii_lowercase()
        .parse()
        .map_err(|_| invalid("credentials", format!("the name {name:?} is not known")))
}

fn scoped(store: impl ObjectStore, prefix: &str) -> Arc<dyn ObjectStore> {
    if prefix.is_empty() {
        Arc::new(store)
    } else {
        Arc::new(PrefixStore::new(store, prefix))
    }
}

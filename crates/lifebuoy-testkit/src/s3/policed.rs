//! An S3 server as a cloud runs it: identities with policies of their own, a
//! bucket that may keep versions and lock them. For tests of credentials.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Request;

use super::identities::Identities;
use super::signed::{self, Answer, S3Key, element};
use super::{BUCKET, Protection, Rights, S3Server, S3User, Setup};
use crate::tools::{Tool, ensure_async};

/// A running server with identities. Dropping it ends its processes.
#[derive(Debug)]
#[must_use = "dropping it stops the server"]
pub struct PolicedS3 {
    server: S3Server,
    identities: Identities,
    root: S3Key,
}

/// One version of an object, or the mark that says that it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The object's key.
    pub key: String,
    /// The version's id.
    pub id: String,
    /// True if this is not an object but the mark of a deletion.
    pub is_delete_marker: bool,
}

impl PolicedS3 {
    /// Starts a server with an empty bucket, keeping everything below `folder`.
    ///
    /// # Errors
    /// As [`S3Server::start`].
    pub async fn start(folder: impl Into<PathBuf>, protection: Protection) -> Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let tools = ensure_async(&[Tool::Versitygw]).await?;
        let user = S3User::random(Rights::Everything);
        let root = S3Key {
            access_key: user.access_key.clone(),
            secret_key: user.secret_key.clone(),
        };
        let program = tools.get(Tool::Versitygw)?;
        let identities = Identities::start(program, &folder.canonicalize()?, &root).await?;
        let setup = Setup {
            identities: Some(identities.socket().to_owned()),
            protection,
        };
        let server = S3Server::start_as(folder, user, setup).await?;
        Ok(Self {
            server,
            identities,
            root,
        })
    }

    /// Makes an identity whose only policy is this IAM policy in JSON.
    ///
    /// # Errors
    /// When the policy is refused, or the name is taken.
    pub async fn identity(&self, name: &str, policy: &str) -> Result<S3Key> {
        self.identities.create(name, policy).await
    }

    /// The key that no policy binds; a lock binds it too.
    pub fn root(&self) -> &S3Key {
        &self.root
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    /// The folder whose files are the bucket's newest objects.
    pub fn bucket_directory(&self) -> PathBuf {
        self.server.bucket_directory()
    }

    /// Sends a request about the bucket, signed with a key: `path` comes after
    /// the bucket's name, with its slash or question mark.
    ///
    /// # Errors
    /// When there is no answer. An answer that refuses is not an error.
    pub async fn send(
        &self,
        key: &S3Key,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/{BUCKET}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into())?;
        signed::send(&self.endpoint(), "s3", key, request)
            .await
            .with_context(|| format!("{method} {path}"))
    }

    /// All versions in the bucket, by key; of one key the newest first.
    ///
    /// # Errors
    /// When they cannot be listed at once.
    pub async fn versions(&self) -> Result<Vec<Version>> {
        let listed = self
            .send(&self.root, "GET", "?versions=", &[], "")
            .await?
            .success()?;
        let listed = listed.text();
        anyhow::ensure!(
            element(&listed, "IsTruncated") == Some("false"),
            "more versions than one page holds"
        );
        let mut versions = Vec::new();
        for (tag, is_delete_marker) in [("Version", false), ("DeleteMarker", true)] {
            for part in listed.split(&format!("<{tag}>")).skip(1) {
                let text = |name| element(part, name).map(str::to_owned);
                versions.push(Version {
                    key: text("Key").context("a version without a key")?,
                    id: text("VersionId").context("a version without an id")?,
                    is_delete_marker,
                });
            }
        }
        // Ids of versions begin with their time.
        versions.sort_by(|a, b| (&a.key, &b.id).cmp(&(&b.key, &a.id)));
        Ok(versions)
    }

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        self.server.directory()
    }
}

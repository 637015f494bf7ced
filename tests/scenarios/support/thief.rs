//! What somebody can try who has stolen a key of the store: every request of S3
//! that replaces, hides, deletes or unlocks. Knows nothing of repositories.

use anyhow::{Context, Result};
use lifebuoy_testkit::s3::{Answer, BUCKET, PolicedS3, S3Key, Version};

/// What a thief writes.
const LOOT: &str = "replaced by a thief";

const RETENTION: &str = "<Retention><Mode>GOVERNANCE</Mode>\
     <RetainUntilDate>2090-01-01T00:00:00Z</RetainUntilDate></Retention>";
const BYPASS: (&str, &str) = ("x-amz-bypass-governance-retention", "true");

/// One thing that was tried.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) what: String,
    pub(crate) answer: Answer,
}

impl Attempt {
    /// True if the store did as it was told. A deletion of several objects is
    /// answered with success and a refusal for each.
    pub(crate) fn succeeded(&self) -> bool {
        self.answer.is_success() && !self.answer.text().contains("<Error>")
    }
}

/// Somebody with a key.
pub(crate) struct Thief<'a> {
    pub(crate) s3: &'a PolicedS3,
    pub(crate) key: &'a S3Key,
}

impl Thief<'_> {
    async fn send(
        &self,
        what: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Attempt> {
        let sent = self
            .s3
            .send(self.key, method, path, headers, body.to_owned());
        Ok(Attempt {
            what: format!("{what} ({method} {path})"),
            answer: sent.await?,
        })
    }

    /// Creates an object as lifebuoy does.
    pub(crate) async fn create(&self, object: &str) -> Result<Attempt> {
        let only_new = [("if-none-match", "*")];
        self.send("create", "PUT", &format!("/{object}"), &only_new, LOOT)
            .await
    }

    /// Deletes an object as lifebuoy does.
    pub(crate) async fn delete(&self, object: &str) -> Result<Attempt> {
        self.send("delete", "DELETE", &format!("/{object}"), &[], "")
            .await
    }

    pub(crate) async fn delete_version(&self, version: &Version) -> Result<Attempt> {
        let path = format!("/{}?versionId={}", version.key, version.id);
        self.send("delete a version", "DELETE", &path, &[BYPASS], "")
            .await
    }

    /// Reads an object.
    pub(crate) async fn read(&self, object: &str) -> Result<Attempt> {
        self.send("read", "GET", &format!("/{object}"), &[], "")
            .await
    }

    /// Lists what is below a prefix.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Attempt> {
        let prefix = prefix.replace('/', "%2F");
        let query = match prefix.as_str() {
            "" => "?list-type=2".to_owned(),
            prefix => format!("?list-type=2&prefix={prefix}"),
        };
        self.send("list", "GET", &query, &[], "").await
    }

    /// Everything that puts other bytes in the place of an object, one way by
    /// copying another one.
    pub(crate) async fn replace(&self, object: &str, other: &str) -> Result<Vec<Attempt>> {
        let path = format!("/{object}");
        let source = format!("/{BUCKET}/{other}");
        let copy = [
            ("x-amz-copy-source", source.as_str()),
            ("x-amz-metadata-directive", "REPLACE"),
        ];
        Ok(vec![
            self.send("replace", "PUT", &path, &[], LOOT).await?,
            self.send("replace by a copy", "PUT", &path, &copy, "")
                .await?,
            self.replace_by_parts(&path).await?,
        ])
    }

    async fn replace_by_parts(&self, path: &str) -> Result<Attempt> {
        let what = "replace by parts";
        let begin = format!("{path}?uploads=");
        let begun = self.send(what, "POST", &begin, &[], "").await?;
        if !begun.succeeded() {
            return Ok(begun);
        }
        let upload = begun.answer.element("UploadId");
        let upload = upload.context("an upload without an id")?;
        let part = format!("{path}?partNumber=1&uploadId={upload}");
        let part = self.send(what, "PUT", &part, &[], LOOT).await?;
        let Some(etag) = part.answer.etag.clone() else {
            return Ok(part);
        };
        let end = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>\
             </CompleteMultipartUpload>"
        );
        self.send(
            what,
            "POST",
            &format!("{path}?uploadId={upload}"),
            &[],
            &end,
        )
        .await
    }

    /// Everything that deletes an object, a version of it, or what keeps it.
    pub(crate) async fn destroy(&self, object: &str, versions: &[Version]) -> Result<Vec<Attempt>> {
        let path = format!("/{object}");
        let several = format!("<Delete><Object><Key>{object}</Key></Object></Delete>");
        let tags = "<Tagging><TagSet></TagSet></Tagging>";
        let hold = "<LegalHold><Status>OFF</Status></LegalHold>";
        let mut attempts = vec![
            self.create(object).await?,
            self.delete(object).await?,
            self.send("delete a locked one", "DELETE", &path, &[BYPASS], "")
                .await?,
            self.send("delete several", "POST", "?delete=", &[], &several)
                .await?,
        ];
        for (what, query, body) in [
            ("lock", "retention", RETENTION),
            ("unhold", "legal-hold", hold),
            ("tag", "tagging", tags),
            ("open to all", "acl", ""),
        ] {
            let path = format!("{path}?{query}=");
            let headers = [BYPASS, ("x-amz-acl", "public-read-write")];
            attempts.push(self.send(what, "PUT", &path, &headers, body).await?);
        }
        for version in versions.iter().filter(|version| version.key == object) {
            attempts.push(self.delete_version(version).await?);
        }
        Ok(attempts)
    }

    /// Everything that takes away what protects a bucket, or the bucket.
    pub(crate) async fn unprotect(&self) -> Result<Vec<Attempt>> {
        let policy = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":"*","Action":"s3:*",
            "Resource":["arn:aws:s3:::{BUCKET}","arn:aws:s3:::{BUCKET}/*"]}}]}}"#
        );
        let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>\
             </ObjectLockConfiguration>";
        let suspended =
            "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
        let expiry = "<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter/><Expiration>\
             <Days>1</Days></Expiration></Rule></LifecycleConfiguration>";
        let mut attempts = Vec::new();
        for (method, query, body) in [
            ("PUT", "?policy=", policy.as_str()),
            ("DELETE", "?policy=", ""),
            ("PUT", "?object-lock=", lock),
            ("PUT", "?versioning=", suspended),
            ("PUT", "?lifecycle=", expiry),
            ("PUT", "?acl=", ""),
            ("GET", "?versions=", ""),
            ("DELETE", "", ""),
        ] {
            attempts.push(self.send("unprotect", method, query, &[], body).await?);
        }
        Ok(attempts)
    }
}

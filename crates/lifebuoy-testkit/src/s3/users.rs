//! The users of the S3 server and the bucket policy that gives them rights.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

/// What a user may do with the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// All of it.
    Everything,
    /// Get and list objects; put and delete nothing.
    ReadOnly,
    /// Get, put and delete objects, but not list them.
    WriteWithoutList,
}

/// One user's credentials.
#[derive(Clone)]
pub struct S3User {
    /// The key id.
    pub access_key: String,
    /// The secret.
    pub secret_key: String,
    /// What the bucket's policy lets the user do.
    pub rights: Rights,
}

// By hand, so that no secret gets into a log.
impl std::fmt::Debug for S3User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3User({}, {:?})", self.access_key, self.rights)
    }
}

impl S3User {
    pub(super) fn random(rights: Rights) -> Self {
        Self {
            access_key: format!("TEST{:016X}", rand::random::<u64>()),
            secret_key: format!("{:032x}", rand::random::<u128>()),
            rights,
        }
    }
}

/// Writes the server's file of users, which it reads at its start.
pub(super) fn write(folder: &Path, users: &[S3User]) -> Result<()> {
    let mut accounts = Map::new();
    for user in users {
        accounts.insert(
            user.access_key.clone(),
            json!({
                "access": user.access_key,
                "secret": user.secret_key,
                "role": "user",
                "userID": 0,
                "groupID": 0,
                "projectID": 0,
            }),
        );
    }
    let text = json!({ "accessAccounts": accounts }).to_string();
    fs::write(folder.join("users.json"), text)?;
    Ok(())
}

/// The policy that gives each user its rights to `bucket`.
pub(super) fn policy(bucket: &str, users: &[S3User]) -> Value {
    let mut statements = Vec::new();
    for user in users {
        let (on_objects, on_bucket): (&[&str], &[&str]) = match user.rights {
            Rights::Everything => (&["s3:*"], &["s3:*"]),
            Rights::ReadOnly => (&["s3:GetObject"], &["s3:ListBucket"]),
            Rights::WriteWithoutList => (
                &["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
                &["s3:GetBucketLocation"],
            ),
        };
        let principal = json!({ "AWS": [user.access_key] });
        statements.push(json!({
            "Effect": "Allow",
            "Principal": principal,
            "Action": on_objects,
            "Resource": format!("arn:aws:s3:::{bucket}/*"),
        }));
        statements.push(json!({
            "Effect": "Allow",
            "Principal": principal,
            "Action": on_bucket,
            "Resource": format!("arn:aws:s3:::{bucket}"),
        }));
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

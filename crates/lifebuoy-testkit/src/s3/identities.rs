//! The identities of a server and their policies, as a cloud has them: a second
//! process of versitygw, which the first one asks what each may do. Policies
//! are taken word for word, and refused for what AWS refuses in them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;

use super::signed::{self, Answer, S3Key};
use super::{READY_POLL, START_ATTEMPTS_MAX, START_LIMIT, port_was_taken};
use crate::ports;
use crate::process::{Process, ProcessSpec};

const API_VERSION: &str = "2010-05-08";

/// The running service. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Identities {
    process: Process,
    endpoint: String,
    socket: String,
    root: S3Key,
}

impl Identities {
    /// Starts the service, with its files in `folder`.
    pub(super) async fn start(program: &Path, folder: &Path, root: &S3Key) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let log = folder.join("versitygw-iam.log");
            match Self::attempt(program, folder, root, &log).await {
                Ok(started) => return Ok(started),
                Err(_) if attempt < START_ATTEMPTS_MAX && port_was_taken(&log) => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(program: &Path, folder: &Path, root: &S3Key, log: &PathBuf) -> Result<Self> {
        let data = folder.join("identities");
        fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let address = format!("127.0.0.1:{}", ports::free()?);
        // A name outside of the file system, where the paths of tests are too long.
        let socket = format!("@lifebuoy-testkit-{:016x}", rand::random::<u64>());
        let spec = ProcessSpec::new("versitygw iam", program, log)
            .args(["--port", &address, "--quiet", "iam", "--dir"])
            .arg(data)
            .args(["--private-ports", &socket])
            .env("ROOT_ACCESS_KEY", &root.access_key)
            .env("ROOT_SECRET_KEY", &root.secret_key)
            .env("VGW_REGION", super::REGION);
        let mut service = Self {
            process: Process::spawn(spec)?,
            endpoint: format!("http://{address}"),
            socket,
            root: root.clone(),
        };
        let started = Instant::now();
        loop {
            service.process.check_running()?;
            if service.call("ListUsers", &[]).await.is_ok() {
                return Ok(service);
            }
            if started.elapsed() > START_LIMIT {
                bail!(
                    "versitygw iam does not answer; its log is {}",
                    log.display()
                );
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// Where the S3 server asks.
    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    /// A new identity with one policy, and its key.
    pub(super) async fn create(&self, name: &str, policy: &str) -> Result<S3Key> {
        self.call("CreateUser", &[("UserName", name)]).await?;
        let policy = [
            ("UserName", name),
            ("PolicyName", name),
            ("PolicyDocument", policy),
        ];
        self.call("PutUserPolicy", &policy)
            .await
            .with_context(|| format!("the policy of {name} was refused"))?;
        let made = self.call("CreateAccessKey", &[("UserName", name)]).await?;
        let part = |name| made.element(name);
        Ok(S3Key {
            access_key: part("AccessKeyId").context("the new key has no id")?,
            secret_key: part("SecretAccessKey").context("the new key has no secret")?,
        })
    }

    async fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Answer> {
        let mut form = format!("Action={action}&Version={API_VERSION}");
        for (name, value) in parameters {
            write!(form, "&{name}={}", percent_encoded(value))?;
        }
        let request = Request::post("/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from(form))?;
        signed::send(&self.endpoint, "iam", &self.root, request)
            .await?
            .success()
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Writing to a String does not fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_carry_any_text() {
        assert_eq!(percent_encoded("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(
            percent_encoded("{\"a\": ü&}"),
            "%7B%22a%22%3A%20%C3%BC%26%7D"
        );
    }
}

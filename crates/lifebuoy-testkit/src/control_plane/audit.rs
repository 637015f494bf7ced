//! Counts what clients ask of an API server, from its audit log. Bodies are
//! never logged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One line for each finished request, with no body.
pub(super) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
omitManagedFields: true
rules:
- level: Metadata
";

/// How many requests each user made, by verb.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    by_user: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct Event {
    verb: String,
    user: User,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

impl RequestCounts {
    pub(super) fn read(log: &Path) -> Result<Self> {
        let file = File::open(log).with_context(|| {
            format!(
                "no audit log at {}: was the option `audit` on?",
                log.display()
            )
        })?;
        let mut counts = Self::default();
        for line in BufReader::new(file).lines() {
            // The last line may still be in the making.
            if let Ok(event) = serde_json::from_str::<Event>(&line?) {
                let verbs = counts.by_user.entry(event.user.username).or_default();
                *verbs.entry(event.verb).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// The requests of one user by verb (`list`, `create`, `watch` …).
    pub fn of(&self, user: &str) -> BTreeMap<String, u64> {
        self.by_user.get(user).cloned().unwrap_or_default()
    }

    /// The users who asked for anything.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.by_user.keys().map(String::as_str)
    }
}

//! ServiceAccounts and the Secrets with their tokens.

use serde_json::Value;

/// What the tokens controller writes into a token's Secret. With the uid of
/// another cluster's account it would delete the Secret.
const TOKEN_DATA: &[&str] = &["token", "ca.crt", "namespace"];

/// Drops a captured token: the target's controller makes its own.
pub(super) fn token_secret(body: &mut Value) {
    if body["type"] == "kubernetes.io/service-account-token" {
        super::remove_key(body, "", "data", |key| TOKEN_DATA.contains(&key));
    }
}

/// Drops references to Secrets that old clusters and OpenShift make by themselves.
pub(super) fn service_account(body: &mut Value, name: &str) {
    let made = [format!("{name}-token-"), format!("{name}-dockercfg-")];
    for field in ["secrets", "imagePullSecrets"] {
        let Some(body) = body.as_object_mut() else {
            return;
        };
        if let Some(Value::Array(secrets)) = body.get_mut(field) {
            secrets.retain(|secret| {
                !secret["name"]
                    .as_str()
                    .is_some_and(|name| made.iter().any(|prefix| name.starts_with(prefix)))
            });
            if secrets.is_empty() {
                body.remove(field);
            }
        }
    }
}

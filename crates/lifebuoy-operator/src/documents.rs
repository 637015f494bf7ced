//! Plans and reports as Secrets: pieces of one gzip file, owned by the request,
//! so that whoever may read it may read them, and they go with it.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use lifebuoy_api::{DOCUMENT_LABEL, Restore};

use crate::Error;

/// How large one piece is, in bytes: an object may have 1 MiB altogether, and
/// bytes grow by a third in JSON, which is not counted.
const PIECE_BYTES: usize = 900 * 1024;
/// How many pieces a document may have.
const PIECES_MAX: usize = 16;
/// The longest name of an object, less what is added for a piece.
const NAME_BYTES_MAX: usize = 253 - "-report-15".len();
/// The key that holds a piece.
const KEY: &str = "document.gz";

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Plan,
    Report,
}

impl Document {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Report => "report",
        }
    }
}

/// Stores a document for a Restore; gives the names of its Secrets in their
/// order. What was stored before under these names is replaced.
///
/// # Errors
/// When it is larger than sixteen Secrets hold, or the API server fails.
pub(crate) async fn store(
    client: &Client,
    owner: &Restore,
    kind: Document,
    bytes: &[u8],
) -> Result<Vec<String>, Error> {
    let pieces: Vec<&[u8]> = bytes.chunks(PIECE_BYTES).collect();
    if pieces.len() > PIECES_MAX {
        return Err(Error::Internal(format!(
            "the {} has {} bytes compressed, and {} at most can be kept in Secrets; restore in \
             several parts, with narrower selections",
            kind.as_str(),
            bytes.len(),
            PIECES_MAX * PIECE_BYTES
        )));
    }
    let secrets = api_of(client, owner);
    let mut names = Vec::new();
    for (at, piece) in pieces.into_iter().enumerate() {
        let secret = secret(owner, kind, at, piece);
        names.push(secret.name_any());
        put(&secrets, secret).await?;
    }
    Ok(names)
}

/// Reads a document back.
///
/// # Errors
/// When a piece is missing or is not owned by the Restore, or the API server fails.
pub(crate) async fn load(
    client: &Client,
    owner: &Restore,
    names: &[String],
) -> Result<Vec<u8>, Error> {
    let secrets = api_of(client, owner);
    let mut bytes = Vec::new();
    for name in names.iter().take(PIECES_MAX) {
        let secret = secrets
            .get(name)
            .await
            .map_err(|error| Error::kube("read a plan", error))?;
        if !owned_by(&secret, owner) {
            return Err(Error::Internal(format!(
                "the Secret {name} is not of this Restore"
            )));
        }
        let piece = secret
            .data
            .unwrap_or_default()
            .remove(KEY)
            .unwrap_or_default();
        bytes.extend_from_slice(&piece.0);
    }
    Ok(bytes)
}

fn api_of(client: &Client, owner: &Restore) -> Api<Secret> {
    Api::namespaced(client.clone(), &owner.namespace().unwrap_or_default())
}

fn owned_by(secret: &Secret, owner: &Restore) -> bool {
    let uid = owner.uid().unwrap_or_default();
    secret
        .owner_references()
        .iter()
        .any(|reference| reference.uid == uid)
}

fn secret(owner: &Restore, kind: Document, at: usize, piece: &[u8]) -> Secret {
    let mut name = owner.name_any();
    name.truncate(NAME_BYTES_MAX);
    let reference = owner.controller_owner_ref(&());
    Secret {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}-{}-{at}",
                name.trim_end_matches(['-', '.']),
                kind.as_str()
            )),
            labels: Some(BTreeMap::from([(
                DOCUMENT_LABEL.to_owned(),
                kind.as_str().to_owned(),
            )])),
            owner_references: reference.map(|owner| {
                vec![OwnerReference {
                    block_owner_deletion: Some(false),
                    ..owner
                }]
            }),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(
            KEY.to_owned(),
            ByteString(piece.to_vec()),
        )])),
        type_: Some("lifebuoy.dev/document".to_owned()),
        ..Secret::default()
    }
}

async fn put(secrets: &Api<Secret>, mut secret: Secret) -> Result<(), Error> {
    let name = secret.name_any();
    let failed = |error| Error::kube(format!("write the Secret {name}"), error);
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(failed(error)),
    }
    let there = secrets.get(&name).await.map_err(failed)?;
    let same_owner = there.owner_references().first().map(|owner| &owner.uid)
        == secret.owner_references().first().map(|owner| &owner.uid);
    if !same_owner {
        return Err(Error::Internal(format!(
            "a Secret named {name} is there, and is not of this Restore: delete it, or give the \
             Restore another name"
        )));
    }
    secret.metadata.resource_version = there.metadata.resource_version;
    secrets
        .replace(&name, &PostParams::default(), &secret)
        .await
        .map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::{RestoreSource, RestoreSpec};

    use super::*;

    #[test]
    fn the_longest_name_of_a_restore_leaves_room_for_its_documents() {
        let spec: RestoreSpec = serde_json::from_value(serde_json::json!({
            "from": RestoreSource::default(),
        }))
        .unwrap();
        let owner = Restore::new(&"r".repeat(253), spec);
        for kind in [Document::Plan, Document::Report] {
            let name = secret(&owner, kind, PIECES_MAX - 1, b"x").name_any();
            assert!(name.len() <= 253, "{}", name.len());
        }
    }
}

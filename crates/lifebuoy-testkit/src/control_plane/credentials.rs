//! The secrets of one control plane: the administrator's token and the key
//! that signs ServiceAccount tokens. All random, all in its folder.

use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The file with the key that signs ServiceAccount tokens.
pub(super) const PRIVATE_KEY: &str = "service-accounts.key";
/// The file with the key that checks them.
pub(super) const PUBLIC_KEY: &str = "service-accounts.pub";
/// The file with the tokens of users.
pub(super) const TOKENS: &str = "tokens.csv";

/// Columns of a PEM line.
const PEM_COLUMNS: usize = 64;

#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) admin_token: String,
}

impl Credentials {
    /// Writes fresh credentials below `folder`.
    pub(super) fn write(folder: &Path) -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| anyhow!("cannot make a key pair"))?;
        let private = pair
            .to_pkcs8v1()
            .map_err(|_| anyhow!("cannot encode a key"))?;
        let public: PublicKeyX509Der<'_> = pair
            .public_key()
            .as_der()
            .map_err(|_| anyhow!("cannot encode a key"))?;
        fs::write(
            folder.join(PRIVATE_KEY),
            pem("PRIVATE KEY", private.as_ref()),
        )?;
        fs::write(folder.join(PUBLIC_KEY), pem("PUBLIC KEY", public.as_ref()))?;

        let admin_token = format!("{:032x}", rand::random::<u128>());
        let line = format!("{admin_token},admin,admin,\"system:masters\"\n");
        fs::write(folder.join(TOKENS), line)?;
        Ok(Self { admin_token })
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(PEM_COLUMNS));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

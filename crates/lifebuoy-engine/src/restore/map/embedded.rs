//! Documents inside Secrets and ConfigMaps that hold names: Helm's releases and
//! the credentials of image registries. Never shows what it reads.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};

use super::{Findings, Mapper};

/// No release that fits into a Secret is larger than this, in bytes.
const RELEASE_MAX_BYTES: u64 = 64 << 20;

/// Maps what stands in the data of a Secret or ConfigMap of a known type.
pub(super) fn map_secret(
    mapper: &Mapper,
    group: &str,
    kind: &str,
    body: &mut Value,
    findings: &mut Findings,
) {
    if !group.is_empty() || !matches!(kind, "Secret" | "ConfigMap") {
        return;
    }
    let helm = kind == "ConfigMap" && body["metadata"]["labels"]["owner"] == "helm";
    let (field, map): (&str, fn(&Mapper, &mut Value) -> Mapped) = match body["type"].as_str() {
        Some("helm.sh/release.v1") => ("release", |m, v| map_release(m, v, Wrapped::Twice)),
        Some("kubernetes.io/dockerconfigjson") => {
            (".dockerconfigjson", |m, v| map_registries(m, v, true))
        }
        Some("kubernetes.io/dockercfg") => (".dockercfg", |m, v| map_registries(m, v, false)),
        _ if helm => ("release", |m, v| map_release(m, v, Wrapped::Once)),
        _ => return,
    };
    let Some(value) = body.get_mut("data").and_then(|data| data.get_mut(field)) else {
        return;
    };
    let result = map(mapper, value);
    match result {
        Ok(None) => {}
        Ok(Some(note)) => {
            findings.changed = true;
            findings.notes.push(note.to_owned());
        }
        Err(what) => findings
            .notes
            .push(format!("{what} cannot be read, and was left as it is")),
    }
}

/// The note that comes with a change; nothing where nothing changed; what it
/// is that cannot be read.
type Mapped = Result<Option<&'static str>, &'static str>;

/// How a release is encoded in base64: a Secret's data is so once more.
#[derive(Clone, Copy, PartialEq)]
enum Wrapped {
    Once,
    Twice,
}

fn map_release(mapper: &Mapper, value: &mut Value, wrapped: Wrapped) -> Mapped {
    if mapper.namespaces.is_empty() {
        return Ok(None);
    }
    const WHAT: &str = "the Helm release";
    let text = value.as_str().ok_or(WHAT)?;
    let mut bytes = STANDARD.decode(text).map_err(|_| WHAT)?;
    if wrapped == Wrapped::Twice {
        bytes = STANDARD.decode(&bytes).map_err(|_| WHAT)?;
    }
    let mut json = Vec::new();
    GzDecoder::new(&*bytes)
        .take(RELEASE_MAX_BYTES)
        .read_to_end(&mut json)
        .map_err(|_| WHAT)?;
    let mut release: Value = serde_json::from_slice(&json).map_err(|_| WHAT)?;
    let Some(mapped) = release["namespace"]
        .as_str()
        .and_then(|name| mapper.namespace(name))
    else {
        return Ok(None);
    };
    release["namespace"] = Value::String(mapped);
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    serde_json::to_writer(&mut packed, &release).map_err(|_| WHAT)?;
    packed.flush().map_err(|_| WHAT)?;
    let mut encoded = STANDARD.encode(packed.finish().map_err(|_| WHAT)?);
    if wrapped == Wrapped::Twice {
        encoded = STANDARD.encode(encoded);
    }
    *value = Value::String(encoded);
    Ok(Some(
        "the namespace of the Helm release was mapped; the manifests stored inside it were not, until the next `helm upgrade`",
    ))
}

fn map_registries(mapper: &Mapper, value: &mut Value, nested: bool) -> Mapped {
    if mapper.images.is_empty() {
        return Ok(None);
    }
    const WHAT: &str = "the list of registries";
    let bytes = STANDARD
        .decode(value.as_str().ok_or(WHAT)?)
        .map_err(|_| WHAT)?;
    let mut config: Value = serde_json::from_slice(&bytes).map_err(|_| WHAT)?;
    let registries = if nested {
        config.get_mut("auths")
    } else {
        Some(&mut config)
    };
    let Some(Value::Object(registries)) = registries else {
        return Err(WHAT);
    };
    if !rename_registries(mapper, registries) {
        return Ok(None);
    }
    *value = Value::String(STANDARD.encode(config.to_string()));
    Ok(Some(
        "credentials of an image registry were put under its mapped name: check that they are valid there",
    ))
}

/// Renames the registries that a mapping moves as a whole; an entry that
/// exists under the new name wins.
fn rename_registries(mapper: &Mapper, registries: &mut Map<String, Value>) -> bool {
    let moves: Vec<(String, String)> = registries
        .keys()
        .filter_map(|key| {
            let (scheme, address) = key
                .split_once("://")
                .map_or((None, key.as_str()), |(s, a)| (Some(s), a));
            let (host, rest) = address.split_at(address.find('/').unwrap_or(address.len()));
            let new = mapper.images.map_registry(host)?;
            let scheme = scheme.map_or(String::new(), |scheme| format!("{scheme}://"));
            Some((key.clone(), format!("{scheme}{new}{rest}")))
        })
        .collect();
    for (old, new) in &moves {
        if let Some(credentials) = registries.remove(old) {
            registries.entry(new.clone()).or_insert(credentials);
        }
    }
    !moves.is_empty()
}

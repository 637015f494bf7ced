//! A plan as a document: gzip of JSON lines, so that people can read it with
//! `gunzip` and programs line by line. Equal plans have equal bytes.
//!
//! The first line is the head with the types, each further line is an entry.

use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use lifebuoy_api::{ExistingPolicy, Problem, Reason};
use lifebuoy_repo::SessionId;
use serde::{Deserialize, Serialize};

use super::plan::PLAN_VERSION;
use super::{Action, Entry, Interner, Key, LeftOut, Plan, PlanDigest, PlannedType};
use crate::Error;

const WHAT: &str = "the plan";

/// The longest line of a plan, in bytes: the head has a line per type.
const LINE_MAX_BYTES: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    version: u32,
    snapshot: String,
    digest: PlanDigest,
    objects: usize,
    types: Vec<PlannedType>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<LeftOut>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    /// The type, as people write it; for people only.
    #[serde(rename = "type", skip_deserializing)]
    of: String,
    kind: u32,
    wave: u8,
    from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    action: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    message: Box<str>,
    existing: ExistingPolicy,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    serves: bool,
    #[serde(default, skip_serializing_if = "<[u32]>::is_empty")]
    needs: Box<[u32]>,
    body: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "<[Box<str>]>::is_empty")]
    notes: Box<[Box<str>]>,
}

impl Plan {
    /// The plan as a document.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form, and memory does not fail.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let broken =
            |error: std::io::Error| Error::Internal(format!("cannot write {WHAT}: {error}"));
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        let head = self.head();
        write_line(&mut out, &head).map_err(broken)?;
        for entry in &self.entries {
            write_line(&mut out, &self.line(entry)).map_err(broken)?;
        }
        out.finish().map_err(broken)
    }

    /// The plan as one JSON value, for programs: the head with `summary` and
    /// `entries`.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_json(&self) -> Result<serde_json::Value, Error> {
        let broken =
            |error: serde_json::Error| Error::Internal(format!("cannot write {WHAT}: {error}"));
        let lines: Vec<Line> = self.entries.iter().map(|entry| self.line(entry)).collect();
        let mut plan = serde_json::to_value(self.head()).map_err(broken)?;
        plan["summary"] = serde_json::to_value(self.summary()).map_err(broken)?;
        plan["entries"] = serde_json::to_value(lines).map_err(broken)?;
        Ok(plan)
    }

    fn head(&self) -> Head {
        Head {
            version: self.version,
            snapshot: self.snapshot.to_string(),
            digest: self.digest.clone(),
            objects: self.entries.len(),
            types: self.types.clone(),
            left_out: self.left_out.clone(),
            problems: self.problems.clone(),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Error::TooNew`] for a plan of a newer version, [`Error::Damaged`] for
    /// what is no plan, or not the one that its digest says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut lines = BufReader::new(MultiGzDecoder::new(bytes));
        let head: Head = read_line(&mut lines)?.ok_or_else(|| damaged("it is empty"))?;
        if head.version > PLAN_VERSION {
            return Err(Error::TooNew {
                what: WHAT.to_owned(),
                found: head.version,
                known: PLAN_VERSION,
            });
        }
        let snapshot: SessionId = head
            .snapshot
            .parse()
            .map_err(|_| damaged("its snapshot is no session id"))?;
        let mut interner = Interner::default();
        let mut entries = Vec::new();
        while let Some(line) = read_line::<Line>(&mut lines)? {
            let entry = entry(line, &mut interner)?;
            let known = entry
                .needs
                .iter()
                .all(|need| (*need as usize) < entries.len());
            if entry.kind as usize >= head.types.len() || !known {
                return Err(damaged("an entry refers to what is not there"));
            }
            entries.push(entry);
        }
        let plan = Self {
            version: head.version,
            snapshot,
            types: head.types,
            entries,
            problems: head.problems,
            left_out: head.left_out,
            digest: head.digest,
        };
        if plan.entries.len() != head.objects || super::digest::digest(&plan) != plan.digest {
            return Err(damaged("it is not the one that its digest says"));
        }
        Ok(plan)
    }

    fn line(&self, entry: &Entry) -> Line {
        let (reason, message) = match &entry.action {
            Action::Withhold { reason, message } | Action::Refuse { reason, message } => {
                (reason.as_str().to_owned(), message.clone())
            }
            _ => (String::new(), Box::default()),
        };
        Line {
            of: self.type_of(entry).id.to_string(),
            kind: entry.kind,
            wave: entry.wave,
            from: entry.source.to_string(),
            to: (entry.source != entry.target).then(|| entry.target.to_string()),
            action: entry.action.as_str().to_owned(),
            reason,
            message,
            existing: entry.policy,
            serves: entry.serves,
            needs: entry.needs.clone(),
            body: entry
                .body
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            data_bytes: entry.fills,
            notes: entry.notes.clone(),
        }
    }
}

fn damaged(message: impl Into<String>) -> Error {
    Error::damaged(WHAT, message)
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn read_line<T: serde::de::DeserializeOwned>(lines: &mut impl BufRead) -> Result<Option<T>, Error> {
    use std::io::Read;
    let mut line = Vec::new();
    lines
        .by_ref()
        .take(LINE_MAX_BYTES)
        .read_until(b'\n', &mut line)
        .map_err(|error| damaged(error.to_string()))?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|error| damaged(error.to_string()))
}

fn entry(line: Line, interner: &mut Interner) -> Result<Entry, Error> {
    let source = key(&line.from, interner);
    let target = line.to.map_or_else(
        || source.clone(),
        |to| {
            let mut target = key(&to, interner);
            if target.name == source.name {
                target.name = Arc::clone(&source.name);
            }
            target
        },
    );
    Ok(Entry {
        kind: line.kind,
        wave: line.wave,
        source,
        target,
        action: action(&line.action, &line.reason, line.message)?,
        policy: line.existing,
        serves: line.serves,
        needs: line.needs,
        body: hash(&line.body)?,
        fills: line.data_bytes,
        notes: line.notes,
    })
}

fn key(text: &str, interner: &mut Interner) -> Key {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    interner.key(namespace, name)
}

fn action(word: &str, reason: &str, message: Box<str>) -> Result<Action, Error> {
    let reason = || {
        Reason::ALL
            .iter()
            .copied()
            .find(|known| known.as_str() == reason)
            .ok_or_else(|| damaged(format!("`{reason}` is no reason")))
    };
    Ok(match word {
        "create" => Action::Create,
        "merge" => Action::Merge,
        "replace" => Action::Replace,
        "skip" => Action::SkipExisting,
        "overwrite" => Action::Overwrite,
        "resume" => Action::Resume,
        "withhold" => Action::Withhold {
            reason: reason()?,
            message,
        },
        "refuse" => Action::Refuse {
            reason: reason()?,
            message,
        },
        _ => return Err(damaged(format!("`{word}` is no action"))),
    })
}

fn hash(text: &str) -> Result<[u8; 16], Error> {
    let mut hash = [0; 16];
    let digits = text.as_bytes();
    if digits.len() != 2 * hash.len() {
        return Err(damaged("a hash has another length"));
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok();
        *byte = pair
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or_else(|| damaged("a hash is not hexadecimal"))?;
    }
    Ok(hash)
}

/// The word for a policy, as a Restore spells it.
pub(crate) const fn policy_name(policy: ExistingPolicy) -> &'static str {
    match policy {
        ExistingPolicy::Skip => "Skip",
        ExistingPolicy::Merge => "Merge",
        ExistingPolicy::Replace => "Replace",
        ExistingPolicy::Fail => "Fail",
    }
}

/// Types as people write them: `deployments.apps`.
pub(crate) mod type_id {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::archive::TypeId;

    pub(crate) fn serialize<S: Serializer>(id: &TypeId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TypeId, D::Error> {
        let text = String::deserialize(from)?;
        let (resource, group) = text.split_once('.').unwrap_or((&text, ""));
        Ok(TypeId::new(group, resource))
    }
}

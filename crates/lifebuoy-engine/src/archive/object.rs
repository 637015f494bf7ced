//! One object out of an archive.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::ObjectKey;
use crate::Error;

/// One captured object, in the two columns in which it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedObject {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// The object as JSON, without `status`, `metadata.resourceVersion` and
    /// `metadata.managedFields`.
    pub stable: Bytes,
    /// These three as one JSON object with the fields `resourceVersion`,
    /// `managedFields` and `status`; each only if the object had it.
    pub volatile: Bytes,
}

impl ArchivedObject {
    /// The stable part, parsed.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is no JSON object.
    pub fn body(&self) -> Result<Value, Error> {
        Ok(Value::Object(self.parse(&self.stable)?))
    }

    /// The volatile part, parsed.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is no JSON object.
    pub fn volatile(&self) -> Result<Map<String, Value>, Error> {
        self.parse(&self.volatile)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Map<String, Value>, Error> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::damaged(format!("object {}", self.key), error.to_string()))
    }
}

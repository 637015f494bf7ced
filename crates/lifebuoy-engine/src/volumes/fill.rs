//! How a claim asks for the data that was saved of it: by a VolumeRestore, which its
//! `dataSourceRef` names. Pure.

use lifebuoy_api::GROUP;
use serde_json::{Value, json};

use super::{Size, VolumeMode, VolumeRecord, bytes_of_quantity};
use crate::archive::ObjectKey;

const KIND: &str = "VolumeRestore";
/// How much of a claim's name is in that of its VolumeRestore, in bytes.
const NAME_BYTES_MAX: usize = 60;
/// Hexadecimal digits that make the name one of its own.
const DIGITS: usize = 20;

/// What is done about a claim whose data was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    /// It asks for its data.
    Asks {
        /// What a person may want to know.
        note: Option<String>,
    },
    /// Its data comes from elsewhere, as the text says.
    Elsewhere(&'static str),
}

/// The size that a claim asks for.
pub(crate) fn requested(claim: &Value) -> Option<String> {
    claim
        .pointer("/spec/resources/requests/storage")
        .and_then(Value::as_str)
        .map(str::to_owned)
}

/// Lets a claim ask for its data, by a name that [`ask_by_name`] gives it later.
/// `captured` is the size that it asked for when it was captured.
///
/// # Errors
/// Why the claim, as mapping and transforms have made it, cannot hold the data.
pub(crate) fn fill(
    claim: &mut Value,
    captured: Option<&str>,
    record: &VolumeRecord,
) -> Result<Filling, String> {
    if let Some(elsewhere) = elsewhere(claim) {
        return Ok(Filling::Elsewhere(elsewhere));
    }
    check_volume(claim)?;
    check_mode(claim, record)?;
    let room = check_size(claim, captured, record)?;
    let kept = record.saved.kept().map(|kept| {
        format!(
            "its volume is made of {kept}, which only storage that has it can do: none of its \
             data is in the repository"
        )
    });
    let note = match (kept, room) {
        (Some(kept), Some(room)) => Some(format!("{kept}; {room}")),
        (kept, room) => kept.or(room),
    };
    if let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) {
        // A selector is about volumes that exist.
        spec.remove("selector");
        spec.insert(
            "dataSourceRef".to_owned(),
            json!({"apiGroup": GROUP, "kind": KIND}),
        );
    }
    Ok(Filling::Asks { note })
}

fn elsewhere(claim: &Value) -> Option<&'static str> {
    let spec = &claim["spec"];
    (!spec["dataSource"].is_null() || !spec["dataSourceRef"].is_null())
        .then_some("a transform says where its data comes from: the saved data is not restored")
}

/// What is on a volume that exists is nobody's to overwrite, and may be nothing at all: a
/// directory of a node of the other cluster.
fn check_volume(claim: &Value) -> Result<(), String> {
    match claim["spec"]["volumeName"].as_str() {
        None | Some("") => Ok(()),
        Some(name) => Err(format!(
            "it names the volume `{name}`, on which the saved data is not written: exclude \
             `persistentvolumes` and map its storage class, and it gets a volume of its own; or \
             say `volumes: Skip`, and it gets `{name}` with what is on it"
        )),
    }
}

fn check_mode(claim: &Value, record: &VolumeRecord) -> Result<(), String> {
    let block = claim["spec"]["volumeMode"] == "Block";
    match (record.volume_mode, block) {
        (VolumeMode::Block, false) => Err(
            "a block device was saved, and the claim is for a file system: leave its `volumeMode: Block`".to_owned(),
        ),
        (VolumeMode::Filesystem, true) => Err(
            "a file system was saved, and the claim is for a block device: leave its `volumeMode: Filesystem`".to_owned(),
        ),
        _ => Ok(()),
    }
}

/// Sees to it that there is room. A claim that no transform has changed asks for as
/// much as its volume had: storage may have given it more than it had asked for.
fn check_size(
    claim: &mut Value,
    captured: Option<&str>,
    record: &VolumeRecord,
) -> Result<Option<String>, String> {
    let now = requested(claim);
    let asked = now.as_deref().and_then(bytes_of_quantity);
    let bytes = record.saved.bytes();
    let capacity = match record.saved.kept() {
        Some(_) => record.capacity_bytes.max(bytes),
        None => record.capacity_bytes,
    };
    let Some(asked) = asked else {
        return Ok(None);
    };
    if now.as_deref() == captured {
        if asked < capacity
            && let Some(storage) = claim.pointer_mut("/spec/resources/requests/storage")
        {
            *storage = Value::String(capacity.to_string());
            return Ok(Some(format!(
                "it asks for {}, as large as its volume was",
                Size(capacity)
            )));
        }
        return Ok(None);
    }
    if asked < bytes {
        let (asked, bytes) = (Size(asked), Size(bytes));
        return Err(match record.saved.kept() {
            Some(kept) => format!(
                "it asks for {asked}, and a volume of {kept} has at least {bytes}: ask for more"
            ),
            None => format!("it asks for {asked}, and {bytes} were saved of it: ask for more"),
        });
    }
    let may_not_fit = record.saved.data().is_some() && asked < capacity;
    Ok(may_not_fit.then(|| {
        format!(
            "it asks for {}, less than its volume had ({}): its data ({}) may not fit",
            Size(asked),
            Size(capacity),
            Size(bytes)
        )
    }))
}

/// Completes what a claim asks for: the name follows from the restore and from the
/// claim, so whoever continues a restore finds what was begun.
pub(crate) fn ask_by_name(claim: &mut Value, restore_uid: &str, target: &ObjectKey) {
    if let Some(reference) = claim.pointer_mut("/spec/dataSourceRef") {
        reference["name"] = volume_restore_name(restore_uid, target).into();
    }
}

/// The name of the VolumeRestore that a restore makes for a claim of the target.
#[must_use]
pub fn volume_restore_name(restore_uid: &str, target: &ObjectKey) -> String {
    let mut hash = blake3::Hasher::new_derive_key("lifebuoy 2026 name of a VolumeRestore");
    for part in [restore_uid, &target.namespace, &target.name] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    // Names of objects are ASCII.
    let mut readable: String = target.name.chars().take(NAME_BYTES_MAX).collect();
    readable.truncate(readable.trim_end_matches(['-', '.']).len());
    format!("{readable}-{}", &hash.finalize().to_hex()[..DIGITS])
}

/// Takes back what a claim asks for: one that exists cannot be asked anew.
pub(crate) fn without_asking(claim: &mut Value) {
    let ours = |reference: &Value| reference["apiGroup"] == GROUP && reference["kind"] == KIND;
    let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if spec.get("dataSourceRef").is_some_and(ours) {
        spec.remove("dataSourceRef");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use lifebuoy_data::What;
    use lifebuoy_repo::{ChunkId, SessionId};

    use super::*;
    use crate::volumes::{KeptSnapshot, SavedBy, SavedData};

    pub(crate) fn record(change: impl FnOnce(&mut VolumeRecord)) -> VolumeRecord {
        let mut record = VolumeRecord {
            claim: ObjectKey::new("shop", "data"),
            storage_class: "fast".to_owned(),
            volume_mode: VolumeMode::Filesystem,
            access_modes: vec!["ReadWriteOnce".to_owned()],
            capacity_bytes: 10 << 30,
            saved: SavedBy::Move(SavedData {
                session: SessionId::from_bytes([1; 16]),
                root: ChunkId::from_bytes([2; 32]),
                kind: What::Files,
                entries: 7,
                bytes: 3 << 30,
                bytes_stored: 1 << 30,
                problems: 0,
            }),
            reason: String::new(),
        };
        change(&mut record);
        record
    }

    /// What a snapshot of the storage system is known by.
    pub(crate) fn kept() -> KeptSnapshot {
        KeptSnapshot {
            driver: "csi.example.com".to_owned(),
            handle: "snap-1".to_owned(),
            snapshot_class: "snap".to_owned(),
            restore_bytes: 6 << 30,
        }
    }

    fn claim(spec: Value) -> Value {
        json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec})
    }

    fn sized(size: &str) -> Value {
        claim(json!({"resources": {"requests": {"storage": size}}}))
    }

    /// What becomes of a claim that asked for 10Gi when it was captured.
    fn filled(mut body: Value, record: &VolumeRecord) -> String {
        match fill(&mut body, Some("10Gi"), record) {
            Ok(Filling::Asks { note }) => format!(
                "asks for {}: {}",
                requested(&body).unwrap_or_default(),
                note.unwrap_or_default()
            ),
            Ok(Filling::Elsewhere(text)) => text.to_owned(),
            Err(message) => format!("refused: {message}"),
        }
    }

    #[test]
    fn a_claim_must_have_room_for_its_data() {
        let saved = record(|_| {});
        let larger = record(|r| r.capacity_bytes = 20 << 30);
        let block = record(|r| r.volume_mode = VolumeMode::Block);
        insta::assert_snapshot!([
            filled(sized("10Gi"), &saved),
            filled(sized("10Gi"), &larger),
            filled(sized("50Gi"), &saved),
            filled(sized("5Gi"), &saved),
            filled(sized("2Gi"), &saved),
            filled(claim(json!({"volumeMode": "Block"})), &saved),
            filled(claim(json!({"volumeMode": "Filesystem"})), &block),
            filled(claim(json!({"volumeMode": "Block"})), &block),
            filled(claim(json!({"volumeName": "pv"})), &saved),
            filled(claim(json!({"dataSource": {"kind": "VolumeSnapshot", "name": "s"}})), &saved),
        ].join("\n"), @"
        asks for 10Gi: 
        asks for 21474836480: it asks for 20.0 GiB, as large as its volume was
        asks for 50Gi: 
        asks for 5Gi: it asks for 5.0 GiB, less than its volume had (10.0 GiB): its data (3.0 GiB) may not fit
        refused: it asks for 2.0 GiB, and 3.0 GiB were saved of it: ask for more
        refused: a file system was saved, and the claim is for a block device: leave its `volumeMode: Filesystem`
        refused: a block device was saved, and the claim is for a file system: leave its `volumeMode: Block`
        asks for : 
        refused: it names the volume `pv`, on which the saved data is not written: exclude `persistentvolumes` and map its storage class, and it gets a volume of its own; or say `volumes: Skip`, and it gets `pv` with what is on it
        a transform says where its data comes from: the saved data is not restored
        ");
    }

    #[test]
    fn a_volume_of_a_snapshot_is_no_smaller_than_the_storage_makes_it() {
        let saved = record(|r| r.saved = SavedBy::Snapshot(kept()));
        let larger = record(|r| {
            r.capacity_bytes = 4 << 30;
            r.saved = SavedBy::Snapshot(KeptSnapshot {
                restore_bytes: 12 << 30,
                ..kept()
            });
        });
        insta::assert_snapshot!([
            filled(sized("10Gi"), &saved),
            filled(sized("7Gi"), &saved),
            filled(sized("5Gi"), &saved),
            filled(sized("10Gi"), &larger),
        ].join("\n"), @"
        asks for 10Gi: its volume is made of the snapshot `snap-1` of the driver `csi.example.com`, which only storage that has it can do: none of its data is in the repository
        asks for 7Gi: its volume is made of the snapshot `snap-1` of the driver `csi.example.com`, which only storage that has it can do: none of its data is in the repository
        refused: it asks for 5.0 GiB, and a volume of the snapshot `snap-1` of the driver `csi.example.com` has at least 6.0 GiB: ask for more
        asks for 12884901888: its volume is made of the snapshot `snap-1` of the driver `csi.example.com`, which only storage that has it can do: none of its data is in the repository; it asks for 12.0 GiB, as large as its volume was
        ");
    }

    #[test]
    fn the_name_follows_from_the_restore_and_the_claim() {
        let key = ObjectKey::new("shop", "data-db-0");
        let first = volume_restore_name("r", &key);
        assert_eq!(first, volume_restore_name("r", &key));
        assert!(first.starts_with("data-db-0-"), "{first}");
        assert_ne!(first, volume_restore_name("s", &key));
        let elsewhere = ObjectKey::new("store", "data-db-0");
        assert_ne!(first, volume_restore_name("r", &elsewhere));
        let long = volume_restore_name(
            "r",
            &ObjectKey::new("shop", format!("{}.x", "a".repeat(59))),
        );
        assert!(long.len() <= NAME_BYTES_MAX + 1 + DIGITS && !long.contains(".-"));
    }

    #[test]
    fn a_claim_that_exists_is_not_asked_anew() {
        let mut body = sized("10Gi");
        fill(&mut body, Some("10Gi"), &record(|_| {})).unwrap();
        ask_by_name(&mut body, "r", &ObjectKey::new("shop", "data"));
        let reference = &body["spec"]["dataSourceRef"];
        assert_eq!(reference["apiGroup"], "lifebuoy.dev");
        assert!(reference["name"].as_str().unwrap().starts_with("data-"));
        without_asking(&mut body);
        assert_eq!(body, sized("10Gi"));
        let mut other = claim(json!({"dataSourceRef": {"kind": "VolumeSnapshot", "name": "s"}}));
        without_asking(&mut other);
        assert!(!other["spec"]["dataSourceRef"].is_null());
    }
}

//! What a mover is told, and what it says: JSON on both ways. Whatever a mover says was
//! written beside the data of strangers, so it is parsed as such, and is bounded.

use chrono::{DateTime, Utc};
use lifebuoy_api::bounded;
use lifebuoy_data::What;
use lifebuoy_repo::{ChunkId, Limits, Rate, SessionId};
use serde::{Deserialize, Serialize};

use super::access::RepositoryAccess;

/// Where a file system is in a mover's pod.
pub const FILES_PLACE: &str = "/volume";
/// Where a block device is in a mover's pod.
pub const DEVICE_PLACE: &str = "/dev/volume";
/// Where a mover finds its task.
pub const TASK_PLACE: &str = "/task/task.json";
/// The key of the task in its Secret.
pub const TASK_KEY: &str = "task.json";
/// Where a mover says how it has ended.
pub const TERMINATION_PLACE: &str = "/dev/termination-log";
/// What Kubernetes keeps of a termination message.
pub const MOVER_END_BYTES_MAX: usize = 4096;
/// Problems that a report has in words.
pub const EXAMPLES_MAX: usize = 5;
/// How long each is, in bytes.
const EXAMPLE_BYTES_MAX: usize = 256;
/// How long the sentence of a failure is, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// What a mover is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoverTask {
    /// The repository. With the passphrase: it is what makes the task a secret.
    pub repository: RepositoryAccess,
    /// What to do.
    pub work: Work,
    /// Send no more than so many bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_upload: Option<u64>,
    /// Receive no more than so many bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_download: Option<u64>,
}

/// What a mover does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Work {
    /// Saves the volume as a snapshot of its own session.
    Save {
        /// What the volume is.
        what: What,
        /// A session that was never begun.
        session: SessionId,
        /// The cluster that the session is one of.
        cluster_uid: String,
        /// What stands for the machine in the snapshot: the cluster's name.
        host: String,
        /// What the volume is called in the snapshot.
        path: String,
        /// When the data stood as it is, by the clock of the cluster.
        taken_at: DateTime<Utc>,
        /// A snapshot of the same volume: files that did not change since are not read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<SavedRoot>,
    },
    /// Brings a snapshot back into the volume, and compares what it has written.
    Restore {
        /// What the volume is.
        what: What,
        /// The snapshot.
        saved: SavedRoot,
    },
    /// Makes a volume on which there is something equal to a snapshot, and compares it. A work
    /// of its own: a mover that does not know it must not merely add to what is there.
    Overwrite {
        /// What the volume is.
        what: What,
        /// The snapshot.
        saved: SavedRoot,
    },
}

/// A snapshot of a volume. All that is needed to read it is its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedRoot {
    /// The session that has saved it.
    pub session: SessionId,
    /// Its first chunk.
    pub root: ChunkId,
}

/// What a mover has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MoverReport {
    /// Files, directories and whatever else; 1 for a device.
    pub entries: u64,
    /// The sizes of all files, or of the device.
    pub bytes: u64,
    /// Bytes among them that were there already.
    pub unchanged: u64,
    /// Bytes that were sent to the store.
    pub bytes_stored: u64,
    /// What was not saved, or not brought back as it was.
    pub problems: u64,
    /// Some of them in words.
    pub examples: Vec<String>,
    /// Of a save: the session that committed. It is the one that the report is of, whatever
    /// sessions the tries before had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Of a save: the first chunk of the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<ChunkId>,
}

/// How a mover has ended: its termination message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MoverEnd {
    /// It did what it could; the report says what it could not.
    Done(MoverReport),
    /// It did not.
    Failed {
        /// Why, in one sentence for a person.
        message: String,
        /// Whether the same may pass a little later, under another session.
        again: bool,
    },
    /// It was to overwrite a volume, and did not touch it.
    Untouched {
        /// Why, in one sentence for a person.
        message: String,
        /// Whether the same may pass a little later.
        again: bool,
    },
}

/// How far a mover is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MoverProgress {
    /// Files, directories and whatever else is done.
    pub entries: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// How many entries there are; 0 as long as that is unknown.
    pub entries_total: u64,
    /// How many bytes there are; 0 as long as that is unknown.
    pub bytes_total: u64,
    /// Bytes that were sent to the store.
    pub bytes_stored: u64,
}

/// Where one was in the end.
impl From<&MoverReport> for MoverProgress {
    fn from(report: &MoverReport) -> Self {
        Self {
            entries: report.entries,
            bytes: report.bytes,
            entries_total: report.entries,
            bytes_total: report.bytes,
            bytes_stored: report.bytes_stored,
        }
    }
}

/// A line of a mover's log that tells of progress.
#[derive(Serialize, Deserialize)]
struct ProgressLine {
    progress: MoverProgress,
}

impl MoverTask {
    /// How fast bytes may go. A limit below the slowest one that works is that one.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let rate = |bytes: u64| Rate::per_second(bytes).unwrap_or(Rate::SLOWEST);
        Limits {
            upload: self.limit_upload.map(rate),
            download: self.limit_download.map(rate),
        }
    }

    /// The session of a save.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match &self.work {
            Work::Save { session, .. } => Some(*session),
            Work::Restore { .. } | Work::Overwrite { .. } => None,
        }
    }

    /// The same under another session, if it is a save.
    #[must_use]
    pub fn with_session(mut self, id: SessionId) -> Self {
        if let Work::Save { session, .. } = &mut self.work {
            *session = id;
        }
        self
    }
}

impl MoverEnd {
    /// The termination message: no longer than [`MOVER_END_BYTES_MAX`], whatever names the
    /// files have that it speaks of.
    #[must_use]
    pub fn to_message(&self) -> String {
        let mut end = self.clone();
        match &mut end {
            Self::Done(report) => {
                report.examples.truncate(EXAMPLES_MAX);
                for example in &mut report.examples {
                    *example = bounded(example, EXAMPLE_BYTES_MAX);
                }
            }
            Self::Failed { message, .. } | Self::Untouched { message, .. } => {
                *message = bounded(message, MESSAGE_BYTES_MAX);
            }
        }
        loop {
            // Every field has a JSON form.
            let text = serde_json::to_string(&end).unwrap_or_default();
            if text.len() <= MOVER_END_BYTES_MAX {
                return text;
            }
            // Escapes make it longer: six bytes for one.
            match &mut end {
                Self::Done(report) => {
                    if report.examples.pop().is_none() {
                        return text;
                    }
                }
                Self::Failed { message, .. } | Self::Untouched { message, .. } => {
                    *message = bounded(message, message.len() / 2);
                }
            }
        }
    }

    /// Reads a termination message; none if it is none of ours.
    #[must_use]
    pub fn from_message(text: &str) -> Option<Self> {
        if text.len() > MOVER_END_BYTES_MAX {
            return None;
        }
        serde_json::from_str(text.trim()).ok()
    }
}

impl MoverProgress {
    /// A line of the log.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(&ProgressLine { progress: *self }).unwrap_or_default()
    }

    /// The last progress that a log tells of.
    #[must_use]
    pub fn last_of(log: &str) -> Option<Self> {
        let mut newest_first = log.lines().rev();
        newest_first
            .find_map(|line| serde_json::from_str::<ProgressLine>(line).ok())
            .map(|line| line.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(work: Work) -> MoverTask {
        MoverTask {
            repository: RepositoryAccess {
                url: "s3://bucket".to_owned(),
                endpoint: None,
                region: None,
                ca_pem: None,
                proxy: None,
                allow_http: false,
                credentials: [("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned())].into(),
                passphrase: "hunter2".to_owned(),
            },
            work,
            limit_upload: Some(1),
            limit_download: None,
        }
    }

    fn save() -> Work {
        Work::Save {
            what: What::Files,
            session: SessionId::from_bytes([1; 16]),
            cluster_uid: "uid".to_owned(),
            host: "frankfurt".to_owned(),
            path: "shop/data".to_owned(),
            taken_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            before: Some(SavedRoot {
                session: SessionId::from_bytes([2; 16]),
                root: ChunkId::from_bytes([3; 32]),
            }),
        }
    }

    #[test]
    fn a_task_is_read_as_it_was_written_and_prints_no_secret() {
        for work in [
            save(),
            Work::Overwrite {
                what: What::Files,
                saved: SavedRoot {
                    session: SessionId::from_bytes([2; 16]),
                    root: ChunkId::from_bytes([3; 32]),
                },
            },
            Work::Restore {
                what: What::Device,
                saved: SavedRoot {
                    session: SessionId::from_bytes([2; 16]),
                    root: ChunkId::from_bytes([3; 32]),
                },
            },
        ] {
            let task = task(work);
            let json = serde_json::to_string(&task).unwrap();
            assert_eq!(serde_json::from_str::<MoverTask>(&json).unwrap(), task);
            assert!(!format!("{task:?}").contains("hunter2"));
            assert_eq!(task.limits().upload, Some(Rate::SLOWEST));
        }
    }

    #[test]
    fn a_task_gets_another_session_if_it_has_one() {
        let other = SessionId::from_bytes([9; 16]);
        assert_eq!(task(save()).with_session(other).session(), Some(other));
    }

    #[test]
    fn an_end_fits_into_a_termination_message_whatever_it_speaks_of() {
        let odd = "\u{1}".repeat(10_000);
        let report = MoverReport {
            problems: 7,
            examples: vec![odd.clone(); 7],
            root: Some(ChunkId::from_bytes([3; 32])),
            ..MoverReport::default()
        };
        for end in [
            MoverEnd::Done(report),
            MoverEnd::Failed {
                message: odd,
                again: true,
            },
        ] {
            let text = end.to_message();
            assert!(text.len() <= MOVER_END_BYTES_MAX, "{}", text.len());
            match (MoverEnd::from_message(&text).unwrap(), end) {
                (MoverEnd::Done(read), MoverEnd::Done(wrote)) => {
                    assert_eq!((read.problems, read.root), (7, wrote.root));
                    assert!(!read.examples.is_empty());
                }
                (MoverEnd::Failed { again, .. }, MoverEnd::Failed { .. }) => assert!(again),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_end_is_none() {
        for text in ["", "{}", "panicked", "{\"done\":7}", &"x".repeat(5000)] {
            assert_eq!(MoverEnd::from_message(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_progress_of_a_log_counts() {
        let at = |entries| MoverProgress {
            entries,
            ..MoverProgress::default()
        };
        let log = format!(
            "{}\nwarning: odd\n{}\n{{\"progress\": 7}}\nthe end",
            at(1).to_line(),
            at(2).to_line()
        );
        assert_eq!(MoverProgress::last_of(&log), Some(at(2)));
        assert_eq!(MoverProgress::last_of("nothing\n"), None);
    }
}

//! `lifebuoy mover`: what runs in the Jobs that the operator makes. Saves one volume into
//! the repository, or brings one back, as its task says; tells of progress on standard
//! output and of its end in the termination message. Never talks to the API server, and
//! tries nothing again itself: the operator knows what may be.

use std::{
    convert::Infallible,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lifebuoy_data::{
    DataSummary, Excludes, Existing, PARTS_EVERY, Problem, Progress, RestoreDeviceRequest,
    RestoreRequest, SaveDeviceRequest, SaveRequest, TreePath, VerifyRequest, What,
    restore as restore_files, restore_device, save as save_files, save_device, verify,
};
use lifebuoy_engine::volumes::{
    DEVICE_PLACE, EXAMPLES_MAX, FILES_PLACE, MoverEnd, MoverProgress, MoverReport, MoverTask,
    SavedRoot, Work,
};
use lifebuoy_repo::{LABEL_BYTES_MAX, Purpose, Repository, SessionRequest};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::MoverArgs, error::Error, exit::Exit, logging};

const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// At the top of ext2, ext3 and ext4 only: `fsck` keeps there what it finds without a name.
/// It is made with the file system, is nobody's data, and would be in the way of a restore
/// to any other file system.
const LOST_AND_FOUND: &str = "/lost+found/";

/// Moves one volume.
///
/// # Errors
/// Only what comes before it knows where to say how it has ended.
pub(crate) async fn run(args: &MoverArgs) -> Result<Exit, Error> {
    logging::start(&args.log)?;
    let listen = |kind| signal(kind).map_err(|source| Error::io("listen for signals", source));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let done = Arc::new(Progress::default());
    let end = tokio::select! {
        biased;
        // At once: what was committed in parts is found by whoever is next.
        _ = terminate.recv() => told_to_end(),
        _ = interrupt.recv() => told_to_end(),
        end = work(args, &done) => end,
        never = tell(&done) => match never {},
    };
    match &end {
        MoverEnd::Done(report) => tracing::info!(?report, "done"),
        MoverEnd::Failed { message, again } => tracing::error!(again, "{message}"),
        MoverEnd::Untouched { message, again } => {
            tracing::error!(again, "{message}; nothing was changed");
        }
    }
    for warning in done.warnings() {
        tracing::warn!("{warning}");
    }
    fs::write(&args.end, end.to_message())
        .map_err(|source| Error::io(format!("write {}", args.end.display()), source))?;
    Ok(match end {
        MoverEnd::Done(_) => Exit::Done,
        MoverEnd::Failed { .. } | MoverEnd::Untouched { .. } => Exit::Failed,
    })
}

fn told_to_end() -> MoverEnd {
    MoverEnd::Failed {
        message: "the mover was told to end".to_owned(),
        again: true,
    }
}

/// Tells how far it is, for as long as it is asked.
async fn tell(done: &Progress) -> Infallible {
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        let now = done.done();
        let line = MoverProgress {
            entries: now.entries,
            bytes: now.bytes,
            entries_total: now.entries_total,
            bytes_total: now.bytes_total,
            bytes_stored: now.stored,
        }
        .to_line();
        // Nobody has to listen.
        let _ = writeln!(io::stdout(), "{line}");
    }
}

async fn work(args: &MoverArgs, done: &Arc<Progress>) -> MoverEnd {
    let task = match read_task(&args.task) {
        Ok(task) => task,
        Err(error) => return failed(&error, false, false),
    };
    let overwrites = matches!(task.work, Work::Overwrite { .. });
    let repo = match task.repository.open(task.limits()).await {
        Ok(repo) => repo,
        Err(error) => {
            let error = Error::from(error);
            return failed(&error, overwrites, may_pass(&error));
        }
    };
    match try_work(args, &repo, &task.work, done).await {
        Ok(report) => MoverEnd::Done(report),
        Err(error) => {
            let again = may_pass(&error) || is_refused(&error);
            failed(&error, overwrites && !done.writes(), again)
        }
    }
}

fn failed(error: &Error, untouched: bool, again: bool) -> MoverEnd {
    let message = match error.hint() {
        Some(hint) => format!("{}; {hint}", error.line()),
        None => error.line(),
    };
    if untouched {
        MoverEnd::Untouched { message, again }
    } else {
        MoverEnd::Failed { message, again }
    }
}

async fn try_work(
    args: &MoverArgs,
    repo: &Repository,
    work: &Work,
    done: &Arc<Progress>,
) -> Result<MoverReport, Error> {
    let place = |what| match (&args.volume, what) {
        (Some(place), _) => place.clone(),
        (None, What::Files) => FILES_PLACE.into(),
        (None, What::Device) => DEVICE_PLACE.into(),
    };
    match work {
        Work::Save { what, .. } => save(repo, work, place(*what), done).await,
        // What is there else stays, such as the `lost+found` of a new file system.
        Work::Restore { what, saved } => {
            restore(repo, *what, *saved, place(*what), Existing::Resume, done).await
        }
        Work::Overwrite { what, saved } => {
            restore(repo, *what, *saved, place(*what), Existing::Overwrite, done).await
        }
    }
}

/// What is wrong with a task is said without a word of what is in it.
fn read_task(path: &Path) -> Result<MoverTask, Error> {
    let wrong = |message: String| Error::File {
        path: path.display().to_string(),
        message,
    };
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| {
        wrong(format!(
            "not a task that this version knows, at line {}, column {}",
            error.line(),
            error.column()
        ))
    })
}

async fn save(
    repo: &Repository,
    work: &Work,
    place: PathBuf,
    done: &Arc<Progress>,
) -> Result<MoverReport, Error> {
    let Work::Save {
        what,
        session,
        cluster_uid,
        host,
        path,
        taken_at,
        before,
    } = work
    else {
        return Ok(MoverReport::default());
    };
    let label = lifebuoy_api::bounded(path, LABEL_BYTES_MAX);
    let request = SessionRequest {
        id: *session,
        cluster: repo.cluster_key(cluster_uid),
        purpose: Purpose::Backup,
        label: label.into_bytes().into(),
    };
    let summary = DataSummary::new(*what, host.clone(), path.clone(), *taken_at);
    let saved = match what {
        What::Device => {
            let device = SaveDeviceRequest {
                place,
                summary,
                // Nobody knows what has changed: all of it is read, and what the
                // repository has is not sent.
                before: None,
                parts_every: PARTS_EVERY,
            };
            save_device(repo, request, device, Arc::clone(done)).await?
        }
        What::Files => {
            let files = SaveRequest {
                place,
                summary,
                excludes: Excludes::new([LOST_AND_FOUND])
                    .map_err(|error| Error::document("a pattern", error))?,
                // Nothing but the volume is there. Subvolumes look like other file
                // systems, and belong to it.
                one_file_system: false,
                before: before.map(|before| before.root),
                parts_every: PARTS_EVERY,
            };
            save_files(repo, request, files, Arc::clone(done)).await?
        }
    };
    let now = done.done();
    Ok(MoverReport {
        entries: saved.summary.entries,
        bytes: saved.summary.bytes,
        unchanged: now.unchanged,
        bytes_stored: now.stored,
        problems: saved.summary.problems,
        examples: examples(&done.problems_in_words(), &[]),
        session: Some(*session),
        root: Some(saved.snapshot.root),
    })
}

/// Restores over what is there, which a try before may have left.
async fn restore(
    repo: &Repository,
    what: What,
    saved: SavedRoot,
    place: PathBuf,
    existing: Existing,
    done: &Arc<Progress>,
) -> Result<MoverReport, Error> {
    let SavedRoot { session: _, root } = saved;
    let path = TreePath::default();
    let reader = Arc::new(repo.reader().await?);
    match what {
        What::Files => {
            let request = RestoreRequest {
                root,
                path: path.clone(),
                place: place.clone(),
                existing,
            };
            restore_files(Arc::clone(&reader), request, Arc::clone(done)).await?;
        }
        What::Device => {
            let request = RestoreDeviceRequest {
                root,
                place: place.clone(),
                existing,
            };
            restore_device(Arc::clone(&reader), request, Arc::clone(done)).await?;
        }
    }
    let compared = Arc::new(Progress::default());
    let request = VerifyRequest { root, path, place };
    verify(reader, request, Arc::clone(&compared)).await?;
    let (now, differing) = (done.done(), compared.done().problems);
    Ok(MoverReport {
        entries: now.entries,
        bytes: now.bytes,
        unchanged: now.unchanged,
        bytes_stored: 0,
        // What could not be written differs as well.
        problems: now.problems.max(differing),
        examples: examples(&done.problems_in_words(), &compared.problems_in_words()),
        session: None,
        root: None,
    })
}

/// Some problems, those first that say why; each path once.
fn examples(first: &[Problem], second: &[Problem]) -> Vec<String> {
    let is_new = |problem: &&Problem| !first.iter().any(|known| known.path == problem.path);
    first
        .iter()
        .chain(second.iter().filter(is_new))
        .take(EXAMPLES_MAX)
        .map(|Problem { path, what }| format!("{path}: {what}"))
        .collect()
}

/// Whether the same may succeed a little later, maybe on another node, under a new session.
fn may_pass(error: &Error) -> bool {
    use lifebuoy_data::Error as DataError;
    use lifebuoy_repo::Error as RepoError;
    match error {
        Error::Repo(error) | Error::Data(DataError::Repository(error)) => {
            error.is_transient()
                // The session was used up by a try of which nobody knows.
                || matches!(error, RepoError::SessionExists { .. } | RepoError::Fenced { .. })
        }
        Error::Data(DataError::Internal(_)) => true,
        Error::Data(DataError::Place { source, .. }) => {
            // A disk or file server that was away. What is full or refused stays so.
            let away = [
                Errno::IO,
                Errno::NXIO,
                Errno::NODEV,
                Errno::STALE,
                Errno::TIMEDOUT,
                Errno::NOTCONN,
                Errno::HOSTUNREACH,
                Errno::HOSTDOWN,
                Errno::REMOTEIO,
            ];
            let code = source.raw_os_error();
            code.is_some_and(|code| away.iter().any(|errno| errno.raw_os_error() == code))
        }
        _ => false,
    }
}

/// Whether the store does not let us in any more, once it had: credentials that have
/// expired, or were changed. Each try is given those that are good when it begins.
fn is_refused(error: &Error) -> bool {
    use lifebuoy_data::Error as DataError;
    use lifebuoy_repo::Error as RepoError;
    let (Error::Repo(error) | Error::Data(DataError::Repository(error))) = error else {
        return false;
    };
    matches!(
        error,
        RepoError::Unauthenticated { .. } | RepoError::Denied { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(code: i32) -> Error {
        Error::Data(lifebuoy_data::Error::Place {
            what: "read",
            path: "/volume".into(),
            source: io::Error::from_raw_os_error(code),
        })
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let session = lifebuoy_repo::SessionId::from_bytes([1; 16]);
        assert!(may_pass(&lifebuoy_repo::Error::Outdated { session }.into()));
        assert!(may_pass(&lifebuoy_repo::Error::Fenced { session }.into()));
        assert!(!may_pass(&lifebuoy_repo::Error::WrongPassphrase.into()));
        assert!(may_pass(&place(Errno::IO.raw_os_error())));
        assert!(!may_pass(&place(Errno::NOSPC.raw_os_error())));
        assert!(!may_pass(&place(Errno::ACCESS.raw_os_error())));
    }

    #[test]
    fn examples_say_why_before_they_say_what() {
        let problem = |path: &str, what: &str| Problem {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let found = examples(
            &[problem("a", "no room")],
            &[problem("a", "differs"), problem("b", "differs")],
        );
        assert_eq!(found, ["a: no room", "b: differs"]);
    }

    #[test]
    fn a_task_that_makes_no_sense_is_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task.json");
        fs::write(&path, r#"{"repository": "hunter2"}"#).unwrap();
        let error = read_task(&path).unwrap_err().line();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

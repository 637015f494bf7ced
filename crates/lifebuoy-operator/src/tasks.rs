//! Work that runs beside the reconcilers: at most one task for a request, found
//! by the request's uid. Nothing here survives the process, and nothing has to.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span};

/// The tasks of one kind of request. `P` tells how far a task is, `O` how it ended.
pub(crate) struct Tasks<P, O> {
    running: Mutex<HashMap<String, Entry<P, O>>>,
    room: Arc<Semaphore>,
    tracker: TaskTracker,
    stopping: CancellationToken,
    finished: mpsc::UnboundedSender<()>,
}

struct Entry<P, O> {
    progress: Arc<P>,
    cancel: CancellationToken,
    began: Instant,
    published: Instant,
    outcome: Option<O>,
}

/// What is known of the task of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// There is none in this process.
    None,
    /// It runs.
    Running {
        /// For how long.
        running: Duration,
        /// Whether it was told to stop.
        stopping: bool,
    },
    /// It has ended, and nobody has taken its outcome to the status yet.
    Done,
}

impl<P, O> Tasks<P, O>
where
    P: Send + Sync + 'static,
    O: Clone + Send + 'static,
{
    /// No tasks yet, at most `limit` at a time. `finished` is told when one ends.
    pub(crate) fn new(
        limit: usize,
        stopping: CancellationToken,
        finished: mpsc::UnboundedSender<()>,
    ) -> Arc<Self> {
        Arc::new(Self {
            running: Mutex::default(),
            room: Arc::new(Semaphore::new(limit.max(1))),
            tracker: TaskTracker::new(),
            stopping,
            finished,
        })
    }

    // A poisoned lock means that a thread panicked between two changes of the
    // map, each of which leaves it whole.
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry<P, O>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more task, if there is one.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// How many more tasks there is room for.
    pub(crate) fn places(&self) -> usize {
        self.room.available_permits()
    }

    /// Whether at most one task runs.
    pub(crate) fn is_alone(&self) -> bool {
        let entries = self.entries();
        entries.values().filter(|of| of.outcome.is_none()).count() <= 1
    }

    pub(crate) fn state(&self, uid: &str) -> TaskState {
        match self.entries().get(uid) {
            None => TaskState::None,
            Some(entry) if entry.outcome.is_some() => TaskState::Done,
            Some(entry) => TaskState::Running {
                running: entry.began.elapsed(),
                stopping: entry.cancel.is_cancelled(),
            },
        }
    }

    /// Runs `work` as the task of this request. A task that panics ends with
    /// the outcome of `panicked`.
    pub(crate) fn spawn<F>(
        self: &Arc<Self>,
        uid: &str,
        place: OwnedSemaphorePermit,
        progress: Arc<P>,
        work: impl FnOnce(Arc<P>, CancellationToken) -> F + Send + 'static,
        panicked: impl FnOnce() -> O + Send + 'static,
    ) where
        F: Future<Output = O>,
    {
        let cancel = self.stopping.child_token();
        let now = Instant::now();
        let entry = Entry {
            progress: progress.clone(),
            cancel: cancel.clone(),
            began: now,
            published: now,
            outcome: None,
        };
        self.entries().insert(uid.to_owned(), entry);
        let done = apart(move || work(progress, cancel));
        let (tasks, uid) = (self.clone(), uid.to_owned());
        self.tracker.spawn(async move {
            let outcome = done.await.unwrap_or_else(panicked);
            if let Some(entry) = tasks.entries().get_mut(&uid) {
                entry.outcome = Some(outcome);
            }
            drop(place);
            // Nobody listens only when the operator ends.
            let _ = tasks.finished.send(());
        });
    }

    pub(crate) fn progress(&self, uid: &str) -> Option<Arc<P>> {
        self.entries().get(uid).map(|entry| entry.progress.clone())
    }

    /// Whether progress was not published for `interval`; if so it counts as
    /// published from now on.
    pub(crate) fn publish_due(&self, uid: &str, interval: Duration) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(uid) else {
            return false;
        };
        let due = entry.published.elapsed() >= interval;
        if due {
            entry.published = Instant::now();
        }
        due
    }

    pub(crate) fn outcome(&self, uid: &str) -> Option<O> {
        self.entries()
            .get(uid)
            .and_then(|entry| entry.outcome.clone())
    }

    pub(crate) fn stop(&self, uid: &str) {
        if let Some(entry) = self.entries().get(uid) {
            entry.cancel.cancel();
        }
    }

    /// Forgets a task whose outcome is in the status.
    pub(crate) fn remove(&self, uid: &str) {
        let mut entries = self.entries();
        if entries
            .get(uid)
            .is_some_and(|entry| entry.outcome.is_some())
        {
            entries.remove(uid);
        }
    }

    /// Waits until no task runs. Whoever calls it has cancelled them.
    pub(crate) async fn idle(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Runs a future on a thread of its own, so that hashing and compressing never
/// keep reconcilers, health and the Lease waiting. `None` if it panicked.
///
/// The thread is not waited for when the process ends, and a future that stays
/// on one thread need not be `Send`.
pub(crate) fn apart<T, F>(
    work: impl FnOnce() -> F + Send + 'static,
) -> impl Future<Output = Option<T>> + Send + 'static
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (sender, receiver) = oneshot::channel();
    let (runtime, span) = (Handle::current(), Span::current());
    let thread = std::thread::Builder::new().name("lifebuoy-task".to_owned());
    let spawned = thread.spawn(move || {
        let outcome = runtime.block_on(async { work().instrument(span).await });
        // Nobody waits only when the operator ends.
        let _ = sender.send(outcome);
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot start a thread");
    }
    async { receiver.await.ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> (
        Arc<Tasks<(), u32>>,
        mpsc::UnboundedReceiver<()>,
        CancellationToken,
    ) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let stopping = CancellationToken::new();
        (Tasks::new(1, stopping.clone(), sender), receiver, stopping)
    }

    #[tokio::test]
    async fn a_task_is_there_until_its_outcome_was_taken() {
        let (tasks, mut finished, _stopping) = tasks();
        let place = tasks.place().unwrap();
        assert!(tasks.place().is_none(), "there is room for one");
        tasks.spawn("a", place, Arc::new(()), |_, _| async { 7 }, || 0);
        finished.recv().await.unwrap();
        assert_eq!(tasks.state("a"), TaskState::Done);
        assert_eq!(tasks.outcome("a"), Some(7));
        assert!(tasks.place().is_some());
        tasks.remove("a");
        assert_eq!(tasks.state("a"), TaskState::None);
    }

    #[tokio::test]
    async fn a_task_that_panics_has_an_outcome_too() {
        let (tasks, mut finished, _stopping) = tasks();
        let place = tasks.place().unwrap();
        tasks.spawn(
            "a",
            place,
            Arc::new(()),
            |_, _| async { panic!("on purpose") },
            || 99,
        );
        finished.recv().await.unwrap();
        assert_eq!(tasks.outcome("a"), Some(99));
    }

    #[tokio::test]
    async fn stopping_the_operator_cancels_every_task() {
        let (tasks, _finished, stopping) = tasks();
        let place = tasks.place().unwrap();
        let work = |_: Arc<()>, cancel: CancellationToken| async move {
            cancel.cancelled().await;
            1
        };
        tasks.spawn("a", place, Arc::new(()), work, || 0);
        stopping.cancel();
        tasks.idle().await;
        assert_eq!(tasks.outcome("a"), Some(1));
    }
}

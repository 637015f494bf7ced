//! Holding snapshots while they are read: a session that commits nothing, and that
//! collections wait for.

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    ids::{ClusterKey, SessionId},
    protocol::Horizon,
    reader::Reader,
    record::{Purpose, Snapshot},
    repository::Repository,
    writer::{SessionRequest, Writer},
};

/// What stays while this is held: every snapshot that no collection has begun to forget.
/// One whose holder does not move for long, because its process is gone, is let go by the
/// collector.
#[derive(Debug)]
#[must_use = "snapshots are held until `release`, or for as long as a dead session is waited for"]
pub struct Hold {
    repository: Repository,
    session: Writer,
}

impl Repository {
    /// Holds all snapshots. One who may not write cannot; the grace of forgetting is
    /// then what it has.
    ///
    /// # Errors
    /// Those of [`Repository::begin`].
    pub async fn hold_all(&self, cluster: ClusterKey) -> Result<Hold> {
        let id = SessionId::random(&mut self.shared.randomness.rng());
        let session = self
            .begin(SessionRequest {
                id,
                cluster,
                purpose: Purpose::Restore,
                label: Bytes::new(),
            })
            .await?;
        Ok(Hold {
            repository: self.clone(),
            session,
        })
    }

    /// Holds a snapshot, as [`Repository::hold_all`] does.
    ///
    /// # Errors
    /// [`Error::Forgotten`] if a collection that forgets it has begun, those of
    /// [`Repository::begin`] and [`Repository::snapshot`].
    pub async fn hold(&self, snapshot: SessionId, cluster: ClusterKey) -> Result<Hold> {
        let hold = self.hold_all(cluster).await?;
        match hold.find(snapshot).await {
            Ok(_) => Ok(hold),
            Err(error) => {
                hold.release().await;
                Err(error)
            }
        }
    }
}

impl Hold {
    /// The snapshots that are held, by cluster, sequence and session.
    ///
    /// # Errors
    /// One of the store.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let shared = &self.repository.shared;
        // Ends and runs were listed when the session was open: a collection that takes one
        // of these snapshots has begun before, and its plan says so.
        let marks = shared.marks().await?;
        let (run, head) = shared.head();
        let live = head.live.clone();
        let mut snapshots = shared.known_snapshots(&Horizon { run, live }, &marks);
        let going = self.session.going();
        snapshots.retain(|one| !one.is_leaving() && !going.contains(&one.session));
        Ok(snapshots)
    }

    async fn find(&self, snapshot: SessionId) -> Result<Snapshot> {
        if self.session.going().contains(&snapshot) {
            return Err(Error::Forgotten { session: snapshot });
        }
        let held = self.snapshots().await?;
        match held.into_iter().find(|one| one.session == snapshot) {
            Some(found) => Ok(found),
            // Says why not; or it is younger than the session, and held all the same.
            None => {
                let found = self.repository.snapshot(snapshot).await?;
                self.repository.shared.refresh().await?;
                Ok(found)
            }
        }
    }

    /// Reads what is held.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.session.reader()
    }

    /// Lets the snapshots go.
    pub async fn release(self) {
        self.session.abandon().await;
    }
}

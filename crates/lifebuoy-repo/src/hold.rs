//! Holding a snapshot while it is read: a session that commits nothing, and that
//! collections wait for.

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    ids::{ClusterKey, SessionId},
    record::Purpose,
    repository::Repository,
    writer::{SessionRequest, Writer},
};

/// A snapshot that stays while this is held. One whose holder does not move for
/// long, because its process is gone, is let go by the collector.
#[derive(Debug)]
#[must_use = "a snapshot is held until `release`, or for as long as a dead session is waited for"]
pub struct Hold {
    session: Writer,
}

impl Repository {
    /// Holds a snapshot. One who may not write cannot; the grace of forgetting is
    /// then what it has.
    ///
    /// # Errors
    /// [`Error::Forgotten`] if a collection that forgets it has begun, those of
    /// [`Repository::begin`] and [`Repository::snapshot`].
    pub async fn hold(&self, snapshot: SessionId, cluster: ClusterKey) -> Result<Hold> {
        let id = SessionId::random(&mut self.shared.randomness.rng());
        let session = self
            .begin(SessionRequest {
                id,
                cluster,
                purpose: Purpose::Restore,
                label: Bytes::new(),
            })
            .await?;
        let hold = Hold { session };
        // Only now: what is there while the session is open stays.
        let found = if hold.session.going().contains(&snapshot) {
            Err(Error::Forgotten { session: snapshot })
        } else {
            self.snapshot(snapshot).await
        };
        match found {
            Ok(_) => Ok(hold),
            Err(error) => {
                hold.release().await;
                Err(error)
            }
        }
    }
}

impl Hold {
    /// Lets the snapshot go.
    pub async fn release(self) {
        self.session.abandon().await;
    }
}

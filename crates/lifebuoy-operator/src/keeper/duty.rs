//! Whether it is this cluster's turn. Pure, with a clock of this process only.

use std::time::{Duration, Instant};

use lifebuoy_repo::{ClusterKey, Term};

/// A keeper that has not renewed its term for so many intervals is gone.
const INTERVALS_MAX: u32 = 3;

/// The newest term, and since when this process has seen it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pub(super) term: Option<Term>,
    pub(super) since: Instant,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Another cluster keeps the repository.
    Rest,
    /// It is one's own turn: one's own term goes on, another's is over, or there is
    /// none.
    Keep,
}

pub(super) fn duty(
    newest: Option<Term>,
    own: ClusterKey,
    watched: &Watched,
    interval: Duration,
    now: Instant,
) -> Duty {
    match newest {
        None => Duty::Keep,
        Some(term) if term.cluster == own => Duty::Keep,
        Some(term) => {
            let gone = watched.term == Some(term)
                && now.duration_since(watched.since) >= interval * INTERVALS_MAX;
            if gone { Duty::Keep } else { Duty::Rest }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_stays_until_it_has_not_moved_for_three_intervals() {
        let (own, other) = (
            ClusterKey::from_bytes([1; 16]),
            ClusterKey::from_bytes([2; 16]),
        );
        let hour = Duration::from_secs(3600);
        let since = Instant::now();
        let term = |cluster| Some(Term { number: 7, cluster });
        let at = |newest: Option<Term>, hours: u32| {
            let watched = Watched {
                term: newest,
                since,
            };
            duty(newest, own, &watched, hour, since + hour * hours)
        };
        assert_eq!(at(None, 0), Duty::Keep);
        assert_eq!(at(term(own), 0), Duty::Keep);
        assert_eq!(at(term(other), 2), Duty::Rest);
        assert_eq!(at(term(other), 3), Duty::Keep);
        let watched = Watched { term: None, since };
        let unseen = duty(term(other), own, &watched, hour, since + hour * 9);
        assert_eq!(unseen, Duty::Rest);
    }
}

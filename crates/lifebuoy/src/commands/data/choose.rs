//! Which snapshot of files or devices a person means. Pure; no clock decides.

use lifebuoy_data::{DataSummary, Listed, escaped};

use crate::{args::Whose, error::Error};

/// Places that an error names.
const PLACES_MAX: usize = 5;

/// Those of this machine and place, if they are named.
pub(super) fn of(whose: &Whose, listed: Vec<Listed>) -> Vec<Listed> {
    let is_of = |summary: &DataSummary| {
        let host = whose.host.as_ref().is_none_or(|host| *host == summary.host);
        let from = whose.saved_from.as_ref().map(|path| path.to_string_lossy());
        host && from
            .is_none_or(|path| path.trim_end_matches('/') == summary.path.trim_end_matches('/'))
    };
    let mut listed = listed;
    listed.retain(|one| is_of(&one.summary));
    listed
}

/// The snapshot with this name among `listed`, in which those of one machine are in the
/// order of their making. `here` is what this machine is called.
pub(super) fn named(
    name: &str,
    whose: &Whose,
    listed: Vec<Listed>,
    here: &str,
) -> Result<Listed, Error> {
    let listed = of(whose, listed);
    if name == "latest" {
        return latest(listed, here);
    }
    let mut like = listed
        .into_iter()
        .filter(|one| one.snapshot.session.to_string().starts_with(name));
    match (like.next(), like.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Error::usage(
            format!("there is no snapshot of files `{name}`"),
            "list them: `lifebuoy repo ls`",
        )),
        _ => Err(Error::usage(
            format!("several snapshots begin with `{name}`"),
            "give more of the id",
        )),
    }
}

/// The newest of the one place that there are snapshots of. Those of this machine count
/// first; the newest of several places is a matter of clocks, and nobody means it.
fn latest(mut listed: Vec<Listed>, here: &str) -> Result<Listed, Error> {
    if listed.iter().any(|one| one.summary.host == here) {
        listed.retain(|one| one.summary.host == here);
    }
    let mut newest: Vec<Listed> = Vec::new();
    for one in listed.into_iter().rev() {
        let is_later = |other: &Listed| other.summary.is_of_one_line(&one.summary);
        if !newest.iter().any(is_later) {
            newest.push(one);
        }
    }
    match newest.len() {
        0 => Err(Error::usage(
            "there is no such snapshot of files in this repository",
            "see what there is: `lifebuoy repo ls`; make one: `lifebuoy repo save`",
        )),
        1 => Ok(newest.remove(0)),
        count => Err(Error::usage(
            format!(
                "`latest` may be that of {count} places: {}",
                places(&newest)
            ),
            "name one with --saved-from or --host, or give the id of a snapshot",
        )),
    }
}

fn places(newest: &[Listed]) -> String {
    let mut places: Vec<String> = newest
        .iter()
        .take(PLACES_MAX)
        .map(|one| {
            let DataSummary {
                host, path, kind, ..
            } = &one.summary;
            format!("{} on {host} ({kind:?})", escaped(path.as_bytes()))
        })
        .collect();
    if newest.len() > PLACES_MAX {
        places.push("…".to_owned());
    }
    places.join(", ")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use lifebuoy_data::What;
    use lifebuoy_repo::{ChunkId, ClusterKey, SessionId, Snapshot};

    use super::*;

    /// The clock of each is behind that of the one before.
    fn listed(places: &[(&str, &str)]) -> Vec<Listed> {
        let one = |(n, (host, path)): (u8, &(&str, &str))| {
            let at = DateTime::from_timestamp(1000 - i64::from(n), 0).unwrap();
            Listed {
                snapshot: Snapshot {
                    session: SessionId::from_bytes([n; 16]),
                    cluster: ClusterKey::from_bytes([0; 16]),
                    seq: n.into(),
                    root: ChunkId::from_bytes([n; 32]),
                    summary: bytes::Bytes::new(),
                    forgotten: false,
                    pinned: false,
                },
                summary: DataSummary::new(What::Files, (*host).into(), (*path).into(), at),
            }
        };
        (0..).zip(places).map(one).collect()
    }

    fn chosen(places: &[(&str, &str)], whose: &Whose) -> Result<u64, String> {
        match named("latest", whose, listed(places), "web") {
            Ok(one) => Ok(one.snapshot.seq),
            Err(error) => Err(error.to_string()),
        }
    }

    fn whose(host: Option<&str>, from: Option<&str>) -> Whose {
        Whose {
            host: host.map(Into::into),
            saved_from: from.map(Into::into),
            volume: None,
        }
    }

    #[test]
    fn the_latest_is_the_last_of_the_one_place_whatever_clocks_say() {
        let places = [("web", "/srv"), ("web", "/srv"), ("db", "/var")];
        assert_eq!(chosen(&places, &whose(None, None)), Ok(1));
        assert_eq!(chosen(&places, &whose(Some("db"), None)), Ok(2));
        assert_eq!(chosen(&places, &whose(None, Some("/var/"))), Ok(2));
        assert!(chosen(&places, &whose(Some("db"), Some("/srv"))).is_err());
    }

    #[test]
    fn on_a_new_machine_the_only_place_is_meant() {
        assert_eq!(
            chosen(&[("db", "/"), ("db", "/")], &whose(None, None)),
            Ok(1)
        );
    }

    #[test]
    fn of_several_places_one_must_be_named() {
        let places = [("web", "/srv"), ("web", "/home\n"), ("db", "/var")];
        let error = chosen(&places, &whose(None, None)).unwrap_err();
        assert_eq!(
            error,
            r"`latest` may be that of 2 places: /home\n on web (Files), /srv on web (Files)"
        );
        assert_eq!(chosen(&places, &whose(None, Some("/srv"))), Ok(0));
    }
}

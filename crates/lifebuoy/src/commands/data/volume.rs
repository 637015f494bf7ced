//! The data of a volume in a recovery point, as the snapshot of files or of a device that
//! it is.

use lifebuoy_data::{DataSummary, Listed};
use lifebuoy_engine::{
    archive::{Archive, ObjectKey},
    point::{Point, points},
    volumes::{KeptSnapshot, SavedBy, VolumeRecord},
};
use lifebuoy_repo::{Repository, Snapshot};

use crate::{direct, error::Error};

/// The volume of a claim, or the emptyDir of a pod, in the point with this name; in the newest one that has it, if
/// the name is `latest`.
///
/// # Errors
/// [`Error::Usage`] where there is no such point, or no such volume in it.
pub(super) async fn find(repo: &Repository, name: &str, claim: &str) -> Result<Listed, Error> {
    let wanted = key(claim)?;
    if name != "latest" {
        let point = direct::find(repo, name).await?;
        let found = look(repo, &point, &wanted).await?;
        return found.ok_or_else(|| {
            Error::usage(
                format!("the recovery point has no data of the volume `{claim}`"),
                format!("see what it has: `lifebuoy recoverypoint describe {name}`"),
            )
        });
    }
    let mut points = points(repo).await?.points;
    points.sort_by_key(|point| std::cmp::Reverse(point.snapshot.seq));
    refuse_several_clusters(&points)?;
    for point in &points {
        if let Some(found) = look(repo, point, &wanted).await? {
            return Ok(found);
        }
    }
    Err(Error::usage(
        format!("no recovery point has data of the volume `{claim}`"),
        "list them: `lifebuoy recoverypoint list`",
    ))
}

fn key(claim: &str) -> Result<ObjectKey, Error> {
    match claim.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err(Error::usage(
            format!("`{claim}` is no volume"),
            "give the namespace and name of its claim, such as `shop/data-db-0`; or those of a \
             pod and the name of an emptyDir, such as `shop/web-0/cache`",
        )),
    }
}

/// The newest of several clusters is a matter of clocks, and nobody means it.
fn refuse_several_clusters(points: &[Point]) -> Result<(), Error> {
    let mut clusters = points.iter().map(|point| &point.summary.cluster);
    let first = clusters.next();
    match clusters.find(|cluster| Some(*cluster) != first) {
        None => Ok(()),
        Some(_) => Err(Error::usage(
            "`latest` may be of several clusters",
            "give the id of a recovery point: `lifebuoy recoverypoint list`",
        )),
    }
}

async fn look(
    repo: &Repository,
    point: &Point,
    wanted: &ObjectKey,
) -> Result<Option<Listed>, Error> {
    let archive = Archive::open(repo, point.snapshot.session).await?;
    let mut volumes = archive.manifest.volumes_saved.iter();
    let found = volumes.find(|volume| volume.claim == *wanted);
    found.map(|volume| listed(point, volume)).transpose()
}

fn listed(point: &Point, volume: &VolumeRecord) -> Result<Listed, Error> {
    let data = match &volume.saved {
        SavedBy::Move(data) | SavedBy::FileSystem(data) => data,
        SavedBy::Snapshot(kept) => return Err(in_storage(point, volume, kept)),
    };
    let host = point.summary.cluster.name.clone();
    let path = volume.claim.to_string();
    let mut summary = DataSummary::new(data.kind, host, path, point.summary.taken_at);
    summary.entries = data.entries;
    summary.bytes = data.bytes;
    summary.problems = data.problems;
    Ok(Listed {
        snapshot: Snapshot {
            root: data.root,
            ..point.snapshot.clone()
        },
        summary,
    })
}

/// Nothing can be read of it here, whatever is asked.
fn in_storage(point: &Point, volume: &VolumeRecord, kept: &KeptSnapshot) -> Error {
    Error::usage(
        format!(
            "the data of the claim `{}` in the recovery point {} is in the storage system as \
             {kept}, not in the repository",
            volume.claim, point.snapshot.session
        ),
        "restore the whole volume in a cluster that this storage serves: `lifebuoy restore create`",
    )
}

#[cfg(test)]
mod tests {
    use lifebuoy_engine::volumes::empty_dir_key;

    use super::*;

    #[test]
    fn a_claim_is_named_with_its_namespace() {
        assert_eq!(key("shop/data").unwrap(), ObjectKey::new("shop", "data"));
        let empty_dir = empty_dir_key("shop", "web-0", "cache");
        assert_eq!(key("shop/web-0/cache").unwrap(), empty_dir);
        for wrong in ["data", "/data", "shop/", ""] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }
}

//! Who steals the key of a cluster that saves can neither replace nor delete
//! what is saved, and writes nowhere but where that cluster does. The policies
//! are those of `docs/credentials/`, enforced by a real S3 server.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lifebuoy_repo::{
    ChunkKind, Credentials, KdfCost, Location, LocationOptions, ObjectStore, Passphrase, Purpose,
    Repository, SessionId, SessionRequest, Snapshot, StoreAbilities,
};
use lifebuoy_scenarios::scenario;
use lifebuoy_testkit::TestDirectory;
use lifebuoy_testkit::s3::{BUCKET, PolicedS3, Protection, REGION, S3Key};
use serde_json::json;

use crate::support::profiles::{Place, Profile, s3_policy, spots, without_create_only};
use crate::support::thief::{Attempt, Thief};

const PREFIX: &str = "backups/eu";
const CLUSTER: &str = "prod";
const PASSPHRASE: &str = "correct horse battery staple";

/// A store with a repository in it, made by an administrator, and one key of
/// each profile.
struct Guarded {
    s3: PolicedS3,
    prefix: &'static str,
    cluster: String,
    keys: Vec<(Profile, S3Key)>,
}

impl Guarded {
    async fn start(
        directory: &TestDirectory,
        protection: Protection,
        prefix: &'static str,
    ) -> Result<Self> {
        let s3 = PolicedS3::start(directory.path(), protection).await?;
        let mut guarded = Self {
            s3,
            prefix,
            cluster: String::new(),
            keys: Vec::new(),
        };
        guarded.make(Profile::Administrator).await?;
        let store = guarded.store(Profile::Administrator)?;
        let repository =
            Repository::init(store, &Passphrase::new(PASSPHRASE)?, KdfCost::cheapest()).await?;
        guarded.cluster = repository.cluster_key(CLUSTER).to_string();
        for profile in [Profile::Writer, Profile::Reader, Profile::Keeper] {
            guarded.make(profile).await?;
        }
        Ok(guarded)
    }

    fn place(&self) -> Place<'_> {
        Place {
            bucket: BUCKET,
            prefix: self.prefix,
            cluster: &self.cluster,
        }
    }

    async fn make(&mut self, profile: Profile) -> Result<()> {
        let mut policy = s3_policy(profile, self.place())?;
        if profile != Profile::Reader {
            policy = without_create_only(policy)?;
        }
        let policy = policy.to_string();
        let key = self.s3.identity(profile.name(), &policy).await?;
        self.keys.push((profile, key));
        Ok(())
    }

    fn key(&self, profile: Profile) -> Result<&S3Key> {
        let found = self.keys.iter().find(|(owner, _)| *owner == profile);
        found.map(|(_, key)| key).context("no such key")
    }

    fn thief(&self, profile: Profile) -> Result<Thief<'_>> {
        Ok(Thief {
            s3: &self.s3,
            key: self.key(profile)?,
        })
    }

    /// The place as lifebuoy opens it with a key.
    fn store(&self, profile: Profile) -> Result<Arc<dyn ObjectStore>> {
        store(&self.s3, self.prefix, self.key(profile)?)
    }

    async fn repository(&self, profile: Profile) -> Result<Repository> {
        let store = self.store(profile)?;
        Ok(Repository::open(store, &Passphrase::new(PASSPHRASE)?).await?)
    }

    fn in_bucket(&self, key: &str) -> String {
        match self.prefix {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// Puts an object with all rights.
    async fn put(&self, key: &str) -> Result<()> {
        let (root, path) = (self.s3.root(), format!("/{key}"));
        let put = self.s3.send(root, "PUT", &path, &[], "something");
        put.await?.success().map(drop)
    }

    /// What was first stored under each key, whatever came later.
    async fn originals(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut originals = BTreeMap::new();
        // The last one of a key is its oldest.
        for version in self.s3.versions().await? {
            let path = match version.id.as_str() {
                "null" => format!("/{}", version.key),
                id => format!("/{}?versionId={id}", version.key),
            };
            if version.is_delete_marker {
                continue;
            }
            let read = self.s3.send(self.s3.root(), "GET", &path, &[], "").await?;
            ensure!(read.is_success(), "GET {path}: {}", read.text());
            originals.insert(version.key, read.body.to_vec());
        }
        Ok(originals)
    }
}

fn store(s3: &PolicedS3, prefix: &str, key: &S3Key) -> Result<Arc<dyn ObjectStore>> {
    let options = LocationOptions {
        endpoint: Some(s3.endpoint()),
        region: Some(REGION.to_owned()),
        allow_http: true,
        ..LocationOptions::default()
    };
    let credentials = [
        ("AWS_ACCESS_KEY_ID", key.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", key.secret_key.as_str()),
    ];
    let credentials: Credentials = credentials
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    Ok(Location::parse(&format!("s3://{BUCKET}/{prefix}"), options)?.open(&credentials)?)
}

fn session() -> SessionId {
    SessionId::random(&mut rand::rng())
}

async fn back_up(repository: &Repository, text: &str) -> Result<Snapshot> {
    let writer = repository
        .begin(SessionRequest {
            id: session(),
            cluster: repository.cluster_key(CLUSTER),
            purpose: Purpose::Backup,
            label: "a scenario".into(),
        })
        .await?;
    let data = writer
        .put(ChunkKind::Data, text.repeat(1000).into())
        .await?;
    let root = writer
        .put(ChunkKind::Metadata, data.to_string().into())
        .await?;
    Ok(writer.commit(root, "a summary".into()).await?)
}

async fn restored(repository: &Repository, snapshot: &Snapshot) -> Result<String> {
    let reader = repository.reader().await?;
    let root = String::from_utf8(reader.get(&snapshot.root).await?.to_vec())?;
    let data = reader.get(&root.parse()?).await?;
    Ok(String::from_utf8(data.to_vec())?)
}

/// All that a writer ever does, with a writer's key.
async fn work_as_a_writer(guarded: &Guarded) -> Result<Snapshot> {
    let repository = guarded.repository(Profile::Writer).await?;
    let all = StoreAbilities {
        can_write: true,
        can_list: true,
        atomic_create: Some(true),
    };
    let found = repository.probe().await?;
    ensure!(found == all, "a writer's key can do {found:?}");
    let old = back_up(&repository, "the first backup ").await?;
    let kept = back_up(&repository, "the second backup ").await?;
    repository.forget(old.session, "retention").await?;
    let cluster = repository.cluster_key(CLUSTER);
    repository.fence(cluster, session()).await?;
    let listed = repository.snapshots().await?;
    ensure!(listed.snapshots.len() == 2 && listed.unreadable.is_empty());
    Ok(kept)
}

/// Every attempt was refused, and for the right reason.
fn none_succeeded(attempts: &[Attempt]) -> Result<()> {
    for attempt in attempts {
        let (status, text) = (attempt.answer.status, attempt.answer.text());
        let refused = text.contains("<Code>AccessDenied</Code>")
            || text.contains("<Code>PreconditionFailed</Code>")
            || text.contains("<Code>NotImplemented</Code>");
        ensure!(
            refused && !attempt.succeeded(),
            "{} was answered with {status}: {text}",
            attempt.what
        );
    }
    Ok(())
}

/// Each profile creates where it should and nowhere else.
async fn everyone_stays_in_place(guarded: &Guarded) -> Result<()> {
    for profile in Profile::ALL {
        let holder = guarded.thief(profile)?;
        for spot in spots(&guarded.cluster, &session().to_string()) {
            let key = guarded.in_bucket(&spot.key);
            let created = holder.create(&key).await?;
            as_meant(profile, &created, spot.creators.contains(&profile))?;
            let there = guarded.s3.bucket_directory().join(&key).exists();
            ensure!(there == created.succeeded(), "{key} is there: {there}");
        }
        // What would stand in the way of whole folders, where keys are paths.
        for key in ["packs", "packs/0f", "index/runs", "index/parts", "open"] {
            if profile != Profile::Keeper {
                as_meant(
                    profile,
                    &holder.create(&guarded.in_bucket(key)).await?,
                    false,
                )?;
            }
        }
        let outside = format!("outside-{}", session());
        as_meant(profile, &holder.create(&outside).await?, false)?;
        guarded.put(&outside).await?;
        let inside = guarded.prefix.is_empty();
        as_meant(profile, &holder.read(&outside).await?, inside)?;
        as_meant(profile, &holder.list("").await?, inside)?;
        as_meant(profile, &holder.list(&guarded.in_bucket("")).await?, true)?;
    }
    Ok(())
}

/// Only the keeper deletes, and never what makes the repository.
async fn only_the_keeper_deletes(guarded: &Guarded) -> Result<()> {
    for spot in spots(&guarded.cluster, &session().to_string()) {
        let key = guarded.in_bucket(&spot.key);
        guarded.put(&key).await?;
        for profile in Profile::ALL {
            let deleted = guarded.thief(profile)?.delete(&key).await?;
            as_meant(profile, &deleted, spot.deleters.contains(&profile))?;
        }
        let there = guarded.s3.bucket_directory().join(&key).exists();
        ensure!(there == spot.deleters.is_empty(), "{key} is there: {there}");
    }
    Ok(())
}

fn as_meant(profile: Profile, attempt: &Attempt, may: bool) -> Result<()> {
    let status = attempt.answer.status;
    ensure!(
        attempt.succeeded() == may && (may || status == 403),
        "{profile:?} {}: {status} {}",
        attempt.what,
        attempt.answer.text()
    );
    Ok(())
}

/// Deletes every version that is not the first of its key, and the marks of
/// deletions: what `docs/credentials.md` tells people to do after a theft.
async fn cure(guarded: &Guarded) -> Result<usize> {
    let versions = guarded.s3.versions().await?;
    let mut cured = 0;
    for (version, older) in versions.iter().zip(versions.iter().skip(1)) {
        if older.key == version.key {
            let path = format!("/{}?versionId={}", version.key, version.id);
            let bypass = [("x-amz-bypass-governance-retention", "true")];
            let root = guarded.s3.root();
            let sent = guarded.s3.send(root, "DELETE", &path, &bypass, "");
            sent.await?.success()?;
            cured += 1;
        }
    }
    Ok(cured)
}

/// Every object is sound and the snapshot can be restored, with a reader's key.
async fn everything_is_there(guarded: &Guarded, snapshot: &Snapshot) -> Result<()> {
    let repository = guarded.repository(Profile::Reader).await?;
    let text = restored(&repository, snapshot).await?;
    ensure!(text == "the second backup ".repeat(1000), "restored {text}");
    for key in guarded.originals().await?.keys() {
        let key = key.strip_prefix(&guarded.in_bucket(""));
        repository.check_object(key.context("outside")?).await?;
    }
    Ok(())
}

/// Most servers cannot ask every create for `If-None-Match`. There versions keep
/// what a thief replaces, and no profile deletes a version.
#[test]
fn versions_keep_what_a_stolen_writer_key_replaces() {
    scenario(async {
        let mut directory = TestDirectory::new("versions")?;
        let guarded = Guarded::start(&directory, Protection::LockedVersions, PREFIX).await?;
        let snapshot = work_as_a_writer(&guarded).await?;
        let before = guarded.originals().await?;
        ensure!(before.len() > 10, "only {} objects to attack", before.len());

        let thief = guarded.thief(Profile::Writer)?;
        let format = guarded.in_bucket("format/1");
        let mut replaced = 0;
        for object in before.keys() {
            let attempts = thief.replace(object, &format).await?;
            replaced += attempts.iter().filter(|it| it.succeeded()).count();
            let versions = guarded.s3.versions().await?;
            none_succeeded(&thief.destroy(object, &versions).await?)?;
        }
        none_succeeded(&thief.unprotect().await?)?;
        ensure!(
            replaced > 0,
            "this server refuses it: then say so in the docs"
        );
        ensure!(guarded.originals().await? == before, "something was lost");

        ensure!(cure(&guarded).await? == replaced);
        everything_is_there(&guarded, &snapshot).await?;
        directory.passed();
        Ok(())
    });
}

/// The keeper may delete, so its key is the one to guard; what it deletes can
/// be brought back as long as the versions are kept.
#[test]
fn versions_keep_what_a_stolen_keeper_key_deletes() {
    scenario(async {
        let mut directory = TestDirectory::new("keeper")?;
        let guarded = Guarded::start(&directory, Protection::LockedVersions, PREFIX).await?;
        let snapshot = work_as_a_writer(&guarded).await?;
        let before = guarded.originals().await?;

        let thief = guarded.thief(Profile::Keeper)?;
        let mut deleted = 0;
        for object in before.keys() {
            let versions = guarded.s3.versions().await?;
            let made = ["format/", "keys/"].map(|made| guarded.in_bucket(made));
            let keeps = made.iter().any(|made| object.starts_with(made));
            as_meant(Profile::Keeper, &thief.delete(object).await?, !keeps)?;
            for version in versions.iter().filter(|version| version.key == *object) {
                none_succeeded(&[thief.delete_version(version).await?])?;
            }
            deleted += usize::from(!keeps);
        }
        none_succeeded(&thief.unprotect().await?)?;
        let repository = guarded.repository(Profile::Reader).await?;
        ensure!(repository.snapshots().await?.snapshots.is_empty());

        ensure!(cure(&guarded).await? == deleted);
        ensure!(guarded.originals().await? == before, "something was lost");
        everything_is_there(&guarded, &snapshot).await?;
        directory.passed();
        Ok(())
    });
}

/// A lock without versions, which this server has, refuses every replacement.
#[test]
fn a_lock_refuses_what_a_stolen_writer_key_tries() {
    scenario(async {
        let mut directory = TestDirectory::new("lock")?;
        let guarded = Guarded::start(&directory, Protection::LockWithoutVersions, PREFIX).await?;
        let snapshot = work_as_a_writer(&guarded).await?;
        let before = guarded.originals().await?;
        let thief = guarded.thief(Profile::Writer)?;
        let format = guarded.in_bucket("format/1");
        for object in before.keys() {
            none_succeeded(&thief.replace(object, &format).await?)?;
            none_succeeded(&thief.destroy(object, &[]).await?)?;
        }
        none_succeeded(&thief.unprotect().await?)?;
        ensure!(guarded.originals().await? == before, "something changed");
        everything_is_there(&guarded, &snapshot).await?;

        // Such a store says 403 where others say 412: the contract holds on it.
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"],
            "Resource": [format!("arn:aws:s3:::{BUCKET}"), format!("arn:aws:s3:::{BUCKET}/*")],
        }]});
        let key = guarded.s3.identity("plain", &policy.to_string()).await?;
        lifebuoy_repo::contract::check_store(store(&guarded.s3, "contract", &key)?).await?;
        directory.passed();
        Ok(())
    });
}

/// Below a prefix and at the top of a bucket, with the policies that belong there.
#[test]
fn each_key_creates_and_deletes_only_where_it_should() {
    scenario(async {
        for prefix in [PREFIX, ""] {
            let mut directory = TestDirectory::new("places")?;
            let guarded = Guarded::start(&directory, Protection::None, prefix).await?;
            let snapshot = work_as_a_writer(&guarded).await?;
            everything_is_there(&guarded, &snapshot).await?;
            only_the_keeper_deletes(&guarded).await?;
            everyone_stays_in_place(&guarded).await?;
            directory.passed();
        }
        Ok(())
    });
}

/// When this fails, the S3 server of the tests has learnt the condition: then
/// apply the policies whole, and expect that nothing can be replaced.
#[test]
fn this_server_does_not_know_if_none_match_in_policies() {
    scenario(async {
        let mut directory = TestDirectory::new("condition")?;
        let guarded = Guarded::start(&directory, Protection::None, PREFIX).await?;
        let whole = s3_policy(Profile::Writer, guarded.place())?;
        let key = guarded.s3.identity("whole", &whole.to_string()).await?;
        let holder = Thief {
            s3: &guarded.s3,
            key: &key,
        };
        let object = guarded.in_bucket(&format!("probe/{}", session()));
        as_meant(Profile::Writer, &holder.create(&object).await?, false)?;
        directory.passed();
        Ok(())
    });
}

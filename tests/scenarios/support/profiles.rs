//! The credential profiles of `docs/credentials/`, filled in as
//! `docs/credentials.md` tells people to, and what each is meant to do.

use anyhow::{Context, Result, ensure};
use lifebuoy_testkit::tools::workspace_root;
use serde_json::Value;

/// Whom a profile is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Writer,
    Reader,
    Keeper,
    Administrator,
}

impl Profile {
    pub(crate) const ALL: [Self; 4] = [
        Self::Writer,
        Self::Reader,
        Self::Keeper,
        Self::Administrator,
    ];

    /// As in the names of the files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Keeper => "keeper",
            Self::Administrator => "administrator",
        }
    }
}

/// The placeholders of the files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) bucket: &'a str,
    /// Without a slash at its end; empty for the top of the bucket.
    pub(crate) prefix: &'a str,
    /// The key of the writer's cluster.
    pub(crate) cluster: &'a str,
}

/// A file of `docs/credentials/` with its placeholders filled in.
pub(crate) fn filled(file: &str, place: Place<'_>) -> Result<String> {
    let Place {
        bucket,
        prefix,
        cluster,
    } = place;
    let path = workspace_root().join("docs/credentials").join(file);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let prefix = match prefix {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let text = text
        .replace("BUCKET", bucket)
        .replace("PREFIX/", &prefix)
        .replace("CLUSTER", cluster);
    ensure!(
        !text.contains("PREFIX"),
        "{file} has a PREFIX without its slash"
    );
    Ok(text)
}

/// The IAM policy of a profile on S3.
pub(crate) fn s3_policy(profile: Profile, place: Place<'_>) -> Result<Value> {
    let file = format!("s3-{}.json", profile.name());
    let mut policy: Value = serde_json::from_str(&filled(&file, place)?)?;
    if place.prefix.is_empty() {
        for statement in statements(&mut policy)? {
            if statement["Sid"] == "ListTheRepository" {
                drop(
                    statement
                        .as_object_mut()
                        .and_then(|it| it.remove("Condition")),
                );
            }
        }
    }
    Ok(policy)
}

/// The statement that asks every create for `If-None-Match`.
pub(crate) const CREATE_ONLY: &str = "CreateOnlyWhatIsNotThere";

/// The policy for a server that does not know `s3:if-none-match`: to such a
/// server every create looks like one without it.
pub(crate) fn without_create_only(mut policy: Value) -> Result<Value> {
    let statements = statements(&mut policy)?;
    let before = statements.len();
    statements.retain(|statement| statement["Sid"] != CREATE_ONLY);
    ensure!(
        statements.len() + 1 == before,
        "there is no statement {CREATE_ONLY}"
    );
    Ok(policy)
}

fn statements(policy: &mut Value) -> Result<&mut Vec<Value>> {
    policy["Statement"]
        .as_array_mut()
        .context("a policy without statements")
}

/// One key below the repository, and who may create and delete objects there.
pub(crate) struct Spot {
    pub(crate) key: String,
    pub(crate) creators: &'static [Profile],
    pub(crate) deleters: &'static [Profile],
}

const OTHER_CLUSTER: &str = "0123456789abcdef0123456789abcdef";

/// A spot in every part of a repository, and some outside of all parts. `id`
/// takes the place of a session id.
pub(crate) fn spots(cluster: &str, id: &str) -> Vec<Spot> {
    use Profile::{Administrator, Keeper, Writer};
    let nobody: &[Profile] = &[];
    let keeper: &[Profile] = &[Keeper];
    let both: &[Profile] = &[Writer, Keeper];
    let other = OTHER_CLUSTER;
    let table: Vec<(String, &'static [Profile], &'static [Profile])> = vec![
        (format!("packs/0f/{id}-0.data"), both, keeper),
        (format!("index/{id}"), both, keeper),
        (format!("index/runs/{id}"), keeper, keeper),
        (format!("index/parts/{id}"), keeper, keeper),
        (format!("beat/{id}/1"), both, keeper),
        (format!("forget/{id}"), both, keeper),
        (format!("pin/{id}"), both, keeper),
        (
            format!("probe/{id}"),
            &[Writer, Keeper, Administrator],
            keeper,
        ),
        (format!("open/{cluster}/0-{id}"), both, keeper),
        (format!("open/{other}/0-{id}"), keeper, keeper),
        (format!("end/{cluster}/{id}"), both, keeper),
        (format!("end/{other}/{id}"), keeper, keeper),
        (format!("gc/{id}.plan"), keeper, keeper),
        (format!("keeper/{id}"), keeper, keeper),
        (format!("mend/index/{id}"), keeper, keeper),
        (format!("mend/packs/0f/{id}-0.data"), keeper, keeper),
        (format!("format/{id}"), &[Administrator], nobody),
        (format!("keys/{id}"), &[Administrator], nobody),
        (format!("elsewhere/{id}"), nobody, nobody),
        (format!("top-{id}"), nobody, nobody),
        (format!("Packs/0f/{id}-0.data"), nobody, nobody),
    ];
    table
        .into_iter()
        .map(|(key, creators, deleters)| Spot {
            key,
            creators,
            deleters,
        })
        .collect()
}

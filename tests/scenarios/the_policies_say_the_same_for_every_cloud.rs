//! The files of `docs/credentials/` name the same places for S3, Google and
//! Azure, and on all three nothing can be replaced. What they say is worked out
//! here by plain rules; no cloud is asked.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::profiles::{Place, Profile, filled, s3_policy, spots};

const CLUSTER: &str = "563263bd247cc5d6df60332c6a416e04";
const ID: &str = "fedcba9876543210fedcba9876543210";

fn places() -> [Place<'static>; 2] {
    ["backups/eu", ""].map(|prefix| Place {
        bucket: "bucket",
        prefix,
        cluster: CLUSTER,
    })
}

fn at(place: Place<'_>, key: &str) -> String {
    match place.prefix {
        "" => key.to_owned(),
        prefix => format!("{prefix}/{key}"),
    }
}

/// Whether a pattern with `*` and `?` covers all of a text.
fn covers(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            covers(&pattern[1..], text)
                || text
                    .chars()
                    .next()
                    .is_some_and(|first| covers(pattern, &text[first.len_utf8()..]))
        }
        (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
            covers(&pattern[wanted.len_utf8()..], &text[found.len_utf8()..])
        }
        _ => false,
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

/// What IAM makes of a policy: a denial wins, and what is not allowed is not.
fn iam_allows(
    policy: &Value,
    action: &str,
    resource: &str,
    context: &BTreeMap<&str, &str>,
) -> Result<bool> {
    let mut allowed = false;
    for statement in policy["Statement"].as_array().context("no statements")? {
        let about = texts(&statement["Action"]).contains(&action)
            && texts(&statement["Resource"])
                .iter()
                .any(|pattern| covers(pattern, resource));
        let mut holds = true;
        for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
            for (key, value) in keys.as_object().context("a condition without keys")? {
                let found = context.get(key.as_str());
                let value = value.as_str().context("a condition without a value")?;
                holds &= match operator.as_str() {
                    "Null" => (value == "true") == found.is_none(),
                    "StringLike" => found.is_some_and(|found| covers(value, found)),
                    other => anyhow::bail!("{other} is not understood here"),
                };
            }
        }
        if about && holds {
            if statement["Effect"] == "Deny" {
                return Ok(false);
            }
            allowed = true;
        }
    }
    Ok(allowed)
}

#[test]
fn on_s3_each_profile_creates_in_its_places_and_replaces_nothing() {
    let check = || -> Result<()> {
        for (place, profile) in places()
            .into_iter()
            .flat_map(|place| Profile::ALL.map(|profile| (place, profile)))
        {
            let policy = s3_policy(profile, place)?;
            let without = BTreeMap::new();
            let with = BTreeMap::from([("s3:if-none-match", "*")]);
            for spot in spots(CLUSTER, ID) {
                let resource = format!("arn:aws:s3:::{}/{}", place.bucket, at(place, &spot.key));
                let may = |action, context| iam_allows(&policy, action, &resource, context);
                let what = format!("{profile:?} {resource}");
                let creates = spot.creators.contains(&profile);
                ensure!(may("s3:PutObject", &with)? == creates, "{what}");
                ensure!(!may("s3:PutObject", &without)?, "{what} is replaced");
                let deletes = spot.deleters.contains(&profile);
                ensure!(may("s3:DeleteObject", &without)? == deletes, "{what}");
                ensure!(may("s3:GetObject", &without)?, "{what} is not read");
                for never in [
                    "s3:DeleteObjectVersion",
                    "s3:BypassGovernanceRetention",
                    "s3:PutObjectRetention",
                    "s3:PutObjectAcl",
                ] {
                    ensure!(!may(never, &with)?, "{what}: {never}");
                }
            }
            let bucket = format!("arn:aws:s3:::{}", place.bucket);
            let lists = |prefix: &str| {
                let context = BTreeMap::from([("s3:prefix", prefix)]);
                iam_allows(&policy, "s3:ListBucket", &bucket, &context)
            };
            ensure!(lists(&at(place, "gc/"))?);
            ensure!(lists("other/")? == place.prefix.is_empty());
        }
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error:#}"));
}

/// What a condition of Google's IAM says, as far as ours go: no parentheses,
/// `&&` before `||`, and `!` before a `startsWith`.
fn cel_holds(expression: &str, resource: &str, list_prefix: &str) -> Result<bool> {
    for any in expression.split("||") {
        let mut all = true;
        for term in any.split("&&") {
            let term = term.trim();
            let (negated, term) = match term.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, term),
            };
            let (subject, wanted) = term
                .split_once(".startsWith(\"")
                .with_context(|| format!("{term} is not understood here"))?;
            let wanted = wanted.strip_suffix("\")").context("no end of a text")?;
            let subject = match subject {
                "resource.name" => resource,
                r#"api.getAttribute("storage.googleapis.com/objectListPrefix", "")"# => list_prefix,
                other => anyhow::bail!("{other} is not understood here"),
            };
            all &= subject.starts_with(wanted) != negated;
        }
        if all {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The most operators in one condition that Google takes.
const CEL_OPERATORS_MAX: usize = 12;

fn google_allows(
    place: Place<'_>,
    profile: Profile,
    permission: &str,
    resource: &str,
    list_prefix: &str,
) -> Result<bool> {
    let file = filled(&format!("gcs-{}.yaml", profile.name()), place)?;
    let policy: Value = serde_saphyr::from_str(&file)?;
    for binding in policy["bindings"].as_array().context("no bindings")? {
        let role = binding["role"].as_str().context("no role")?;
        let role = role
            .strip_prefix("projects/PROJECT/roles/lifebuoy")
            .context("another role")?;
        let role = filled(&format!("gcs-role-{}.yaml", role.to_lowercase()), place)?;
        let role: Value = serde_saphyr::from_str(&role)?;
        let expression = binding["condition"]["expression"]
            .as_str()
            .context("a binding without a condition")?;
        let operators = ["||", "&&", "!"].map(|operator| expression.matches(operator).count());
        ensure!(operators.iter().sum::<usize>() <= CEL_OPERATORS_MAX);
        if texts(&role["includedPermissions"]).contains(&permission)
            && cel_holds(expression, resource, list_prefix)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn on_google_the_places_are_the_same() {
    let check = || -> Result<()> {
        for (place, profile) in places()
            .into_iter()
            .flat_map(|place| Profile::ALL.map(|profile| (place, profile)))
        {
            let bucket = format!("projects/_/buckets/{}", place.bucket);
            for spot in spots(CLUSTER, ID) {
                let resource = format!("{bucket}/objects/{}", at(place, &spot.key));
                let may = |permission| google_allows(place, profile, permission, &resource, "");
                let what = format!("{profile:?} {resource}");
                let creates = spot.creators.contains(&profile);
                ensure!(may("storage.objects.create")? == creates, "{what}");
                // Both together can replace; only the keeper has both.
                let deletes = spot.deleters.contains(&profile);
                ensure!(may("storage.objects.delete")? == deletes, "{what}");
                ensure!(may("storage.objects.get")?, "{what} is not read");
                ensure!(!may("storage.objects.update")?, "{what} is updated");
            }
            let lists = |prefix: &str| {
                google_allows(place, profile, "storage.objects.list", &bucket, prefix)
            };
            ensure!(lists(&at(place, "gc/"))?);
            ensure!(lists("other/")? == place.prefix.is_empty());
        }
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error:#}"));
}

const BLOBS: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs";

/// The texts in single quotes that follow a word.
fn quoted<'a>(text: &'a str, after: &str) -> Vec<&'a str> {
    text.split(after)
        .skip(1)
        .filter_map(|rest| rest.split('\'').next())
        .collect()
}

/// What an assignment on Azure allows. Our conditions have one form: an action
/// they are not about passes; another needs one of the paths and none of those
/// that are excepted.
fn azure_allows(place: Place<'_>, profile: Profile, action: &str, path: &str) -> Result<bool> {
    let role = match profile {
        Profile::Reader => "reader",
        Profile::Keeper => "keeper",
        Profile::Writer | Profile::Administrator => "creator",
    };
    let role: Value = serde_json::from_str(&filled(&format!("azure-role-{role}.json"), place)?)?;
    if !texts(&role["DataActions"]).contains(&action) {
        return Ok(false);
    }
    if profile == Profile::Reader {
        return Ok(true);
    }
    let file = format!("azure-{}-condition.txt", profile.name());
    let condition = filled(&file, place)?;
    if !quoted(&condition, "!(ActionMatches{'").contains(&action) {
        return Ok(true);
    }
    let covered = |operator| {
        quoted(&condition, operator)
            .iter()
            .any(|pattern| covers(pattern, path))
    };
    Ok(covered(":path] StringLike '") && !covered(":path] StringNotLike '"))
}

#[test]
fn on_azure_the_places_are_the_same() {
    let check = || -> Result<()> {
        for (place, profile) in places()
            .into_iter()
            .flat_map(|place| Profile::ALL.map(|profile| (place, profile)))
        {
            for spot in spots(CLUSTER, ID) {
                let path = at(place, &spot.key);
                let may =
                    |action| azure_allows(place, profile, &format!("{BLOBS}/{action}"), &path);
                let what = format!("{profile:?} {path}");
                let creates = spot.creators.contains(&profile);
                ensure!(may("add/action")? == creates, "{what}");
                let deletes = spot.deleters.contains(&profile);
                ensure!(may("delete")? == deletes, "{what}");
                ensure!(may("read")?, "{what} is not read");
                for never in ["write", "deleteBlobVersion/action", "move/action"] {
                    ensure!(!may(never)?, "{what}: {never}");
                }
            }
        }
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn patterns_cover_what_they_should() {
    assert!(covers("a/*/c", "a/b/x/c") && covers("*", "") && covers("??", "ab"));
    assert!(!covers("a/*/c", "a/b") && !covers("??", "a") && !covers("a", "ab"));
}

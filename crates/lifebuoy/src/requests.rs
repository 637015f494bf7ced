//! The requests that commands make, as objects. Pure, but for reading the file
//! of `-f`.

use std::{fs, path::Path};

use kube::core::ObjectMeta;
use lifebuoy_api::{
    Backup, BackupSpec, Restore, RestoreMode, RestoreSource, RestoreSpec, SCHEDULE_LABEL, Schedule,
    Selection,
};
use serde::Deserialize;

use crate::{
    args::{CreateBackup, CreateRestore, RestoreRequest},
    error::Error,
};

/// How long the Restore of `restore plan` and its plan stay in the cluster, in
/// seconds: a day to review it.
const PLAN_TTL_SECONDS: i64 = 24 * 60 * 60;

/// A Backup of `spec`; without a name, the API server makes one up.
pub(crate) fn backup(name: Option<&str>, spec: BackupSpec) -> Backup {
    Backup {
        metadata: metadata(name, "backup-"),
        spec,
        status: None,
    }
}

/// The spec that the options say.
pub(crate) fn backup_spec(args: &CreateBackup, repository: &str) -> BackupSpec {
    let mut selection = Selection::default();
    args.selection.apply(&mut selection);
    BackupSpec {
        repository: repository.to_owned(),
        selection,
        volumes: args.volumes.map(Into::into).unwrap_or_default(),
        volume_policies: Vec::new(),
        hooks: Vec::new(),
        active_deadline_seconds: None,
        ttl_seconds_after_finished: None,
        cancel: false,
    }
}

/// A Backup that belongs to the lineage of a Schedule, whether that is
/// suspended or not.
pub(crate) fn backup_of(schedule: &Schedule, name: Option<&str>) -> Backup {
    let of = schedule.metadata.name.clone().unwrap_or_default();
    let template = &schedule.spec.template;
    let mut labels = template.metadata.labels.clone();
    labels.insert(SCHEDULE_LABEL.to_owned(), of.clone());
    let mut metadata = metadata(name, &format!("{of}-by-hand-"));
    metadata.labels = Some(labels);
    metadata.annotations =
        Some(template.metadata.annotations.clone()).filter(|annotations| !annotations.is_empty());
    Backup {
        metadata,
        spec: template.spec.clone(),
        status: None,
    }
}

/// A Restore that only plans.
pub(crate) fn plan(request: &RestoreRequest) -> Result<Restore, Error> {
    let mut spec = restore_spec(request)?;
    spec.mode = RestoreMode::Plan;
    spec.plan_digest = None;
    spec.ttl_seconds_after_finished
        .get_or_insert(PLAN_TTL_SECONDS);
    Ok(Restore {
        metadata: metadata(request.name.as_deref(), "plan-"),
        spec,
        status: None,
    })
}

/// A Restore that runs.
pub(crate) fn restore(args: &CreateRestore) -> Result<Restore, Error> {
    let mut spec = restore_spec(&args.request)?;
    spec.mode = RestoreMode::Run;
    if args.plan_digest.is_some() {
        spec.plan_digest.clone_from(&args.plan_digest);
    }
    if args.rerun.is_some() {
        spec.rerun.clone_from(&args.rerun);
    }
    Ok(Restore {
        metadata: metadata(args.request.name.as_deref(), "restore-"),
        spec,
        status: None,
    })
}

/// The spec of the file, changed by the options.
fn restore_spec(request: &RestoreRequest) -> Result<RestoreSpec, Error> {
    let mut spec = match &request.file {
        Some(path) => read_spec(path)?,
        None => RestoreSpec {
            from: RestoreSource::default(),
            mode: RestoreMode::default(),
            plan_digest: None,
            selection: Selection::default(),
            mapping: Default::default(),
            transforms: Vec::new(),
            existing: Default::default(),
            volumes: Default::default(),
            existing_volumes: Default::default(),
            rerun: None,
            ttl_seconds_after_finished: None,
            cancel: false,
        },
    };
    let from = &request.from;
    let given = RestoreSource {
        recovery_point: from.from_point.clone(),
        repository: from.repository.clone(),
        snapshot: from.snapshot.clone(),
        cluster: from.cluster.clone(),
        schedule: from.schedule.clone(),
    };
    if given.snapshot.is_some() || given.cluster.is_some() || given.recovery_point.is_some() {
        let repository = spec
            .from
            .repository
            .take()
            .filter(|_| given.recovery_point.is_none());
        spec.from = RestoreSource {
            repository: given.repository.or(repository),
            ..given
        };
    } else if given.repository.is_some() {
        spec.from.repository = given.repository;
    }
    request.selection.apply(&mut spec.selection);
    request.remap.apply(&mut spec.mapping);
    if let Some(existing) = request.existing {
        spec.existing.policy = existing.into();
    }
    if let Some(volumes) = request.volumes {
        spec.volumes = volumes.into();
    }
    if let Some(existing_volumes) = request.existing_volumes {
        spec.existing_volumes = existing_volumes.into();
    }
    Ok(spec)
}

/// Whether the options or the file name objects of the cluster.
///
/// # Errors
/// [`Error::File`] when the file cannot be read.
pub(crate) fn names_objects(request: &RestoreRequest) -> Result<bool, Error> {
    if request.from.from_point.is_some() || request.from.repository.is_some() {
        return Ok(true);
    }
    let Some(path) = &request.file else {
        return Ok(false);
    };
    let from = read_spec(path)?.from;
    Ok(from.recovery_point.is_some() || from.repository.is_some())
}

/// A manifest of a Restore, or its spec alone.
fn read_spec(path: &Path) -> Result<RestoreSpec, Error> {
    let unreadable = |message: String| Error::File {
        path: path.display().to_string(),
        message,
    };
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    parse_spec(&text).map_err(unreadable)
}

fn parse_spec(text: &str) -> Result<RestoreSpec, String> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(default)]
        kind: Option<String>,
    }
    let manifest: Manifest = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    match manifest.kind.as_deref() {
        None => serde_saphyr::from_str(text).map_err(|error| error.to_string()),
        Some("Restore") => serde_saphyr::from_str::<Restore>(text)
            .map(|restore| restore.spec)
            .map_err(|error| error.to_string()),
        Some(other) => Err(format!("it holds a {other}, and a Restore is expected")),
    }
}

fn metadata(name: Option<&str>, prefix: &str) -> ObjectMeta {
    match name {
        Some(name) => ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        None => ObjectMeta {
            generate_name: Some(prefix.to_owned()),
            ..ObjectMeta::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{BackupCommand, Cli, Command, RestoreCommand};

    fn parsed(line: &str) -> Command {
        Cli::parse_from(["lifebuoy"].into_iter().chain(line.split_whitespace())).command
    }

    fn restore_of(line: &str) -> Restore {
        match parsed(line) {
            Command::Restore(RestoreCommand::Create(create)) => restore(&create).unwrap(),
            Command::Restore(RestoreCommand::Plan(request)) => plan(&request).unwrap(),
            _ => panic!("{line}"),
        }
    }

    fn yaml(value: &impl serde::Serialize) -> String {
        serde_saphyr::to_string(value).unwrap()
    }

    #[test]
    fn options_become_a_restore() {
        let made = restore_of(
            "restore create shop --repository main --cluster a --schedule nightly \
             --namespaces shop,shop-* --exclude-resources events -l app=web \
             --map-namespace shop=store --map-namespace shop-*=store-* \
             --map-storage-class fast-a=gp3 --map-ingress-class nginx=alb \
             --map-image registry.a.example/=registry.b.example/m/ --map-host *.a.example=*.b.example \
             --existing Merge --volumes Empty --rerun again --cluster-scoped None",
        );
        insta::assert_snapshot!(yaml(&made));
    }

    #[test]
    fn a_plan_stays_for_a_day() {
        insta::assert_snapshot!(yaml(&restore_of("restore plan --from-point newest")));
    }

    #[test]
    fn a_file_is_changed_by_options() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
        let made = restore_of(&format!(
            "restore create -f {folder}/restore-remapped.yaml --snapshot \
             0123456789abcdef0123456789abcdef --map-namespace shop=other --existing Fail"
        ));
        insta::assert_snapshot!(yaml(&made.spec));
    }

    #[test]
    fn a_spec_alone_is_a_file_as_well() {
        let spec = parse_spec("from: {recoveryPoint: a}\nvolumes: Empty\n").unwrap();
        assert_eq!(spec.from.recovery_point.as_deref(), Some("a"));
        assert!(
            parse_spec("kind: Backup\nspec: {}\n")
                .unwrap_err()
                .contains("a Restore is expected")
        );
        assert!(
            parse_spec("from: {recoverypoint: a}\n")
                .unwrap_err()
                .contains("recoverypoint")
        );
    }

    #[test]
    fn options_become_a_backup() {
        let Command::Backup(BackupCommand::Create(create)) = parsed(
            "backup create last --repository main --namespaces shop --resources configmaps \
             --volumes skip --cluster-scoped all",
        ) else {
            panic!("no backup")
        };
        insta::assert_snapshot!(yaml(&backup(
            create.name.as_deref(),
            backup_spec(&create, "main")
        )));
    }

    #[test]
    fn a_backup_of_a_schedule_belongs_to_it() {
        let text = include_str!("../../../examples/schedule.yaml");
        let first = text.split("---").next().unwrap();
        let schedule: Schedule = serde_saphyr::from_str(first).unwrap();
        insta::assert_snapshot!(yaml(&backup_of(&schedule, None)));
    }

    #[test]
    fn what_contradicts_itself_is_no_command_line() {
        for line in [
            "restore create --from-point a --repository b",
            "restore create --repository a --repo s3://b --cluster c",
            "restore create --repository a --schedule s",
            "restore create --repository a --snapshot s --cluster c",
            "restore create --from-point a --plan-digest abc",
            "restore create --from-point a --map-namespace shop",
            "backup create --from-schedule s --namespaces shop",
            "backup create --repository a --repo s3://b",
            "backup create --repository a --timeout 10",
            "recoverypoint list --repository a --repo s3://b",
        ] {
            let words = ["lifebuoy"].into_iter().chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
    }
}

//! Which way a volume is saved, and why. Pure.

use std::collections::BTreeMap;

use lifebuoy_api::{AccessMode, VolumeRule, VolumeType, VolumeWay};

use super::{VolumeMode, bytes_of_quantity};
use crate::{
    Error,
    archive::ObjectKey,
    selection::{Glob, LabelMatcher},
};

/// A claim with its volume, or an emptyDir of a pod, as far as a decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The claim; of an emptyDir, an [`empty_dir_key`](super::empty_dir_key).
    pub claim: ObjectKey,
    /// Its labels; of an emptyDir, those of its pod.
    pub labels: BTreeMap<String, String>,
    /// Its storage class; empty if it has none.
    pub storage_class: String,
    /// What is behind it.
    pub of: VolumeType,
    /// The CSI driver; empty for other types.
    pub driver: String,
    /// What pods see of it.
    pub mode: VolumeMode,
    /// How pods may have it.
    pub access_modes: Vec<String>,
    /// How large it is, in bytes.
    pub capacity_bytes: u64,
    /// Whether a restore has begun to overwrite it and has not ended.
    pub half_written: bool,
    /// Whether a mover can read it where a running pod has it.
    pub reach: Reach,
}

/// Whether a mover can read a volume where a running pod has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It can.
    Mounted,
    /// No running pod has it.
    NotMounted,
    /// Nobody knows where the kubelet has volumes of its type.
    Unknown,
    /// It is this path of a node itself, which movers of the installation may not read.
    NotAllowed(String),
}

/// A VolumeSnapshotClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotClass {
    /// Its name.
    pub name: String,
    /// The driver that it is for.
    pub driver: String,
    /// Whether it is the default of its driver.
    pub is_default: bool,
}

impl SnapshotClass {
    /// The class that is named, or the default of the driver, or its only one.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub fn choose<'a>(
        driver: &str,
        classes: &'a [Self],
        named: Option<&str>,
    ) -> Result<&'a str, String> {
        let mut of_driver = classes.iter().filter(|class| class.driver == driver);
        if let Some(name) = named {
            return of_driver
                .find(|class| class.name == name)
                .map(|class| class.name.as_str())
                .ok_or_else(|| {
                    format!("there is no VolumeSnapshotClass `{name}` for the driver `{driver}`")
                });
        }
        let of_driver: Vec<_> = of_driver.collect();
        let defaults: Vec<_> = of_driver.iter().filter(|class| class.is_default).collect();
        match (defaults.as_slice(), of_driver.as_slice()) {
            ([one], _) => Ok(&one.name),
            ([], [one]) => Ok(&one.name),
            ([], []) => Err(format!(
                "there is no VolumeSnapshotClass for the driver `{driver}`"
            )),
            _ => Err(format!(
                "the driver `{driver}` has several VolumeSnapshotClasses: name one by \
                 `snapshotClass`, or make one the default"
            )),
        }
    }
}

/// What is done about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A snapshot of this class is read into the repository.
    Move {
        /// The VolumeSnapshotClass.
        class: String,
        /// Why.
        reason: String,
    },
    /// A snapshot of this class is kept in the storage system.
    Snapshot {
        /// The VolumeSnapshotClass.
        class: String,
        /// Why.
        reason: String,
    },
    /// What a pod has mounted is read.
    FileSystem {
        /// Why.
        reason: String,
    },
    /// A rule says that its data is not wanted.
    Skip {
        /// Why.
        reason: String,
    },
    /// Its data is wanted, and cannot be saved.
    Impossible {
        /// Why, and what to do about it.
        reason: String,
    },
}

/// The rules of a Backup, parsed.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    namespaces: Vec<Glob>,
    labels: Option<LabelMatcher>,
    storage_classes: Vec<Glob>,
    drivers: Vec<Glob>,
    types: Vec<VolumeType>,
    access_modes: Vec<AccessMode>,
    sizes: (u64, u64),
    way: VolumeWay,
    snapshot_class: Option<String>,
}

impl Policies {
    /// Parses the rules. `path` is where they stand.
    ///
    /// # Errors
    /// [`Error::InvalidField`] with the path of what is wrong.
    pub fn parse(rules: &[VolumeRule], path: &str) -> Result<Self, Error> {
        let rules = rules.iter().enumerate();
        let rules = rules.map(|(at, rule)| Rule::parse(rule, &format!("{path}[{at}]")));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a rule asks for emptyDirs.
    #[must_use]
    pub fn save_empty_dirs(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.way != VolumeWay::Skip && rule.types.contains(&VolumeType::EmptyDir))
    }

    /// What is done about a volume in a cluster with these classes.
    #[must_use]
    pub fn decide(&self, volume: &Volume, classes: &[SnapshotClass]) -> Decision {
        let matching = self.rules.iter().position(|rule| rule.matches(volume));
        let Some(at) = matching else {
            if volume.half_written {
                return half_written();
            }
            return by_default(volume, classes);
        };
        let rule = &self.rules[at];
        let reason = format!("rule {} of `volumePolicies`", at + 1);
        let named = rule.snapshot_class.as_deref();
        match rule.way {
            VolumeWay::Skip => Decision::Skip { reason },
            _ if volume.half_written => half_written(),
            VolumeWay::FileSystem => by_file_system(volume, reason),
            VolumeWay::Move => by_snapshot(volume, classes, named, reason, to_move),
            VolumeWay::Snapshot => by_snapshot(volume, classes, named, reason, to_keep),
        }
    }
}

/// A point must not hold what nobody ever had.
fn half_written() -> Decision {
    Decision::Impossible {
        reason:
            "a restore has begun to overwrite it and has not ended: it is saved when it is whole"
                .to_owned(),
    }
}

impl Rule {
    fn parse(rule: &VolumeRule, path: &str) -> Result<Self, Error> {
        let matching = &rule.matching;
        let globs = |names: &[String], field: &str| {
            let parsed = names.iter().enumerate().map(|(at, text)| {
                Glob::parse(text).map_err(|message| {
                    Error::invalid(format!("{path}.match.{field}[{at}]"), message)
                })
            });
            parsed.collect::<Result<Vec<_>, _>>()
        };
        let size = |text: &Option<String>, field: &str, without: u64| match text {
            None => Ok(without),
            Some(text) => bytes_of_quantity(text).ok_or_else(|| {
                let message = format!("`{text}` is no size such as `10Gi`");
                Error::invalid(format!("{path}.match.{field}"), message)
            }),
        };
        let labels = matching
            .label_selector
            .as_ref()
            .map(|selector| LabelMatcher::parse(selector, &format!("{path}.match.labelSelector")));
        Ok(Self {
            namespaces: globs(&matching.namespaces, "namespaces")?,
            labels: labels.transpose()?,
            storage_classes: globs(&matching.storage_classes, "storageClasses")?,
            drivers: globs(&matching.drivers, "drivers")?,
            types: matching.volume_types.clone(),
            access_modes: matching.access_modes.clone(),
            sizes: (
                size(&matching.min_size, "minSize", 0)?,
                size(&matching.max_size, "maxSize", u64::MAX)?,
            ),
            way: rule.way,
            snapshot_class: rule.snapshot_class.clone(),
        })
    }

    fn matches(&self, volume: &Volume) -> bool {
        let named =
            |globs: &[Glob], name: &str| globs.is_empty() || globs.iter().any(|g| g.matches(name));
        let (min, max) = self.sizes;
        named(&self.namespaces, &volume.claim.namespace)
            && named(&self.storage_classes, &volume.storage_class)
            && named(&self.drivers, &volume.driver)
            && (min..=max).contains(&volume.capacity_bytes)
            && self.has_type(volume.of)
            && (self.access_modes.is_empty() || self.has_access_mode(volume))
            && self.labels.as_ref().is_none_or(|labels| {
                labels.matches(|key| volume.labels.get(key).map(String::as_str))
            })
    }

    /// An emptyDir is nobody's data unless a rule says so.
    fn has_type(&self, of: VolumeType) -> bool {
        self.types.contains(&of) || (self.types.is_empty() && of != VolumeType::EmptyDir)
    }

    fn has_access_mode(&self, volume: &Volume) -> bool {
        let wanted = self.access_modes.iter().map(|mode| format!("{mode:?}"));
        wanted
            .into_iter()
            .any(|mode| volume.access_modes.contains(&mode))
    }
}

fn by_default(volume: &Volume, classes: &[SnapshotClass]) -> Decision {
    if volume.of == VolumeType::EmptyDir {
        let reason = "no rule of `volumePolicies` names it".to_owned();
        return Decision::Skip { reason };
    }
    if volume.of != VolumeType::Csi {
        return Decision::Impossible {
            reason: format!(
                "its volume is of the type {:?}: choose `way: FileSystem` or `way: Skip` for it \
                 in `volumePolicies`",
                volume.of
            ),
        };
    }
    if classes.iter().any(|class| class.driver == volume.driver) {
        let reason = format!("the driver `{}` takes snapshots", volume.driver);
        return by_snapshot(volume, classes, None, reason, to_move);
    }
    let reason = format!(
        "there is no VolumeSnapshotClass for the driver `{}`",
        volume.driver
    );
    by_file_system(volume, reason)
}

fn by_file_system(volume: &Volume, reason: String) -> Decision {
    let but = match (volume.mode, &volume.reach) {
        (VolumeMode::Filesystem, Reach::Mounted) => return Decision::FileSystem { reason },
        (VolumeMode::Block, _) => {
            "a block volume has no files to read: take `way: Move`".to_owned()
        }
        (_, Reach::NotMounted) => {
            "no running pod has it mounted, so there is nothing to read it from".to_owned()
        }
        (_, Reach::Unknown) => {
            "movers do not know where a node has volumes of this type: take `way: Skip`".to_owned()
        }
        (_, Reach::NotAllowed(path)) => {
            format!("hostPath `{path}` is not among `movers.hostPaths` of the installation")
        }
    };
    Decision::Impossible {
        reason: format!("{reason}, and {but}"),
    }
}

const fn to_move(class: String, reason: String) -> Decision {
    Decision::Move { class, reason }
}

const fn to_keep(class: String, reason: String) -> Decision {
    Decision::Snapshot { class, reason }
}

fn by_snapshot(
    volume: &Volume,
    classes: &[SnapshotClass],
    named: Option<&str>,
    reason: String,
    decision: fn(String, String) -> Decision,
) -> Decision {
    if volume.of != VolumeType::Csi {
        return Decision::Impossible {
            reason: format!("{reason} asks for a snapshot, and only CSI volumes have them"),
        };
    }
    match SnapshotClass::choose(&volume.driver, classes, named) {
        Ok(class) => decision(class.to_owned(), reason),
        Err(message) => Decision::Impossible {
            reason: format!("{reason}, but {message}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::VolumeMatch;

    use super::*;

    fn volume(change: impl FnOnce(&mut Volume)) -> Volume {
        let mut volume = Volume {
            claim: ObjectKey::new("shop", "data"),
            labels: BTreeMap::from([("tier".to_owned(), "db".to_owned())]),
            storage_class: "fast".to_owned(),
            of: VolumeType::Csi,
            driver: "csi.example.com".to_owned(),
            mode: VolumeMode::Filesystem,
            access_modes: vec!["ReadWriteOnce".to_owned()],
            capacity_bytes: 1 << 30,
            half_written: false,
            reach: Reach::Mounted,
        };
        change(&mut volume);
        volume
    }

    fn class(name: &str, is_default: bool) -> SnapshotClass {
        SnapshotClass {
            name: name.to_owned(),
            driver: "csi.example.com".to_owned(),
            is_default,
        }
    }

    fn rule(way: VolumeWay, change: impl FnOnce(&mut VolumeMatch)) -> VolumeRule {
        let mut matching = VolumeMatch::default();
        change(&mut matching);
        VolumeRule {
            matching,
            way,
            snapshot_class: None,
        }
    }

    fn decided(rules: &[VolumeRule], volume: &Volume, classes: &[SnapshotClass]) -> String {
        match Policies::parse(rules, "p").unwrap().decide(volume, classes) {
            Decision::Move { class, reason } => format!("Move {class}: {reason}"),
            Decision::Snapshot { class, reason } => format!("Snapshot {class}: {reason}"),
            Decision::FileSystem { reason } => format!("FileSystem: {reason}"),
            Decision::Skip { reason } => format!("Skip: {reason}"),
            Decision::Impossible { reason } => format!("Impossible: {reason}"),
        }
    }

    #[test]
    fn a_volume_that_no_rule_matches_goes_the_best_way_there_is() {
        let one = [class("snap", false)];
        let v = volume(|_| {});
        assert_eq!(
            decided(&[], &v, &one),
            "Move snap: the driver `csi.example.com` takes snapshots"
        );
        assert!(decided(&[], &v, &[]).starts_with("FileSystem: there is no VolumeSnapshotClass"));
        let unmounted = volume(|v| v.reach = Reach::NotMounted);
        assert!(decided(&[], &unmounted, &[]).starts_with("Impossible"));
        let nfs = volume(|v| v.of = VolumeType::Nfs);
        assert!(decided(&[], &nfs, &one).starts_with("Impossible: its volume is of the type Nfs"));
        let block = volume(|v| v.mode = VolumeMode::Block);
        assert!(decided(&[], &block, &[]).starts_with("Impossible"));
        assert!(decided(&[], &block, &one).starts_with("Move"));
    }

    #[test]
    fn what_is_half_written_is_not_saved() {
        let one = [class("snap", false)];
        let v = volume(|v| v.half_written = true);
        assert!(decided(&[], &v, &one).starts_with("Impossible: a restore has begun"));
        for (way, begins) in [
            (VolumeWay::Move, "Impossible: a restore has begun"),
            (VolumeWay::FileSystem, "Impossible: a restore has begun"),
            (VolumeWay::Skip, "Skip"),
        ] {
            assert!(decided(&[rule(way, |_| {})], &v, &one).starts_with(begins));
        }
    }

    #[test]
    fn what_a_mover_cannot_reach_is_not_read() {
        let by_rule = [rule(VolumeWay::FileSystem, |_| {})];
        let reached = |reach| {
            let v = volume(|v| (v.of, v.reach) = (VolumeType::HostPath, reach));
            decided(&by_rule, &v, &[])
        };
        insta::assert_snapshot!([
            reached(Reach::Mounted),
            reached(Reach::NotMounted),
            reached(Reach::Unknown),
            reached(Reach::NotAllowed("/etc".to_owned())),
        ].join("\n"), @"
        FileSystem: rule 1 of `volumePolicies`
        Impossible: rule 1 of `volumePolicies`, and no running pod has it mounted, so there is nothing to read it from
        Impossible: rule 1 of `volumePolicies`, and movers do not know where a node has volumes of this type: take `way: Skip`
        Impossible: rule 1 of `volumePolicies`, and hostPath `/etc` is not among `movers.hostPaths` of the installation
        ");
    }

    #[test]
    fn an_empty_dir_is_saved_by_a_rule_that_names_it_and_never_otherwise() {
        let empty_dir = volume(|v| {
            v.of = VolumeType::EmptyDir;
            (v.storage_class, v.driver) = (String::new(), String::new());
        });
        let naming = |way| rule(way, |m| m.volume_types = vec![VolumeType::EmptyDir]);
        let all = rule(VolumeWay::FileSystem, |_| {});
        for (rules, expected, asks) in [
            (vec![], "Skip", false),
            (vec![all.clone()], "Skip", false),
            (vec![naming(VolumeWay::Skip)], "Skip", false),
            (
                vec![all, naming(VolumeWay::FileSystem)],
                "FileSystem: rule 2",
                true,
            ),
            (vec![naming(VolumeWay::Move)], "Impossible: rule 1", true),
        ] {
            let told = decided(&rules, &empty_dir, &[]);
            assert!(told.starts_with(expected), "{told}");
            let policies = Policies::parse(&rules, "p").unwrap();
            assert_eq!(policies.save_empty_dirs(), asks, "{told}");
        }
    }

    #[test]
    fn of_several_classes_the_default_is_taken_or_one_must_be_named() {
        let v = volume(|_| {});
        let two = [class("a", false), class("b", true)];
        assert!(decided(&[], &v, &two).starts_with("Move b"));
        let none = [class("a", false), class("b", false)];
        assert!(decided(&[], &v, &none).contains("several VolumeSnapshotClasses"));
        let mut named = rule(VolumeWay::Move, |_| {});
        named.snapshot_class = Some("a".to_owned());
        assert_eq!(
            decided(&[named.clone()], &v, &two),
            "Move a: rule 1 of `volumePolicies`"
        );
        named.snapshot_class = Some("c".to_owned());
        assert!(decided(&[named], &v, &two).contains("no VolumeSnapshotClass `c`"));
    }

    #[test]
    fn a_snapshot_is_kept_only_where_a_rule_says_so_and_storage_has_them() {
        let kept = [rule(VolumeWay::Snapshot, |_| {})];
        let one = [class("snap", false)];
        assert_eq!(
            decided(&kept, &volume(|_| {}), &one),
            "Snapshot snap: rule 1 of `volumePolicies`"
        );
        assert!(decided(&kept, &volume(|_| {}), &[]).starts_with("Impossible: rule 1"));
        let nfs = volume(|v| v.of = VolumeType::Nfs);
        assert!(decided(&kept, &nfs, &one).contains("only CSI volumes"));
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        type Change = fn(&mut VolumeMatch);
        let cases: &[(&str, Change, bool)] = &[
            ("all", |_| {}, true),
            ("namespace", |m| m.namespaces = vec!["sh*".into()], true),
            (
                "other namespace",
                |m| m.namespaces = vec!["x".into()],
                false,
            ),
            ("class", |m| m.storage_classes = vec!["fast".into()], true),
            (
                "other class",
                |m| m.storage_classes = vec!["slow".into()],
                false,
            ),
            ("driver", |m| m.drivers = vec!["*.example.com".into()], true),
            ("other driver", |m| m.drivers = vec!["nfs".into()], false),
            ("type", |m| m.volume_types = vec![VolumeType::Csi], true),
            (
                "other type",
                |m| m.volume_types = vec![VolumeType::Nfs],
                false,
            ),
            (
                "mode",
                |m| m.access_modes = vec![AccessMode::ReadWriteOnce],
                true,
            ),
            (
                "other mode",
                |m| m.access_modes = vec![AccessMode::ReadWriteMany],
                false,
            ),
            ("large", |m| m.min_size = Some("1Gi".into()), true),
            ("larger", |m| m.min_size = Some("1025Mi".into()), false),
            ("small", |m| m.max_size = Some("1Gi".into()), true),
            ("smaller", |m| m.max_size = Some("1023Mi".into()), false),
            (
                "labels",
                |m| {
                    m.label_selector =
                        serde_json::from_str(r#"{"matchLabels": {"tier": "db"}}"#).ok();
                },
                true,
            ),
            (
                "other labels",
                |m| {
                    m.label_selector =
                        serde_json::from_str(r#"{"matchLabels": {"tier": "web"}}"#).ok();
                },
                false,
            ),
        ];
        for (name, change, matches) in cases {
            let rules = [
                rule(VolumeWay::Skip, change),
                rule(VolumeWay::FileSystem, |_| {}),
            ];
            let expected = if *matches { "Skip" } else { "FileSystem" };
            let told = decided(&rules, &volume(|_| {}), &[]);
            assert!(told.starts_with(expected), "{name}: {told}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_rule_is_named() {
        for (change, path) in [
            (
                (|m: &mut VolumeMatch| m.namespaces = vec!["a[".into()]) as fn(&mut _),
                "p[0].match.namespaces[0]",
            ),
            (|m| m.min_size = Some("much".into()), "p[0].match.minSize"),
        ] {
            let error = Policies::parse(&[rule(VolumeWay::Skip, change)], "p").unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}

//! A repository can be read when lifebuoy is gone: the reader in
//! `tests/reader/`, written from `docs/format.md` alone, lists, verifies and
//! extracts what this version and every version before it wrote, and names
//! what is damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use lifebuoy_scenarios::{World, namespace, operator_binary, scenario};
use lifebuoy_testkit::TestDirectory;
use lifebuoy_testkit::oddities;
use lifebuoy_testkit::python::{ensure_python, reader_folder};
use lifebuoy_testkit::tools::workspace_root;
use serde_json::Value;

/// A repository in a directory, and the file with its passphrase.
struct Place {
    bucket: PathBuf,
    passphrase: PathBuf,
}

impl Place {
    /// Runs a program of `tests/reader/` on it.
    fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        Ok(python()?
            .arg(reader_folder().join(program))
            .arg("--repository")
            .arg(&self.bucket)
            .arg("--passphrase-file")
            .arg(&self.passphrase)
            .args(args)
            .output()?)
    }

    fn read(&self, args: &[&str]) -> Result<String> {
        succeeded(&self.run("lifebuoy_reader.py", args)?)
    }

    fn read_json(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.read(args)?)?)
    }
}

fn python() -> Result<Command> {
    Ok(Command::new(ensure_python(&|line| println!("{line}"))?))
}

fn succeeded(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {text}{errors}", output.status);
    Ok(text)
}

/// Every golden repository, one a format version.
fn golden() -> Result<Vec<(PathBuf, Place)>> {
    let root = workspace_root().join("tests/golden");
    let mut found = Vec::new();
    for entry in fs::read_dir(&root).with_context(|| format!("{}", root.display()))? {
        let folder = entry?.path();
        if folder.is_dir() {
            let place = Place {
                bucket: folder.join("bucket"),
                passphrase: folder.join("passphrase"),
            };
            found.push((folder, place));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    ensure!(!found.is_empty(), "no golden repository");
    Ok(found)
}

fn done(result: Result<()>) {
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

#[test]
fn the_reader_passes_its_own_tests() {
    done((|| {
        let output = python()?
            .args(["-B", "-m", "unittest", "--verbose"])
            .current_dir(reader_folder())
            .output()?;
        succeeded(&output)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(said.contains("test_pack"), "it ran nothing: {said}");
        Ok(())
    })());
}

#[test]
fn every_golden_repository_is_read_without_lifebuoy() {
    done((|| {
        for (folder, place) in golden()? {
            let what = || format!("{}", folder.display());
            let verified = place.read_json(&["--json", "verify"]).with_context(what)?;
            ensure!(verified["findings"] == serde_json::json!([]), "{verified}");

            let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json"))?)?;
            // With the index deltas, and by the trailers of the packs alone.
            for how in [&["describe"][..], &["--without-index", "describe"]] {
                ensure!(place.read_json(how)? == expected, "{}: {how:?}", what());
            }
            extracts(&place, &expected).with_context(what)?;
        }
        Ok(())
    })());
}

/// Every snapshot of a cluster comes out as so many files as it has objects. What a
/// machine saved needs root for some of it: that is another test's.
fn extracts(place: &Place, expected: &Value) -> Result<()> {
    let mut folder = TestDirectory::new("extracted")?;
    let snapshots = expected["snapshots"].as_array().context("no snapshots")?;
    ensure!(!snapshots.is_empty(), "it has no snapshot");
    for snapshot in snapshots {
        let session = snapshot["session"].as_str().context("no session")?;
        if snapshot["summary"].get("data").is_some() {
            continue;
        }
        let target = folder.path().join(session);
        let target = target.to_str().context("not UTF-8")?;
        let said = place.read_json(&["--json", "extract", session, target])?;
        let objects = &snapshot["summary"]["objects"];
        ensure!(said["objects"] == *objects, "{said} instead of {objects}");
        ensure!(count_files(Path::new(target))? == objects.as_u64().unwrap_or(0));
    }
    folder.passed();
    Ok(())
}

fn count_files(folder: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        count += if path.is_dir() {
            count_files(&path)?
        } else {
            1
        };
    }
    Ok(count)
}

#[test]
fn every_planted_fault_is_named() {
    done((|| {
        for (folder, place) in golden()? {
            let said = succeeded(&place.run("corruption.py", &[])?)
                .with_context(|| format!("{}", folder.display()))?;
            println!("{}: {}", folder.display(), said.trim());
        }
        Ok(())
    })());
}

#[test]
fn files_and_devices_are_extracted_as_they_were() {
    done((|| {
        let mut folder = TestDirectory::new("machine")?;
        let at = |name: &str| folder.path().join(name);
        let place = Place {
            bucket: at("bucket"),
            passphrase: at("passphrase"),
        };
        fs::create_dir(&place.bucket)?;
        fs::write(&place.passphrase, "pass phrase\n")?;
        oddities::make(&at("tree"))?;
        fs::write(at("tree/larger"), oddities::noise(1, 20 << 20))?;
        oddities::make_image(&at("image"))?;
        by_hand(&place, &["repo", "init"])?;
        let (tree, image) = (at("tree"), at("image"));
        let (tree, image) = (text(&tree)?, text(&image)?);
        let save_both = || -> Result<()> {
            by_hand(&place, &["repo", "save", tree])?;
            by_hand(&place, &["repo", "save", "--device", image])?;
            Ok(())
        };
        save_both()?;
        oddities::change(&at("tree"))?;
        oddities::change_image(&at("image"))?;
        save_both()?;

        let verified = place.read(&["verify"])?;
        ensure!(verified.contains("2 devices: 0 findings"), "{verified}");
        let snapshots = place.read_json(&["--json", "list"])?;
        for (n, kind, from) in [(2, "Files", "tree"), (3, "Device", "image")] {
            let snapshot = &snapshots[n];
            ensure!(snapshot["summary"]["kind"] == kind, "{snapshots}");
            let session = snapshot["session"].as_str().context("no session")?;
            let to = at(&format!("{from}, extracted"));
            place.read(&["extract", session, text(&to)?])?;
            let (expected, found) = (oddities::seen(&at(from))?, oddities::seen(&to)?);
            ensure!(expected.keys().eq(found.keys()), "{:?}", found.keys());
            for (path, expected) in &expected {
                // Of an image only its bytes are saved.
                let is_same = match kind {
                    "Device" => found[path].contents == expected.contents,
                    _ => found[path] == *expected,
                };
                ensure!(is_same, "{from}/{} is another", path.display());
            }
        }
        for top in ["tree", "tree, extracted"] {
            oddities::let_go(&at(top))?;
        }
        folder.passed();
        Ok(())
    })());
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

#[test]
fn what_this_version_writes_is_read_too() {
    scenario(async {
        let world = World::shared().await?;
        let client = world.client();
        let mut folder = TestDirectory::new("others")?;
        let source = namespace(&client, "others").await?;
        let configmap = ConfigMap {
            metadata: ObjectMeta {
                name: Some("kept".into()),
                ..ObjectMeta::default()
            },
            data: Some([("a".to_owned(), "ä\n\u{1}".to_owned())].into()),
            ..ConfigMap::default()
        };
        let configmaps: Api<ConfigMap> = Api::namespaced(client, &source);
        let live = configmaps
            .create(&PostParams::default(), &configmap)
            .await?;

        let place = Place {
            bucket: folder.path().join("bucket"),
            passphrase: folder.path().join("passphrase"),
        };
        fs::create_dir(&place.bucket)?;
        fs::write(&place.passphrase, "pass phrase\n")?;
        lifebuoy(world, &place, &["repo", "init"])?;
        let save = ["backup", "create", "--cluster-name=others", "--namespaces"];
        for _ in 0..2 {
            lifebuoy(world, &place, &[&save[..], &[source.as_str()]].concat())?;
        }

        ensure!(place.read(&["verify"])?.contains(" 0 findings"));
        let snapshots = place.read_json(&["--json", "list"])?;
        let newest = snapshots[1]["session"].as_str().context("not two")?;
        let extracted = folder.path().join("extracted");
        place.read(&["extract", newest, extracted.to_str().context("not UTF-8")?])?;
        let file = extracted.join("configmaps").join(&source).join("kept.json");
        let found: ConfigMap = serde_json::from_slice(&fs::read(file)?)?;
        ensure!(found == live, "{found:?}");
        folder.passed();
        Ok(())
    });
}

fn lifebuoy(world: &World, place: &Place, args: &[&str]) -> Result<String> {
    let kubeconfig = world.installation.cluster.kubeconfig();
    succeeded(
        &command(place, args)?
            .env("KUBECONFIG", kubeconfig)
            .output()?,
    )
}

/// Without a cluster.
fn by_hand(place: &Place, args: &[&str]) -> Result<String> {
    succeeded(&command(place, args)?.output()?)
}

fn command(place: &Place, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(operator_binary()?);
    command
        .args(args)
        .arg("--repo")
        .arg(format!("file://{}", place.bucket.display()))
        .arg("--passphrase-file")
        .arg(&place.passphrase);
    Ok(command)
}

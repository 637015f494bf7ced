//! The testkit, tried on itself.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use lifebuoy_testkit::compare::{Difference, Picture, Remapping, Scope, differences};
use lifebuoy_testkit::counting_proxy::{Fault, FaultScope};
use lifebuoy_testkit::kubectl::CommandLine;
use lifebuoy_testkit::load::{LoadSpec, OBJECTS_PER_NAMESPACE, create_floor, list_floor};
use lifebuoy_testkit::s3::{BUCKET, PolicedS3, Protection, REGION, Rights, S3User};
use lifebuoy_testkit::{
    ControlPlane, ControlPlaneOptions, CountingProxy, Process, ProcessSpec, S3Server,
    TestDirectory, sample,
};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde_json::json;

fn store(endpoint: &str, user: &str, secret: &str) -> Result<AmazonS3> {
    let builder = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_region(REGION)
        .with_access_key_id(user)
        .with_secret_access_key(secret)
        .with_retry(object_store::RetryConfig {
            max_retries: 0,
            ..Default::default()
        });
    Ok(builder.build()?)
}

fn store_of(s3: &S3Server, user: &S3User) -> Result<AmazonS3> {
    store(&s3.endpoint(), &user.access_key, &user.secret_key)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_run_side_by_side_and_are_compared() -> Result<()> {
    let (a, b) = tokio::join!(
        ControlPlane::start(ControlPlaneOptions::named("a")),
        ControlPlane::start(ControlPlaneOptions {
            audit: true,
            ..ControlPlaneOptions::bare("b")
        }),
    );
    let (a, b) = (a?, b?);
    let deployed = sample::deploy(&a.admin()).await?;

    let scope = Scope::namespaces(sample::NAMESPACES).with_cluster_scoped(sample::CLUSTER_SCOPED);
    let before = Picture::read(&a.admin(), &scope).await?;
    // What the controllers add (pods, replica sets, endpoints) does not count,
    // and the classes are not in the scope.
    let claims_of_the_stateful_set = 2;
    assert_eq!(
        before.len(),
        deployed - sample::CLASSES.len() + claims_of_the_stateful_set
    );
    let again = Picture::read(&a.admin(), &scope).await?;
    assert_eq!(
        differences(&before.expected(&Remapping::identity()), &again),
        []
    );

    plant_differences(&a).await?;
    let after = Picture::read(&a.admin(), &scope).await?;
    let found: Vec<String> = differences(&before, &after)
        .iter()
        .map(Difference::to_string)
        .collect();
    assert_eq!(found.len(), 4, "{found:#?}");
    let text = found.join("\n");
    assert!(
        text.contains("ConfigMap shop/price-list is missing"),
        "{text}"
    );
    assert!(
        text.contains("ConfigMap shop/new should not be there"),
        "{text}"
    );
    assert!(text.contains("/spec/replicas is 7, expected 1"), "{text}");
    assert!(
        text.contains("Secret shop/web-session: /data/key"),
        "{text}"
    );
    assert!(
        !text.contains("c2VjcmV0"),
        "a Secret's value was shown: {text}"
    );

    // The other cluster has none of it, and counts who asked.
    let elsewhere = Picture::read(&b.admin(), &scope).await?;
    assert_eq!(differences(&before, &elsewhere).len(), before.len());
    assert!(
        b.request_counts()?
            .of("admin")
            .get("list")
            .is_some_and(|lists| *lists > 10)
    );
    tokio::join!(a.stop(), b.stop());
    Ok(())
}

async fn plant_differences(plane: &ControlPlane) -> Result<()> {
    let config_maps: Api<ConfigMap> = Api::namespaced(plane.admin(), "shop");
    config_maps
        .delete("price-list", &DeleteParams::default())
        .await?;
    let yaml = "{apiVersion: v1, kind: ConfigMap, metadata: {name: new, namespace: shop}}";
    sample::apply_yaml(&plane.admin(), yaml).await?;
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(plane.admin(), "shop");
    let patch = json!({"spec": {"replicas": 7}});
    deployments
        .patch("worker", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(plane.admin(), "shop");
    let patch = json!({"data": {"key": "c2VjcmV0"}});
    secrets
        .patch("web-session", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_takes_load_restarts_and_knows_its_accounts() -> Result<()> {
    let mut options = ControlPlaneOptions::named("busy");
    options.second_etcd_for = vec!["/secrets".to_owned()];
    options.compaction_interval = Some(Duration::from_secs(60));
    let mut plane = ControlPlane::start(options).await?;

    let spec = LoadSpec {
        objects: 3 * OBJECTS_PER_NAMESPACE,
        seed: 1,
    };
    let created = create_floor(&plane.access()?, spec).await?;
    assert_eq!(created.objects, 303);
    let listed = list_floor(&plane.access()?).await?;
    assert!(
        listed.types >= 50 && listed.pages >= listed.types,
        "{listed:?}"
    );
    assert!(plane.etcd_usage()?.peak_bytes > 0);

    let account = plane
        .client_for_service_account("default", "default")
        .await?;
    let namespaces: Api<Namespace> = Api::all(account);
    let refused = namespaces.list(&kube::api::ListParams::default()).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 403));

    plane.kill_apiserver();
    plane.restart_apiserver().await?;
    let namespaces: Api<Namespace> = Api::all(plane.admin());
    assert!(namespaces.get_opt("load-0002").await?.is_some());
    plane.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_nodes_run_pods_and_command_line_tools_reach_the_cluster() -> Result<()> {
    let options = ControlPlaneOptions {
        kwok: true,
        ..ControlPlaneOptions::named("nodes")
    };
    let plane = ControlPlane::start(options).await?;
    plane.add_fake_node("node-1").await?;
    sample::deploy(&plane.admin()).await?;
    let home = plane.directory().join("home");
    let kubectl = CommandLine::kubectl(plane.kubeconfig(), &home).await?;
    kubectl
        .run([
            "wait",
            "-n",
            "shop",
            "deployment/web",
            "--for=condition=Available",
            "--timeout=60s",
        ])
        .await?;
    let reader = plane
        .kubeconfig_for_service_account("shop-monitoring", "prometheus")
        .await?;
    let reader = CommandLine::kubectl(reader, &home).await?;
    assert_eq!(
        reader
            .output(["auth", "can-i", "list", "pods", "-A"], "")
            .await?
            .stdout,
        "yes\n"
    );
    assert_eq!(
        reader
            .output(["auth", "can-i", "get", "secrets"], "")
            .await?
            .stdout,
        "no\n"
    );
    let helm = CommandLine::helm(plane.kubeconfig(), &home).await?;
    assert!(
        helm.run(["list", "--all-namespaces"])
            .await?
            .contains("NAMESPACE")
    );
    plane.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_creates_once_and_respects_rights() -> Result<()> {
    let mut directory = TestDirectory::new("s3")?;
    let mut s3 = S3Server::start(directory.path()).await?;
    let everything = store(&s3.endpoint(), s3.access_key(), s3.secret_key())?;
    for round in 0..5 {
        let key = Key::from(format!("race/{round}"));
        let racers = (0..16).map(|racer| {
            let (everything, key) = (&everything, &key);
            async move {
                let options = PutOptions {
                    mode: PutMode::Create,
                    ..PutOptions::default()
                };
                everything
                    .put_opts(key, format!("{racer}").into(), options)
                    .await
            }
        });
        let outcomes = join_all(racers).await;
        assert_eq!(
            outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
            1,
            "{outcomes:?}"
        );
    }
    assert!(s3.bucket_directory().join("race/0").is_file());

    let reader = store_of(&s3, s3.user(Rights::ReadOnly))?;
    let writer = store_of(&s3, s3.user(Rights::WriteWithoutList))?;
    let key = Key::from("race/0");
    assert!(reader.get(&key).await.is_ok());
    assert!(reader.list_with_delimiter(None).await.is_ok());
    assert!(reader.put(&Key::from("x"), "x".into()).await.is_err());
    assert!(writer.put(&Key::from("y"), "y".into()).await.is_ok());
    assert!(writer.get(&Key::from("y")).await.is_ok());
    assert!(writer.list_with_delimiter(None).await.is_err());

    s3.hide_bucket()?;
    assert!(everything.get(&key).await.is_err());
    s3.show_bucket()?;
    s3.stop();
    assert!(everything.get(&key).await.is_err());
    s3.restart().await?;
    assert!(everything.get(&key).await.is_ok());
    directory.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_obey_their_policies_and_versions_stay() -> Result<()> {
    let mut directory = TestDirectory::new("s3")?;
    let s3 = PolicedS3::start(directory.path(), Protection::LockedVersions).await?;
    let policy = |actions: &[&str]| {
        json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": actions, "Resource": format!("arn:aws:s3:::{BUCKET}/in/*"),
        }]})
        .to_string()
    };
    let writer = s3.identity("writer", &policy(&["s3:PutObject"])).await?;
    let put = async |path| s3.send(&writer, "PUT", path, &[], "bytes").await;
    assert_eq!(put("/in/a").await?.status, 200);
    assert_eq!(put("/in/a").await?.status, 200);
    assert_eq!(put("/out/a").await?.status, 403);
    let all = ["s3:DeleteObject", "s3:DeleteObjectVersion"];
    let deleter = s3.identity("deleter", &policy(&all)).await?;
    let delete = async |path| s3.send(&deleter, "DELETE", path, &[], "").await;
    assert_eq!(delete("/in/a").await?.status, 204);
    let versions = s3.versions().await?;
    let markers = versions.iter().map(|version| version.is_delete_marker);
    assert_eq!(markers.collect::<Vec<_>>(), [true, false, false]);
    let locked = format!("/in/a?versionId={}", versions[2].id);
    assert_eq!(delete(&locked).await?.status, 403);
    let refused = s3.identity("bad", "{}").await.unwrap_err();
    assert!(format!("{refused:#}").contains("MalformedPolicyDocument"));
    directory.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_counts_and_fails_on_demand() -> Result<()> {
    let mut directory = TestDirectory::new("s3")?;
    let s3 = S3Server::start(directory.path()).await?;
    let proxy = CountingProxy::start(&s3.endpoint()).await?;
    let through = store(&proxy.endpoint(), s3.access_key(), s3.secret_key())?;
    let key = Key::from("folder/a");
    through.put(&key, vec![7; 1000].into()).await?;
    assert_eq!(through.get(&key).await?.bytes().await?.len(), 1000);
    through.list_with_delimiter(None).await?;
    let traffic = proxy.traffic();
    assert_eq!(
        (traffic.of("PUT"), traffic.of("GET"), traffic.of("LIST")),
        (1, 1, 1)
    );
    assert_eq!(traffic.sent_bytes, 1000);
    assert!(traffic.received_bytes >= 1000);

    for fault in [
        Fault::Unavailable,
        Fault::NoSuchBucket,
        Fault::Full,
        Fault::Dropped,
    ] {
        proxy.fail(fault, FaultScope::Writes, 1);
        through.put(&key, "passes".into()).await?;
        assert!(
            through.put(&key, "fails".into()).await.is_err(),
            "{fault:?}"
        );
        assert_eq!(through.get(&key).await?.bytes().await?, "passes");
    }
    proxy.heal();
    proxy.set_latency(Duration::from_millis(80));
    let started = Instant::now();
    through.put(&key, "late".into()).await?;
    assert!(started.elapsed() >= Duration::from_millis(80));
    directory.passed();
    Ok(())
}

/// Set for the second run of this test program, which is then killed.
const VICTIM_VARIABLE: &str = "LIFEBUOY_TESTKIT_VICTIM";

#[test]
fn children_die_with_a_parent_that_is_killed() -> Result<()> {
    if let Some(folder) = std::env::var_os(VICTIM_VARIABLE) {
        return be_the_victim(Path::new(&folder));
    }
    let mut directory = TestDirectory::new("deathsig")?;
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["children_die_with_a_parent_that_is_killed", "--exact"])
        .env(VICTIM_VARIABLE, directory.path())
        .stdout(Stdio::null())
        .spawn()?;
    let pid_file = directory.path().join("pid");
    let child = wait_for("the child's id", || {
        std::fs::read_to_string(&pid_file)
            .ok()
            .filter(|text| text.ends_with('\n'))
    })?;
    let proc = Path::new("/proc").join(child.trim());
    assert!(proc.exists());
    victim.kill()?;
    victim.wait()?;
    wait_for("the child's end", || (!is_alive(&proc)).then_some(()))?;
    directory.passed();
    Ok(())
}

/// Starts a child from a thread that ends, then waits to be killed.
fn be_the_victim(folder: &Path) -> Result<()> {
    let log = folder.join("child.log");
    let spec = ProcessSpec::new("child", "sleep", log).arg("600");
    let thread = std::thread::spawn(move || Process::spawn(spec));
    let child = thread.join().expect("the thread panicked")?;
    std::thread::sleep(Duration::from_millis(200));
    assert!(is_alive(&Path::new("/proc").join(child.pid().to_string())));
    std::fs::write(folder.join("pid"), format!("{}\n", child.pid()))?;
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

/// A zombie has ended, whoever should bury it.
fn is_alive(proc: &Path) -> bool {
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        if let Some(value) = condition() {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None.context(format!("waited 10 s for {what}"))
}

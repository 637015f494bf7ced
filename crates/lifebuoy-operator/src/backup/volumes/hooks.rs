//! Applications are quiesced while the snapshots of their volumes are cut, by one
//! process in their container that resumes them whatever becomes of us.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};
use lifebuoy_api::{Hook, HookFailure};
use lifebuoy_engine::{
    Error,
    selection::{Glob, LabelMatcher},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

use super::observe::SeenPod;

/// What runs in the container.
const HOLD: &str = include_str!("hold.sh");
/// What it says once the application is quiesced.
const QUIESCED: &str = "quiesced";
/// How much longer than the hook's own time is waited for its process.
const GRACE: Duration = Duration::from_secs(15);
const NOTHING: &str = ":";

/// The hooks of a Backup, parsed.
#[derive(Clone, Debug, Default)]
pub(super) struct Hooks {
    hooks: Vec<Parsed>,
}

#[derive(Clone, Debug)]
struct Parsed {
    namespaces: Vec<Glob>,
    labels: LabelMatcher,
    hook: Hook,
}

/// A hook that is run in a pod.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pod: &'a SeenPod,
    container: String,
    hook: &'a Hook,
}

/// An application that is held.
pub(super) struct Held<'a> {
    run: &'a Run<'a>,
    process: AttachedProcess,
}

impl Hooks {
    pub(super) fn parse(hooks: &[Hook], path: &str) -> Result<Self, Error> {
        let parsed = hooks.iter().enumerate().map(|(at, hook)| {
            let namespaces = hook.namespaces.iter().enumerate().map(|(n, text)| {
                Glob::parse(text)
                    .map_err(|why| Error::invalid(format!("{path}[{at}].namespaces[{n}]"), why))
            });
            Ok(Parsed {
                namespaces: namespaces.collect::<Result<_, _>>()?,
                labels: LabelMatcher::parse(
                    &hook.label_selector,
                    &format!("{path}[{at}].labelSelector"),
                )?,
                hook: hook.clone(),
            })
        });
        Ok(Self {
            hooks: parsed.collect::<Result<_, Error>>()?,
        })
    }

    /// What is run in which of the pods of a namespace, in the order of the hooks.
    pub(super) fn runs<'a>(&'a self, pods: &[&'a SeenPod]) -> Vec<Run<'a>> {
        let mut runs = Vec::new();
        for of in &self.hooks {
            let matching = pods.iter().filter(|pod| of.matches(pod));
            runs.extend(matching.map(|pod| {
                Run {
                    pod,
                    container: of
                        .hook
                        .container
                        .clone()
                        .unwrap_or_else(|| pod.containers.first().cloned().unwrap_or_default()),
                    hook: &of.hook,
                }
            }));
        }
        runs
    }
}

impl Parsed {
    fn matches(&self, pod: &SeenPod) -> bool {
        let named = self.namespaces.is_empty()
            || self
                .namespaces
                .iter()
                .any(|glob| glob.matches(&pod.namespace));
        named
            && self
                .labels
                .matches(|key| pod.labels.get(key).map(String::as_str))
    }
}

impl Run<'_> {
    pub(super) fn pod(&self) -> &SeenPod {
        self.pod
    }

    /// Whether the volumes of the pod are not to be saved if it fails.
    pub(super) fn must_work(&self) -> bool {
        self.hook.on_failure == HookFailure::Fail
    }

    fn time(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.hook.timeout_seconds).unwrap_or(1))
    }

    fn in_pod(&self, what: &str) -> String {
        format!(
            "the hook in the container `{}` of the pod `{}` {what}",
            self.container, self.pod.name
        )
    }
}

/// Quiesces applications, all at once. What fails is told, each by its run.
pub(super) async fn quiesce<'a>(
    client: &Client,
    runs: &'a [Run<'a>],
) -> Vec<Result<Held<'a>, (&'a Run<'a>, String)>> {
    let each = runs.iter().map(|run| async move {
        let held = timeout(run.time() + GRACE, hold(client, run)).await;
        match held {
            Ok(held) => held.map_err(|why| (run, why)),
            Err(_) => Err((run, run.in_pod("did not answer in time"))),
        }
    });
    join_all(each).await
}

async fn hold<'a>(client: &Client, run: &'a Run<'a>) -> Result<Held<'a>, String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &run.pod.namespace);
    let seconds = run.time().as_secs().to_string();
    let resume = run.hook.resume.as_deref().unwrap_or(NOTHING);
    let command = [
        "sh",
        "-c",
        HOLD,
        "lifebuoy-hook",
        &run.hook.quiesce,
        resume,
        &seconds,
    ];
    let params = AttachParams::default()
        .container(run.container.clone())
        .stdin(true)
        .stdout(true)
        .stderr(false);
    let process = pods.exec(&run.pod.name, command, &params).await;
    let mut process = process.map_err(|error| run.in_pod(&not_started(&error)))?;
    let stdout = process
        .stdout()
        .ok_or_else(|| run.in_pod("gives no output"))?;
    let mut lines = BufReader::new(stdout).lines();
    match lines.next_line().await {
        Ok(Some(line)) if line.trim_end() == QUIESCED => Ok(Held { run, process }),
        _ => Err(run.in_pod(&ended(process.take_status(), "ended at once").await)),
    }
}

/// What the API server says about it is no secret: it has not seen the container yet.
fn not_started(error: &kube::Error) -> String {
    let is_forbidden = match error {
        kube::Error::Api(status) => status.code == 403,
        kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(
            status,
        )) => status.as_u16() == 403,
        _ => false,
    };
    if is_forbidden {
        return "is forbidden: install the chart with `hooks.enabled=true`".to_owned();
    }
    format!("cannot be started: {error}")
}

impl<'a> Held<'a> {
    /// Lets the application go on; the error says what was wrong about it.
    pub(super) async fn resume(mut self) -> Result<(), (&'a Run<'a>, String)> {
        let run = self.run;
        let status = self.process.take_status();
        if let Some(mut stdin) = self.process.stdin() {
            // The end of its input is what it waits for.
            let _ = stdin.shutdown().await;
        }
        let ended = timeout(run.time() + GRACE, ended(status, "")).await;
        self.process.abort();
        match ended {
            Ok(what) if what.is_empty() => Ok(()),
            Ok(what) => Err((run, run.in_pod(&what))),
            Err(_) => Err((run, run.in_pod("did not end in time"))),
        }
    }
}

/// How the process ended, in words; `well` if well.
async fn ended(status: Option<impl Future<Output = Option<Status>>>, well: &str) -> String {
    let Some(status) = status else {
        return "does not tell how it ended".to_owned();
    };
    let Some(status) = status.await else {
        return "lost its connection".to_owned();
    };
    words(&status, well)
}

fn words(status: &Status, well: &str) -> String {
    if status.status.as_deref() == Some("Success") {
        return well.to_owned();
    }
    let causes = status.details.as_ref().and_then(|of| of.causes.as_ref());
    let code = causes.into_iter().flatten().find_map(|cause| {
        let is_code = cause.reason.as_deref() == Some("ExitCode");
        cause.message.as_deref().filter(|_| is_code)
    });
    match code {
        Some("71") => "could not quiesce the application: its command failed".to_owned(),
        Some("72") => "could not let the application go on: its command `resume` failed".to_owned(),
        Some("73") => "ran out of its time before the snapshots were cut".to_owned(),
        Some("126" | "127") => "could not run: the container needs `sh`".to_owned(),
        Some(code) => format!("ended with {code}"),
        None => "could not be run".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        process::{Child, Command, Stdio},
        time::Instant,
    };

    use serde_json::json;

    use super::*;

    fn start(quiesce: &str, resume: &str, seconds: &str) -> Child {
        Command::new("sh")
            .args(["-c", HOLD, "hook", quiesce, resume, seconds])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn said(child: &mut Child) -> String {
        let mut said = [0; 9];
        let count = child.stdout.as_mut().unwrap().read(&mut said).unwrap();
        String::from_utf8_lossy(&said[..count]).into_owned()
    }

    /// How it ended, whatever becomes of its input: waiting for a child closes that first.
    fn code(child: &mut Child) -> i32 {
        let _stdin = child.stdin.take();
        child.wait().unwrap().code().unwrap()
    }

    #[test]
    fn an_application_is_held_until_the_one_who_asked_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let (held, gone_on) = (
            format!("echo held > {}", file.display()),
            format!("echo on > {}", file.display()),
        );
        let state = || std::fs::read_to_string(&file).unwrap();
        let mut child = start(&held, &gone_on, "60");
        assert_eq!(said(&mut child), "quiesced\n");
        assert_eq!(state(), "held\n");
        // What it is told does not matter; that its input ends does.
        child.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
        drop(child.stdin.take());
        assert_eq!(code(&mut child), 0);
        assert_eq!(state(), "on\n");
    }

    #[test]
    fn an_application_goes_on_when_its_time_is_over() {
        let began = Instant::now();
        let mut child = start(":", ":", "1");
        assert_eq!(said(&mut child), "quiesced\n");
        assert_eq!(code(&mut child), 73);
        // Its quiescing takes longer than it may.
        assert_eq!(code(&mut start("sleep 30", ":", "1")), 73);
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_command_that_fails_is_told_and_the_application_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("on");
        let resume = format!("touch {}", file.display());
        assert_eq!(code(&mut start("exit 3", &resume, "60")), 71);
        assert!(file.exists());
        let mut child = start(":", "exit 4", "60");
        assert_eq!(said(&mut child), "quiesced\n");
        drop(child.stdin.take());
        assert_eq!(code(&mut child), 72);
    }

    #[test]
    fn how_a_process_ended_is_told_in_words() {
        let failed = |code: &str| -> Status {
            serde_json::from_value(json!({"status": "Failure", "details": {"causes":
                [{"reason": "ExitCode", "message": code}]}}))
            .unwrap()
        };
        assert!(words(&failed("72"), "").contains("resume"));
        assert_eq!(words(&failed("9"), ""), "ended with 9");
        let well: Status = serde_json::from_value(json!({"status": "Success"})).unwrap();
        assert_eq!(words(&well, "well"), "well");
    }

    #[test]
    fn hooks_are_for_pods_of_their_namespaces_and_labels() {
        let hook: Hook = serde_json::from_value(json!({
            "namespaces": ["shop*"], "labelSelector": {"matchLabels": {"app": "db"}},
            "quiesce": "x",
        }))
        .unwrap();
        let hooks = Hooks::parse(std::slice::from_ref(&hook), "spec.hooks").unwrap();
        let pod = |namespace: &str, app: &str| SeenPod {
            namespace: namespace.to_owned(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            containers: vec!["first".to_owned(), "second".to_owned()],
            ..SeenPod::default()
        };
        let pods = [
            pod("shop-1", "db"),
            pod("shop-1", "web"),
            pod("other", "db"),
        ];
        let runs = hooks.runs(&pods.iter().collect::<Vec<_>>());
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].container, "first");
        assert!(runs[0].must_work());
        let wrong = Hook {
            namespaces: vec!["a[".to_owned()],
            ..hook
        };
        let error = Hooks::parse(&[wrong], "spec.hooks").unwrap_err();
        assert!(error.to_string().contains("spec.hooks[0].namespaces[0]"));
    }
}

//! What a mover is made of in the cluster: the Job, and the Secret with its task. Makes
//! them, and removes them. Decides nothing.

use std::time::{Duration, Instant};

use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::Job,
        core::v1::{Event, Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use lifebuoy_api::FOR_LABEL;
use lifebuoy_engine::volumes::{JobRequest, MoverConfig, MoverTask, TASK_KEY, job, job_name};
use tokio::time::sleep;

use super::{LOOK_INTERVAL, MOVER_TRIES, MoverJob, error::MoverError, labels};
use crate::context::Context;

/// How long pods may take to go.
const REMOVAL_MAX: Duration = Duration::from_secs(5 * 60);
/// How often it is looked whether they are gone.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(500);

/// The objects of one mover.
pub(super) struct Objects<'a> {
    config: &'a MoverConfig,
    job: &'a MoverJob,
    pub(super) jobs: Api<Job>,
    pub(super) pods: Api<Pod>,
    pub(super) events: Api<Event>,
    secrets: Api<Secret>,
}

impl<'a> Objects<'a> {
    pub(super) fn new(context: &'a Context, job: &'a MoverJob) -> Self {
        let config = &context.config.movers;
        let client = || context.client.clone();
        Self {
            config,
            job,
            jobs: Api::namespaced(client(), &config.namespace),
            pods: Api::namespaced(client(), &config.namespace),
            events: Api::namespaced(client(), &config.namespace),
            secrets: Api::namespaced(client(), &config.namespace),
        }
    }

    /// The Job of this name: the one that is there, or a new one.
    pub(super) async fn ensure_job(
        &self,
        name: &str,
        task: &MoverTask,
        place: u16,
    ) -> Result<Job, MoverError> {
        let made = job(&JobRequest {
            name,
            labels: &labels(&self.job.for_uid),
            volume: &self.job.volume,
            node: self.job.place.node.as_deref(),
            read_only: self.job.read_only,
            restores: self.job.restores,
            place,
            session: task.session(),
            config: self.config,
        });
        loop {
            let there = self.jobs.get_opt(name).await;
            match there.map_err(MoverError::kube("read the Job of a mover"))? {
                Some(there) if there.metadata.deletion_timestamp.is_none() => return Ok(there),
                // One that was cancelled.
                Some(_) => sleep(LOOK_INTERVAL).await,
                None => match self.jobs.create(&PostParams::default(), &made).await {
                    Ok(made) => return Ok(made),
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(MoverError::kube("create the Job of a mover")(error)),
                },
            }
        }
    }

    /// The task of a Job. It goes with the Job.
    pub(super) async fn ensure_secret(&self, of: &Job, task: &MoverTask) -> Result<(), MoverError> {
        let text = serde_json::to_vec(task)
            .map_err(|error| MoverError::Failed(format!("cannot write a task: {error}")))?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: of.metadata.name.clone(),
                labels: Some(labels(&self.job.for_uid)),
                owner_references: Some(vec![owner(of)]),
                ..ObjectMeta::default()
            },
            immutable: Some(true),
            data: Some([(TASK_KEY.to_owned(), ByteString(text))].into()),
            ..Secret::default()
        };
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(()),
            // By whoever ran this mover before.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(MoverError::kube("create the Secret of a mover")(error)),
        }
    }

    /// Deletes the Jobs of all tries, and waits until their pods are gone.
    pub(super) async fn remove_all(&self) -> Result<(), MoverError> {
        let names: Vec<String> = (1..=MOVER_TRIES)
            .map(|attempt| job_name(&self.job.base, attempt))
            .collect();
        remove_jobs(&self.jobs, &self.pods, &self.job.for_uid, |name| {
            names.iter().any(|own| own == name)
        })
        .await
    }
}

fn owner(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: job.name_any(),
        uid: job.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// Deletes the Jobs made for a request that have such names, and waits until they and
/// their pods are gone.
pub(super) async fn remove_jobs(
    jobs: &Api<Job>,
    pods: &Api<Pod>,
    uid: &str,
    which: impl Fn(&str) -> bool,
) -> Result<(), MoverError> {
    let params = ListParams::default().labels(&format!("{FOR_LABEL}={uid}"));
    let begun = Instant::now();
    loop {
        let listed = jobs.list(&params).await;
        let listed = listed.map_err(MoverError::kube("list the Jobs of movers"))?;
        let mut left = None;
        for job in listed.items.iter().filter(|job| which(&job.name_any())) {
            left = Some(job.name_any());
            if job.metadata.deletion_timestamp.is_none() {
                remove(jobs, &job.name_any(), "delete the Job of a mover").await?;
            }
        }
        // Pods have the labels of their Job. One whose Job is gone may still run.
        let listed = pods.list(&params).await;
        let listed = listed.map_err(MoverError::kube("list the pods of movers"))?;
        let of = |pod: &Pod| {
            let job = pod.labels().get("batch.kubernetes.io/job-name").cloned();
            job.is_some_and(|job| which(&job))
        };
        left = listed
            .items
            .iter()
            .find(|pod| of(pod))
            .map(ResourceExt::name_any)
            .or(left);
        let Some(pod) = left else { return Ok(()) };
        let waited = begun.elapsed();
        if waited > REMOVAL_MAX {
            return Err(MoverError::StillThere { pod, waited });
        }
        sleep(REMOVAL_INTERVAL).await;
    }
}

/// Deletes an object and what it owns, if it is there.
pub(super) async fn remove<K>(
    api: &Api<K>,
    name: &str,
    what: &'static str,
) -> Result<(), MoverError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::foreground()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(MoverError::kube(what)(error)),
    }
}

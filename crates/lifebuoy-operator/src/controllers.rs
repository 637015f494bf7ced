//! Which changes wake which reconciler, and what happens when one fails.

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::unfold};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use lifebuoy_api::{Backup, Repository, Restore, SCHEDULE_LABEL, Schedule, VolumeRestore};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::{
    backup,
    context::{Context, Reconciled},
    repository, restore, schedule, volume_restore,
};

/// How often it is looked whether our kinds are served.
const KINDS_INTERVAL: Duration = Duration::from_secs(2);

/// An object of one of our kinds, which may be malformed.
type Guarded<K> = DeserializeGuard<K>;

/// What wakes all reconcilers of a kind at once: a task that has ended.
pub(crate) struct Wakers {
    pub(crate) repositories: UnboundedReceiver<()>,
    pub(crate) backups: UnboundedReceiver<()>,
    pub(crate) restores: UnboundedReceiver<()>,
    pub(crate) volume_restores: UnboundedReceiver<()>,
}

/// An object that does not parse is not touched: what is wrong with it is for
/// whoever changed the CustomResourceDefinition.
pub(crate) fn malformed<K: Resource<DynamicType = ()>>(object: &Guarded<K>) -> Action {
    if let Err(error) = &object.0 {
        tracing::error!(kind = %K::kind(&()), %error, "malformed, and left alone");
    }
    Action::await_change()
}

/// Waits until the API server serves every kind.
pub(crate) async fn kinds_are_served(client: &Client) {
    loop {
        match list_each(client).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "our kinds cannot be listed yet"),
        }
        tokio::time::sleep(KINDS_INTERVAL).await;
    }
}

async fn list_each(client: &Client) -> Result<(), kube::Error> {
    async fn list<K>(client: &Client) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let all: Api<Guarded<K>> = Api::all(client.clone());
        all.list(&ListParams::default().limit(1)).await.map(|_| ())
    }
    list::<Repository>(client).await?;
    list::<Backup>(client).await?;
    list::<Schedule>(client).await?;
    list::<Restore>(client).await?;
    list::<VolumeRestore>(client).await
}

/// A controller that is about to run.
pub(crate) struct Controlling {
    /// Runs it.
    pub(crate) work: BoxFuture<'static, ()>,
    /// Ends once it has seen every object of its kind.
    pub(crate) caught_up: BoxFuture<'static, ()>,
}

/// The controllers that this process runs, until `stop`.
pub(crate) fn controllers(
    context: &Arc<Context>,
    wakers: Wakers,
    stop: &CancellationToken,
) -> Vec<Controlling> {
    let config = &context.config;
    // Kinds that no process of the installation serves are refused by one.
    let refuses = config.repositories;
    let mut all = Vec::new();
    if config.repositories {
        all.push(repositories(
            context.clone(),
            wakers.repositories,
            stop.clone(),
        ));
    }
    if config.mode.backs_up() || (refuses && !config.installation_mode.backs_up()) {
        all.push(backups(context.clone(), wakers.backups, stop.clone()));
        all.push(schedules(context.clone(), stop.clone()));
    }
    if config.mode.restores() || (refuses && !config.installation_mode.restores()) {
        all.push(restores(context.clone(), wakers.restores, stop.clone()));
        let finished = wakers.volume_restores;
        all.push(volume_restores(context.clone(), finished, stop.clone()));
    }
    all
}

fn controller<K>(context: &Context) -> Controller<Guarded<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    Controller::new(Api::all(context.client.clone()), watcher::Config::default())
}

fn repositories(
    context: Arc<Context>,
    finished: UnboundedReceiver<()>,
    stop: CancellationToken,
) -> Controlling {
    let controller = controller::<Repository>(&context).reconcile_all_on(each(finished));
    run(controller, repository::reconcile, context, stop)
}

fn backups(
    context: Arc<Context>,
    finished: UnboundedReceiver<()>,
    stop: CancellationToken,
) -> Controlling {
    let controller = controller::<Backup>(&context);
    let store = controller.store();
    let waits =
        |backup: &Backup, name: &str| !backup::ended(backup) && backup.spec.repository == name;
    let controller = controller
        .watches(
            own::<Guarded<Repository>>(&context),
            watcher::Config::default(),
            move |repository| waiting(&store, &repository.name_any(), waits),
        )
        .reconcile_all_on(each(finished));
    run(controller, backup::reconcile, context, stop)
}

fn schedules(context: Arc<Context>, stop: CancellationToken) -> Controlling {
    let controller = controller::<Schedule>(&context).watches(
        own::<Guarded<Backup>>(&context),
        watcher::Config::default().labels(SCHEDULE_LABEL),
        |backup| {
            let namespace = backup.namespace()?;
            let name = backup.labels().get(SCHEDULE_LABEL)?;
            Some(ObjectRef::new(name).within(&namespace))
        },
    );
    run(controller, schedule::reconcile, context, stop)
}

fn restores(
    context: Arc<Context>,
    finished: UnboundedReceiver<()>,
    stop: CancellationToken,
) -> Controlling {
    let controller = controller::<Restore>(&context);
    let store = controller.store();
    // A RecoveryPoint may name the Repository, so every Restore that has not
    // ended may wait for it.
    let waits = |restore: &Restore, _: &str| !restore::ended(restore);
    let controller = controller
        .watches(
            own::<Guarded<Repository>>(&context),
            watcher::Config::default(),
            move |repository| waiting(&store, &repository.name_any(), waits),
        )
        .reconcile_all_on(each(finished));
    run(controller, restore::reconcile, context, stop)
}

fn volume_restores(
    context: Arc<Context>,
    finished: UnboundedReceiver<()>,
    stop: CancellationToken,
) -> Controlling {
    let controller = controller::<VolumeRestore>(&context);
    let store = controller.store();
    let asked = |request: &VolumeRestore, name: &str| {
        !volume_restore::ended(request) && request.spec.restore.name == name
    };
    let namespace = context.config.namespace.clone();
    // Those that are filled are in any namespace. Nothing of them is kept.
    let claims: Api<PersistentVolumeClaim> = Api::all(context.client.clone());
    let controller = controller
        .watches(claims, watcher::Config::default(), move |claim| {
            let name = volume_restore::of_claim(&claim)?;
            Some(ObjectRef::new(name).within(&namespace))
        })
        .watches(
            own::<Guarded<Restore>>(&context),
            watcher::Config::default(),
            move |restore| waiting(&store, &restore.name_any(), asked),
        )
        .reconcile_all_on(each(finished));
    run(controller, volume_restore::reconcile, context, stop)
}

fn own<K>(context: &Context) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(context.client.clone(), &context.config.namespace)
}

/// The requests in a cache that wait for the Repository of this name.
fn waiting<K>(
    store: &Store<Guarded<K>>,
    repository: &str,
    waits: impl Fn(&K, &str) -> bool,
) -> Vec<ObjectRef<Guarded<K>>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store
        .state()
        .iter()
        .filter(|object| {
            object
                .0
                .as_ref()
                .is_ok_and(|request| waits(request, repository))
        })
        .map(|object| ObjectRef::from_obj(&**object))
        .collect()
}

fn each(receiver: UnboundedReceiver<()>) -> impl futures::Stream<Item = ()> + Send + 'static {
    unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|()| ((), receiver))
    })
}

fn run<K, F>(
    controller: Controller<Guarded<K>>,
    reconcile: fn(Arc<Guarded<K>>, Arc<Context>) -> F,
    context: Arc<Context>,
    stop: CancellationToken,
) -> Controlling
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    F: Future<Output = Reconciled> + Send + 'static,
{
    let supervised = move |object: Arc<Guarded<K>>, context: Arc<Context>| async move {
        let uid = object.uid().unwrap_or_default();
        let reconciled = reconcile(object, context.clone()).await;
        if reconciled.is_ok() {
            context.succeeded(&uid);
        }
        reconciled
    };
    let failed = |object: Arc<Guarded<K>>, error: &crate::Error, context: Arc<Context>| {
        let kind = K::kind(&());
        context.metrics.reconcile_error(&kind);
        let (failures, wait) = context.failed(&object.uid().unwrap_or_default());
        let error = crate::error::sentence(error, error.hint().as_deref());
        tracing::warn!(%kind, name = object.name_any(), failures, "will be tried again: {error}");
        Action::requeue(wait)
    };
    let store = controller.store();
    let work = controller
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(supervised, failed, context)
        .for_each(|reconciled| async move {
            // Failed reconciliations are logged above; these are the watches'.
            if let Err(kube::runtime::controller::Error::QueueError(error)) = reconciled {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and begins again");
            }
        });
    let caught_up = async move {
        // An error means that the controller has ended, which others notice.
        let _ = store.wait_until_ready().await;
    };
    Controlling {
        work: Box::pin(work),
        caught_up: Box::pin(caught_up),
    }
}

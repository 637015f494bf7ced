//! Kubernetes Events about our own requests: one word and one sentence each.
//! An Event that cannot be written is logged and forgotten.

use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use lifebuoy_api::{Reason, bounded};

/// The longest note that the API server accepts, in bytes.
const NOTE_BYTES_MAX: usize = 1024;

/// Where Events go.
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: "lifebuoy".to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Something went as it should.
    pub(crate) async fn normal<K>(&self, object: &K, action: &str, reason: Reason, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(object, EventType::Normal, action, reason, note)
            .await;
    }

    /// A person should look at it.
    pub(crate) async fn warning<K>(&self, object: &K, action: &str, reason: Reason, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(object, EventType::Warning, action, reason, note)
            .await;
    }

    async fn publish<K>(
        &self,
        object: &K,
        type_: EventType,
        action: &str,
        reason: Reason,
        note: &str,
    ) where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_,
            reason: reason.as_str().to_owned(),
            note: Some(bounded(note, NOTE_BYTES_MAX)),
            action: action.to_owned(),
            secondary: None,
        };
        let reference = object.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::warn!(%error, reason = reason.as_str(), "cannot write an event");
        }
    }
}

//! Volumes and snapshots, as CSI asks for them.

use std::future::Future;

use tonic::{Request, Response, Status};

use crate::Shared;
use crate::messages::{
    AccessType, Confirmed, ContentSource, ControllerGetCapabilitiesRequest,
    ControllerGetCapabilitiesResponse, ControllerRpc, CreateSnapshotRequest,
    CreateSnapshotResponse, CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest,
    DeleteSnapshotResponse, DeleteVolumeRequest, DeleteVolumeResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, ListedSnapshot, Rpc, ServiceCapability, Snapshot, SnapshotSource,
    Timestamp, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, Volume,
    VolumeCapability, VolumeContentSource,
};
use crate::services::controller_server::Controller;
use crate::storage::{self, Kind, NewVolume, StorageError};

pub(crate) struct ControllerService {
    pub(crate) storage: Shared,
}

impl From<StorageError> for Status {
    fn from(error: StorageError) -> Self {
        let text = full_text(&error);
        match error {
            StorageError::NotFound { .. } => Self::not_found(text),
            StorageError::Exists(_) => Self::already_exists(text),
            StorageError::Invalid(_) => Self::invalid_argument(text),
            StorageError::TooSmall { .. } => Self::out_of_range(text),
            StorageError::Page(_) => Self::aborted(text),
            StorageError::Command(_) | StorageError::File { .. } | StorageError::Record { .. } => {
                Self::internal(text)
            }
        }
    }
}

/// The error with its causes, since only text goes to the caller.
fn full_text(error: &StorageError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Refuses a request without a field that it must have.
pub(crate) fn required(text: &str, error: &'static str) -> Result<(), StorageError> {
    if text.is_empty() {
        return Err(StorageError::Invalid(error));
    }
    Ok(())
}

/// What a volume with these capabilities is.
pub(crate) fn kind<'a>(
    capabilities: impl IntoIterator<Item = &'a VolumeCapability>,
) -> Result<Kind, StorageError> {
    let mut kinds = capabilities
        .into_iter()
        .map(|capability| match capability.access_type {
            Some(AccessType::Block(_)) => Ok(Kind::Block),
            Some(AccessType::Mount(_)) => Ok(Kind::Filesystem),
            None => Err(StorageError::Invalid("a capability has no access type")),
        });
    let first = kinds.next().unwrap_or(Err(StorageError::Invalid(
        "the volume's capability is missing",
    )))?;
    for kind in kinds {
        if kind? != first {
            return Err(StorageError::Invalid("a volume is of one access type"));
        }
    }
    Ok(first)
}

fn bytes(number: i64) -> Result<u64, StorageError> {
    u64::try_from(number).map_err(|_| StorageError::Invalid("a size is negative"))
}

fn new_volume(request: CreateVolumeRequest) -> Result<NewVolume, StorageError> {
    required(&request.name, "the volume's name is missing")?;
    let range = request.capacity_range.unwrap_or_default();
    let source = request
        .volume_content_source
        .and_then(|source| source.r#type);
    Ok(NewVolume {
        name: request.name,
        kind: kind(&request.volume_capabilities)?,
        required_bytes: bytes(range.required_bytes)?,
        limit_bytes: bytes(range.limit_bytes)?,
        snapshot: match source {
            None => None,
            Some(ContentSource::Snapshot(snapshot)) => Some(snapshot.snapshot_id),
            Some(ContentSource::Volume(_)) => {
                return Err(StorageError::Invalid("volumes are not cloned"));
            }
        },
    })
}

impl From<storage::Volume> for Volume {
    fn from(volume: storage::Volume) -> Self {
        let source = volume.snapshot.map(|snapshot_id| VolumeContentSource {
            r#type: Some(ContentSource::Snapshot(SnapshotSource { snapshot_id })),
        });
        Self {
            capacity_bytes: volume.capacity_bytes.cast_signed(),
            volume_id: volume.id,
            content_source: source,
        }
    }
}

impl From<storage::Snapshot> for Snapshot {
    fn from(snapshot: storage::Snapshot) -> Self {
        Self {
            size_bytes: snapshot.size_bytes.cast_signed(),
            snapshot_id: snapshot.id,
            source_volume_id: snapshot.volume,
            creation_time: Some(Timestamp {
                seconds: snapshot.taken.as_secs().cast_signed(),
                nanos: snapshot.taken.subsec_nanos().cast_signed(),
            }),
            ready_to_use: true,
        }
    }
}

/// The page of a list of snapshots that a request asks for.
fn page(
    mut snapshots: Vec<storage::Snapshot>,
    request: &ListSnapshotsRequest,
) -> Result<ListSnapshotsResponse, StorageError> {
    snapshots.retain(|snapshot| {
        let (volume, id) = (&request.source_volume_id, &request.snapshot_id);
        (volume.is_empty() || *volume == snapshot.volume) && (id.is_empty() || *id == snapshot.id)
    });
    let token = &request.starting_token;
    let first = match token.as_str() {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| StorageError::Page(token.clone()))?,
    };
    if first > snapshots.len() {
        return Err(StorageError::Page(token.clone()));
    }
    let most = match usize::try_from(request.max_entries) {
        Ok(0) => usize::MAX,
        Ok(most) => most,
        Err(_) => return Err(StorageError::Invalid("the number of entries is negative")),
    };
    let end = first.saturating_add(most).min(snapshots.len());
    let next_token = match end < snapshots.len() {
        true => end.to_string(),
        false => String::new(),
    };
    let entry = |snapshot: storage::Snapshot| ListedSnapshot {
        snapshot: Some(snapshot.into()),
    };
    Ok(ListSnapshotsResponse {
        entries: snapshots.drain(first..end).map(entry).collect(),
        next_token,
    })
}

async fn answer<T>(work: impl Future<Output = Result<T, Status>>) -> Result<Response<T>, Status> {
    work.await.map(Response::new)
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capability = |rpc: ControllerRpc| ServiceCapability {
            rpc: Some(Rpc { r#type: rpc.into() }),
        };
        let able = [
            ControllerRpc::CreateDeleteVolume,
            ControllerRpc::CreateDeleteSnapshot,
            ControllerRpc::ListSnapshots,
        ];
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: able.into_iter().map(capability).collect(),
        }))
    }

    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let new = new_volume(request.into_inner())?;
        answer(self.storage.with(|storage| {
            let volume = storage.create_volume(new)?;
            Ok(CreateVolumeResponse {
                volume: Some(volume.into()),
            })
        }))
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        required(&id, "the volume's id is missing")?;
        answer(self.storage.with(move |storage| {
            storage.delete_volume(&id)?;
            Ok(DeleteVolumeResponse {})
        }))
        .await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        required(&request.volume_id, "the volume's id is missing")?;
        let asked = kind(&request.volume_capabilities)?;
        answer(self.storage.with(move |storage| {
            let volume = storage.volume(&request.volume_id)?;
            if volume.kind != asked {
                return Ok(ValidateVolumeCapabilitiesResponse {
                    confirmed: None,
                    message: "the volume is of the other access type".to_owned(),
                });
            }
            Ok(ValidateVolumeCapabilitiesResponse {
                confirmed: Some(Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                }),
                message: String::new(),
            })
        }))
        .await
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        required(&request.name, "the snapshot's name is missing")?;
        required(&request.source_volume_id, "the volume's id is missing")?;
        answer(self.storage.with(move |storage| {
            let snapshot = storage.create_snapshot(&request.source_volume_id, &request.name)?;
            Ok(CreateSnapshotResponse {
                snapshot: Some(snapshot.into()),
            })
        }))
        .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let id = request.into_inner().snapshot_id;
        required(&id, "the snapshot's id is missing")?;
        answer(self.storage.with(move |storage| {
            storage.delete_snapshot(&id)?;
            Ok(DeleteSnapshotResponse {})
        }))
        .await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        answer(
            self.storage
                .with(move |storage| page(storage.list_snapshots()?, &request)),
        )
        .await
    }
}

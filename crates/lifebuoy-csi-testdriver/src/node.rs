//! Volumes at the paths where the kubelet wants them for its pods.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use tonic::{Request, Response, Status};

use crate::Shared;
use crate::controller::{kind, required};
use crate::messages::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest,
    NodeGetInfoResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
    NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
};
use crate::mounts;
use crate::services::node_server::Node;
use crate::storage::{Kind, Storage, StorageError, at};

pub(crate) struct NodeService {
    pub(crate) node: String,
    pub(crate) storage: Shared,
}

/// Shows a volume at a path, if it is not there yet.
fn publish(
    storage: &Storage,
    request: &NodePublishVolumeRequest,
    asked: Kind,
) -> Result<(), StorageError> {
    let volume = storage.volume(&request.volume_id)?;
    if volume.kind != asked {
        return Err(StorageError::Invalid(
            "the volume is of the other access type",
        ));
    }
    let target = Path::new(&request.target_path);
    if mounts::is_mounted(target)? {
        return Ok(());
    }
    match volume.kind {
        Kind::Filesystem => {
            fs::create_dir_all(target).map_err(at(target))?;
            mounts::bind(&storage.tree(&volume), target, request.readonly)
        }
        Kind::Block => {
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder).map_err(at(folder))?;
            }
            File::create(target).map_err(at(target))?;
            let device = mounts::attach(&storage.disk(&volume), request.readonly)?;
            mounts::bind(Path::new(&device), target, false)
        }
    }
}

/// Ends what [`publish`] began, as far as it got.
fn unpublish(storage: &Storage, id: &str, target: &Path) -> Result<(), StorageError> {
    mounts::unmount(target)?;
    let removed = match target.is_dir() {
        // Never what is in it: it may be a volume after all.
        true => fs::remove_dir(target),
        false => fs::remove_file(target),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(target)(error)),
        _ => {}
    }
    let volume = storage.volume(id)?;
    match volume.kind {
        Kind::Filesystem => Ok(()),
        Kind::Block => mounts::detach_unused(&storage.disk(&volume)),
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        // What every node does needs no mention.
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: Vec::new(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node.clone(),
        }))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        required(&request.volume_id, "the volume's id is missing")?;
        required(&request.target_path, "the target path is missing")?;
        let asked = kind(&request.volume_capability)?;
        self.storage
            .with(move |storage| publish(storage, &request, asked))
            .await?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        required(&request.volume_id, "the volume's id is missing")?;
        required(&request.target_path, "the target path is missing")?;
        self.storage
            .with(move |storage| {
                unpublish(storage, &request.volume_id, Path::new(&request.target_path))
            })
            .await?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }
}

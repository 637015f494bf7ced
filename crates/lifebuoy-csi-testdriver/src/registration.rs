//! How the kubelet learns that the driver is there.

use std::path::Path;

use tonic::{Request, Response, Status};

use crate::messages::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::services::registration_server::Registration;

/// The version of CSI that the kubelet is told.
const CSI_VERSION: &str = "1.0.0";

pub(crate) struct RegistrationService {
    info: PluginInfo,
}

impl RegistrationService {
    /// Of the driver `name`, which listens on `socket`.
    pub(crate) fn new(name: String, socket: &Path) -> Self {
        Self {
            info: PluginInfo {
                r#type: "CSIPlugin".to_owned(),
                name,
                endpoint: socket.display().to_string(),
                supported_versions: vec![CSI_VERSION.to_owned()],
            },
        }
    }
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if !status.plugin_registered {
            tracing::error!("the kubelet refuses the CSI driver: {}", status.error);
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

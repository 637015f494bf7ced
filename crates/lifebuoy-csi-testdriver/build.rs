//! Writes the traits of the gRPC services, from a list of their methods.
//!
//! No crate has a current CSI, and generating from its `.proto` would need that
//! file of another project, or Go, at each build. The driver needs a fraction
//! of it: the messages stand in `src/messages.rs`, with the fields that are
//! used (protobuf skips the others), the methods here.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let services = [
        service(
            "csi.v1",
            "Identity",
            &[
                ("get_plugin_info", "GetPluginInfo"),
                ("get_plugin_capabilities", "GetPluginCapabilities"),
                ("probe", "Probe"),
            ],
        ),
        service(
            "csi.v1",
            "Controller",
            &[
                ("controller_get_capabilities", "ControllerGetCapabilities"),
                ("create_volume", "CreateVolume"),
                ("delete_volume", "DeleteVolume"),
                ("validate_volume_capabilities", "ValidateVolumeCapabilities"),
                ("create_snapshot", "CreateSnapshot"),
                ("delete_snapshot", "DeleteSnapshot"),
                ("list_snapshots", "ListSnapshots"),
            ],
        ),
        service(
            "csi.v1",
            "Node",
            &[
                ("node_get_capabilities", "NodeGetCapabilities"),
                ("node_get_info", "NodeGetInfo"),
                ("node_publish_volume", "NodePublishVolume"),
                ("node_unpublish_volume", "NodeUnpublishVolume"),
            ],
        ),
        registration(),
    ];
    Builder::new().build_client(false).compile(&services);
}

/// A service whose messages are named after its methods, as all of CSI's are.
fn service(package: &str, name: &str, methods: &[(&str, &str)]) -> Service {
    let mut service = Service::builder().package(package).name(name);
    for (function, method) in methods {
        service = service.method(unary(
            function,
            method,
            &format!("{method}Request"),
            &format!("{method}Response"),
        ));
    }
    service.build()
}

/// How a kubelet learns of a plugin.
fn registration() -> Service {
    Service::builder()
        .package("pluginregistration")
        .name("Registration")
        .method(unary("get_info", "GetInfo", "InfoRequest", "PluginInfo"))
        .method(unary(
            "notify_registration_status",
            "NotifyRegistrationStatus",
            "RegistrationStatus",
            "RegistrationStatusResponse",
        ))
        .build()
}

fn unary(function: &str, method: &str, input: &str, output: &str) -> Method {
    Method::builder()
        .name(function)
        .route_name(method)
        .input_type(format!("crate::messages::{input}"))
        .output_type(format!("crate::messages::{output}"))
        .codec_path("tonic_prost::ProstCodec")
        .build()
}

//! Checks that are gRPC calls: an empty OTLP Export, and `grpc.health.v1.Health/Check`.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::HeaderMap;

use super::{Channel, Failure};
use crate::{
    config,
    grpc::{
        Code, HealthCheckRequest, HealthCheckResponse, ServingStatus, Status, decode_unary, encode,
    },
};

/// An empty Export, which an OpenTelemetry receiver answers with success before it looks at
/// tenant, limits or storage (OTLP specification, "Empty telemetry envelopes").
#[derive(Debug)]
pub(super) struct Otlp {
    channel: Channel,
    path: String,
}

impl Otlp {
    pub(super) fn new(address: SocketAddr, timeout: Duration, path: String) -> Self {
        Self { channel: Channel::new(address, None, timeout), path }
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        // Five zero bytes, the prefix of an empty message: no bytes at all draw an error.
        let message = Bytes::from_static(&[0; 5]);
        let reply = self.channel.unary(EXPORT, &HeaderMap::new(), message).await?;
        let path = &self.path;
        Err(Failure::Rpc(match reply.status.code {
            Code::Ok => return Ok(()),
            Code::Unimplemented => format!(
                "{}: no OTLP trace receiver there; set {path}.port, or another check in its place",
                reply.status
            ),
            _ => reply.status.to_string(),
        }))
    }
}

/// `grpc.health.v1.Health/Check`, which must answer SERVING.
#[derive(Debug)]
pub(super) struct Health {
    channel: Channel,
    metadata: HeaderMap,
    service: String,
    path: String,
}

impl Health {
    pub(super) fn new(
        address: SocketAddr,
        timeout: Duration,
        config: &config::GrpcCheck,
        path: String,
    ) -> Self {
        Self {
            channel: Channel::new(address, config.authority.clone(), timeout),
            metadata: config.metadata.clone(),
            service: config.service.clone(),
            path,
        }
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let message = encode(&HealthCheckRequest { service: self.service.clone() });
        let reply = self.channel.unary(CHECK, &self.metadata, message).await?;
        if reply.status.code != Code::Ok {
            return Err(Failure::Rpc(self.misconfiguration(&reply.status)));
        }
        let response: HealthCheckResponse = decode_unary(&reply.body, None, usize::MAX)
            .map_err(|status| Failure::Rpc(status.message.into_owned()))?;
        match response.status() {
            ServingStatus::Serving => Ok(()),
            status => Err(Failure::NotServing(status.to_string())),
        }
    }

    /// The status, and the key to set where it shows a mistake in the configuration.
    fn misconfiguration(&self, status: &Status) -> String {
        let path = &self.path;
        match status.code {
            Code::Unknown if status.message.contains("no org id") => {
                format!("{status}: the backend wants a tenant; set {path}.metadata.x-scope-orgid")
            }
            Code::Unimplemented => format!(
                "{status}: no health service there; use otlp: {{}} for an OpenTelemetry receiver, or set {path}.port"
            ),
            Code::NotFound => format!("{status}: set {path}.service to one that the backend has"),
            _ => status.to_string(),
        }
    }
}

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const CHECK: &str = "/grpc.health.v1.Health/Check";

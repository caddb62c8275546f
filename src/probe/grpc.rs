//! Checks that are gRPC calls: an empty OTLP Export, and `grpc.health.v1.Health/Check`.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::{Channel, Failure, Target};
use crate::{
    config,
    grpc::{
        Code, HealthCheckRequest, HealthCheckResponse, ServingStatus, Status, decode_unary, encode,
    },
};

/// Where a check stands in the configuration, if it does, for failures that a key there would mend.
#[derive(Debug, Clone)]
pub(super) struct Hints(pub(super) Option<String>);

impl Hints {
    /// That `key` of the check is the one to set.
    fn set(&self, key: &str, or: &str) -> String {
        self.0.as_ref().map_or_else(String::new, |path| format!("; set {path}.{key}{or}"))
    }
}

/// An empty Export, which an OpenTelemetry receiver answers with success before it looks at
/// tenant, limits or storage (OTLP specification, "Empty telemetry envelopes").
#[derive(Debug)]
pub(super) struct Otlp {
    channel: Channel,
    hints: Hints,
}

impl Otlp {
    pub(super) fn new(target: Target, timeout: Duration, hints: Hints) -> Self {
        Self { channel: Channel::new(target, None, timeout), hints }
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        // Five zero bytes, the prefix of an empty message: no bytes at all draw an error.
        let message = Bytes::from_static(&[0; 5]);
        let reply = self.channel.unary(EXPORT, &HeaderMap::new(), message).await?;
        Err(Failure::Rpc(match reply.status.code {
            Code::Ok => return Ok(()),
            Code::Unimplemented => format!(
                "{}: no OTLP trace receiver there{}",
                reply.status,
                self.hints.set("port", ", or another check in its place"),
            ),
            _ => reply.status.to_string(),
        }))
    }

    pub(super) fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }
}

/// `grpc.health.v1.Health/Check`, which must answer SERVING.
#[derive(Debug)]
pub(super) struct Health {
    channel: Channel,
    metadata: HeaderMap,
    service: String,
    hints: Hints,
}

impl Health {
    pub(super) fn new(
        target: Target,
        timeout: Duration,
        config: &config::GrpcCheck,
        hints: Hints,
    ) -> Self {
        Self {
            channel: Channel::new(target, config.authority.clone(), timeout),
            metadata: config.metadata.clone(),
            service: config.service.clone(),
            hints,
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

    pub(super) fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// The status, and the key to set where it shows a mistake in the configuration.
    fn misconfiguration(&self, status: &Status) -> String {
        let set = |key| self.hints.set(key, "");
        match status.code {
            Code::Unknown if status.message.contains("no org id") => {
                format!("{status}: the backend wants a tenant{}", set("metadata.x-scope-orgid"))
            }
            Code::Unimplemented => format!(
                "{status}: no health service there{}",
                self.hints.set("port", ", or use otlp: {} for an OpenTelemetry receiver"),
            ),
            Code::NotFound => {
                format!("{status}: the backend has no such service{}", set("service"))
            }
            _ => status.to_string(),
        }
    }
}

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const CHECK: &str = "/grpc.health.v1.Health/Check";

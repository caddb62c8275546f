//! What calls ask for, and whether their heads are alike.

use serde::{Deserialize, Serialize};

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A trace export of so many bytes, before compression.
    Export { bytes: usize, gzip: bool },
    /// Messages of so many bytes, each of which comes back.
    Echo { bytes: usize },
    /// A health check that the proxy answers itself, by gRPC.
    Check,
    /// The same as a plain GET.
    Get,
}

impl Request {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Export { .. } => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            // The querier's long stream to the query frontend, the one of Tempo's that stays open.
            Self::Echo { .. } => "/frontend.Frontend/Process",
            Self::Check | Self::Get => "/grpc.health.v1.Health/Check",
        }
    }
}

/// Whether a call's head differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Heads {
    /// Every call has the same head.
    Constant,
    /// `grpc-timeout` and `traceparent` differ in each call.
    Varying,
}

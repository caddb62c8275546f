//! The labels of each metric, one type a kind.

use std::{
    fmt::{Error, Write},
    sync::Arc,
};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Labels of a call that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The listener's name.
    pub listener: Text,
    /// The upstream's name; "" where the call was refused before one was chosen.
    pub upstream: Text,
    /// The gRPC service; `other` beyond the bound.
    pub service: Text,
    /// The gRPC method; `other` beyond the bound.
    pub method: Text,
    /// The grpc-status, or `RESET` or `HTTP` where there was none.
    pub code: &'static str,
}

/// Labels of a call that is placed again, or took too long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RetryLabels {
    /// The listener's name.
    pub listener: Text,
    /// The upstream's name.
    pub upstream: Text,
    /// `refused`, `goaway`, `goaway_error`, `unsent`, `turned_away`, `status`, `lost`, `reset` or `timeout`; of what
    /// took too long `deadline`, `response`, `idle`, `call` or `age`.
    pub reason: &'static str,
}

/// Labels of a listener and the upstream behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// The listener's name.
    pub listener: Text,
    /// The upstream's name.
    pub upstream: Text,
}

/// Labels of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ListenerLabels {
    /// The listener's name.
    pub listener: Text,
}

/// Labels of a connection that was refused or ended, or of a call that was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// The listener's name, or `admin`.
    pub listener: Text,
    /// `address` where it is outside `allow`, `per_address` where its address has enough,
    /// `proxy_protocol` where it does not begin as it must, `handshake_timeout` where it does not
    /// begin in time, `max_connections` where all others are busy. Where its TLS failed: of the client's
    /// certificate `tls_no_certificate`, `tls_unknown_ca`, `tls_expired`, `tls_revoked` or
    /// `tls_bad_certificate`; `tls_alert` where the client ended it, as one does that does not trust
    /// this end; `tls_nothing_common` (version, suite or ALPN), `tls_plain` where it speaks without,
    /// `tls_timeout`, `tls_closed`, `tls_other`. Of a call what is wrong with its
    /// credentials or its tenant: `no_credentials`, `many_credentials`, `bad_credentials`,
    /// `unknown_certificate`, `bad_token`, `token_key`, `token_time`, `token_scope`,
    /// `token_tenant`, `no_keys`, `no_tenant`, `many_tenants`, `other_tenant`; or what its client has
    /// too much of: `tenant_rate`, `tenant_bytes`, `tenant_in_flight`, and the same of its `address`;
    /// `max_watches`, `max_watches_per_connection`; `max_connections` where it came on a connection
    /// beyond these.
    /// Of a connection that was ended the key under `limits` or `limits.frames` that bounds what its
    /// client did, or the code of its GOAWAY in small letters, such as `protocol_error`.
    pub reason: &'static str,
}

/// Labels of a connection to an endpoint that was ended for what the endpoint did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndedLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// The endpoint's address.
    pub endpoint: Text,
    /// As [`RefusedLabels::reason`] of a client's connection that was ended.
    pub reason: &'static str,
}

/// Labels of clients that are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KeyLabels {
    /// The listener's name.
    pub listener: Text,
    /// `tenant` or `address`.
    pub per: &'static str,
}

/// Labels of a health check that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AnswerLabels {
    /// The listener's name.
    pub listener: Text,
    /// `check`, `watch`, `list`, `alb`, `http`.
    pub dialect: &'static str,
}

/// Labels of payload bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BytesLabels {
    /// The listener's name.
    pub listener: Text,
    /// `request` or `response`.
    pub direction: &'static str,
}

/// Labels of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndpointLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// The endpoint's address.
    pub endpoint: Text,
}

/// Labels of an ejection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EjectionLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// The endpoint's address.
    pub endpoint: Text,
    /// `connect`, `tls`, `reset`, `goaway`, `closed`, `timeout`.
    pub reason: &'static str,
}

/// Labels of a call that was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShedLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// What there was too much of.
    pub reason: &'static str,
}

/// Labels of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// The upstream's name.
    pub upstream: Text,
}

/// Labels of a health service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServiceLabels {
    /// The service's name; "" is the overall state.
    pub service: Text,
}

/// Labels of a probe that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProbeLabels {
    /// The upstream's name.
    pub upstream: Text,
    /// The endpoint's address.
    pub endpoint: Text,
    /// `passed`, `failed`, or `inconclusive` where the cause was on our side.
    pub result: &'static str,
}

/// Labels of a configuration that was read again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `applied`, `unchanged` or `refused`.
    pub result: &'static str,
}

/// Labels of the configuration that runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HashLabels {
    /// The same for all processes whose configurations say the same.
    pub hash: Text,
}

/// Labels of a certificate that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CertificateLabels {
    /// The listener that shows it to clients, or "".
    pub listener: Text,
    /// The upstream whose endpoints it is shown to, or "".
    pub upstream: Text,
    /// Its file.
    pub file: Text,
}

/// A label's value; clones share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text(pub Arc<str>);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), Error> {
        encoder.write_str(&self.0)
    }
}

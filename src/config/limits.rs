//! Bounds, each against something that was done to a proxy.

use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use super::value::{Buffer, Cap};

/// Bounds on what a client or a backend may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of one listener at a time. A further one takes the place of the one that is
    /// idle for longest, first of those that never asked anything; where none is idle, see
    /// `reserved_connections`. Default: 10000.
    pub max_connections: u32,
    /// Connections of one listener beyond `max_connections`, so that load balancers still see its
    /// health when every other one is busy: health checks are answered on them, calls get 14.
    /// Beyond these too, the oldest of them is closed. Default: 16.
    pub reserved_connections: u32,
    /// Connections of one client address (of one /64 in IPv6) to a listener at a time; further
    /// ones are closed at once. Default: `unlimited`, since behind a load balancer all clients
    /// have few addresses; 256 suits a listener that clients reach themselves.
    pub max_connections_per_address: Cap,
    /// Streams of one client connection at a time. Default: 128.
    pub max_concurrent_streams: u32,
    /// Health/Watch streams of one client connection at a time; further ones end with 8. Default:
    /// 4: a client watches one or two services.
    pub max_watches_per_connection: u32,
    /// Health/Watch streams of the whole process at a time, since each costs memory for as long
    /// as it is open and is told every change; further ones end with 8. Default: 1000.
    pub max_watches: u32,
    /// The largest header list from a client, counted as in RFC 9113, 6.5.2. Default: 16KiB.
    #[schemars(with = "String")]
    pub max_header_list_size: ByteSize,
    /// The most fields in a header list from a client, at least the 6 that every gRPC call has.
    /// Default: 100.
    pub max_header_fields: u32,
    /// The largest header list from a backend. Default: 64KiB.
    #[schemars(with = "String")]
    pub max_upstream_header_list_size: ByteSize,
    /// The most fields in a header list from a backend. Default: 1000.
    pub max_upstream_header_fields: u32,
    /// The most frames that a header block from a backend may come in: some send many small
    /// CONTINUATIONs, and its connection carries everybody's calls. Default: 4096.
    pub max_upstream_header_frames: u32,
    /// How often one endpoint's connection may bring frames that cost their sender nothing (PING,
    /// SETTINGS, WINDOW_UPDATE, empty DATA, interim heads and their like), beyond twenty for each
    /// stream and for each DATA frame, sent or received. Beyond it the connection is closed: what a
    /// worker spends on them other calls wait for. Default: `{ burst: 10000, rate: 1000 }`.
    pub max_upstream_frames: Rate,
    /// From accept to the end of the HTTP/2 preface, or to the end of an HTTP/1.1 head. Default: 5s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub handshake_timeout: Duration,
    /// How long a connection may stay open before its first request; then it is asked to end.
    /// Default: 10s: clients connect in order to call.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub first_request_timeout: Duration,
    /// How long a frame or a header block that has begun may take until it is whole; nothing else
    /// can come on its connection meanwhile. Of DATA, whose payload is passed on as it comes, more
    /// must come from a client within that time. Default: 5s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub frame_timeout: Duration,
    /// How long a connection may stay without a stream. Default: 620s, above the 600s that
    /// Google's load balancers keep one.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// How long a client or a backend may take nothing of what waits for its connection before that
    /// is closed, and fewer than 16 KiB, or the rest, of what waits for one stream before that is
    /// reset. Default: 30s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub send_timeout: Duration,
    /// How long a client may bring less than 1 KiB, or the rest, of a message that it began, before
    /// its call is ended: until then it has a stream of an endpoint that others may need.
    /// Default: 30s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub message_timeout: Duration,
    /// Payload of the calls of one client connection that may wait here for its receivers. From
    /// 8 MiB below it the connection has less of its window back; above it the call that holds most
    /// ends with 8 and RetryInfo. Default: 24MiB.
    #[schemars(with = "String")]
    pub max_connection_buffer: ByteSize,
    /// Payload that may wait so in one worker. Above half of it connections have less of their
    /// windows back; above it the calls of those that hold most end with 8 and RetryInfo.
    /// Default: `auto`, an eighth of the memory that the process may use, divided by the cores, from
    /// 8 to 64 MiB.
    pub max_worker_buffer: Buffer,
    /// A connection older than this, give or take 10 %, is asked to end by GOAWAY. Default: 30m.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_connection_age: Duration,
    /// How long a client's connection may go on after it was asked to end; then its calls end with
    /// 14 and it is closed. Its Watch streams end as soon as the client has seen GOAWAY. Default:
    /// 5m, as long as a call may bring nothing (`timeouts.idle`), so that any upload on its way
    /// can end. When the process stops, `drain.timeout` alone counts.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_connection_age_grace: Duration,
    /// How long a client with streams open may send nothing before it is asked for a sign of life
    /// by a PING. A connection without streams is looked after by TCP keepalive at the same pace.
    /// Default: 30s: a client that vanished without a word is known in less than a minute.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub client_ping_interval: Duration,
    /// How long that sign of life may take; then the connection is given up, and its calls are
    /// cancelled. Default: 10s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub client_ping_timeout: Duration,
    /// A connection to an endpoint older than this, give or take 10 %, is replaced. Default: 30m.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_upstream_connection_age: Duration,
    /// How long a connection to an endpoint may have streams open and bring nothing before it is
    /// asked for a sign of life by a PING. Default: 5m, the least that grpc-go's servers take
    /// unless they are told otherwise; one that finds it too often (ENHANCE_YOUR_CALM) gets it half
    /// as often from then on. Without a stream none is sent.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub upstream_ping_interval: Duration,
    /// How long that sign of life may take before the connection is given up. Default: 20s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub upstream_ping_timeout: Duration,
    /// How long a connection to an endpoint that looks dead may take to answer a PING, and takes no
    /// calls: one on which a call ended late and nothing came, one that is silent while the endpoint
    /// is not healthy, or one that is older than a probe's connection that had to be made anew.
    /// After that its calls end with 14 or are placed again where that is safe. Default: 2s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub upstream_suspect_timeout: Duration,
    /// RST_STREAM to an endpoint, on each connection: streams beyond it are reset later, or end
    /// before that. More at once, and an endpoint may end the connection with everybody's calls.
    /// Default: `{ burst: 16, rate: 32 }`.
    pub upstream_resets: Rate,
    /// Calls of one client address that are given up before their request is whole, in a worker.
    /// Beyond it further ones go to an endpoint only when they are whole, or after a second.
    /// Default: `{ burst: 100, rate: 20 }`.
    pub address_resets: Rate,
    /// Connections of one worker to one endpoint; more than one are made where calls need them.
    /// Default: 4.
    pub max_upstream_connections: u32,
    /// The most that is kept of a request's payload while its response has not begun, so that a
    /// call that no backend has processed can be placed again; a larger one ends with 14. A worker
    /// keeps 16 MiB in all. Default: 64KiB.
    #[schemars(with = "String")]
    pub max_replay_size: ByteSize,
    /// How often one client connection may send frames that cost it nothing. Beyond any of these
    /// it is closed with ENHANCE_YOUR_CALM.
    pub frames: Frames,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            reserved_connections: 16,
            max_connections_per_address: Cap::Unlimited,
            max_concurrent_streams: 128,
            max_watches_per_connection: 4,
            max_watches: 1000,
            max_header_list_size: ByteSize::kib(16),
            max_header_fields: 100,
            max_upstream_header_list_size: ByteSize::kib(64),
            max_upstream_header_fields: 1000,
            max_upstream_header_frames: 4096,
            max_upstream_frames: Rate { burst: 10_000, rate: 1000 },
            handshake_timeout: Duration::from_secs(5),
            first_request_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(620),
            send_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(30),
            max_connection_buffer: ByteSize::mib(24),
            max_worker_buffer: Buffer::Auto,
            max_connection_age: Duration::from_secs(30 * 60),
            max_connection_age_grace: Duration::from_secs(5 * 60),
            client_ping_interval: Duration::from_secs(30),
            client_ping_timeout: Duration::from_secs(10),
            max_upstream_connection_age: Duration::from_secs(30 * 60),
            upstream_ping_interval: Duration::from_secs(5 * 60),
            upstream_ping_timeout: Duration::from_secs(20),
            upstream_suspect_timeout: Duration::from_secs(2),
            upstream_resets: Rate { burst: 16, rate: 32 },
            address_resets: Rate { burst: 100, rate: 20 },
            max_upstream_connections: 4,
            max_replay_size: ByteSize::kib(64),
            frames: Frames::default(),
        }
    }
}

/// How often one client connection may send frames that cost it nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Frames {
    /// RST_STREAM before its response's head (Rapid Reset), beyond one for each call that was
    /// answered and one for each ten that were opened. One whose `grpc-timeout` has passed is not
    /// counted, and at once there may be as many as `max_concurrent_streams`. Default:
    /// `{ burst: 200, rate: 50 }`.
    pub resets: Rate,
    /// PING beyond those that go with traffic. Default: `{ burst: 20, rate: 10 }`.
    pub pings: Rate,
    /// SETTINGS. Default: `{ burst: 20, rate: 10 }`.
    pub settings: Rate,
    /// Frames of a type that RFC 9113 does not have. Default: `{ burst: 100, rate: 100 }`.
    pub unknown: Rate,
    /// PRIORITY.
    pub priorities: Priorities,
    /// WINDOW_UPDATE.
    pub window_updates: WindowUpdates,
    /// DATA without payload that ends nothing, beyond one for each stream and one for each DATA
    /// with payload. Default: `{ burst: 64, rate: 10 }`.
    pub empty_data: Rate,
    /// Faults by which a client makes its streams be reset (MadeYouReset), beyond one for each ten
    /// streams. Default: `{ burst: 100, rate: 10 }`.
    pub faults: Rate,
    /// RST_STREAM on streams that are over, beyond one for each stream. Default:
    /// `{ burst: 100, rate: 10 }`.
    pub late_resets: Rate,
    /// GOAWAY. Default: `{ burst: 20, rate: 1 }`.
    pub goaways: Rate,
    /// Calls that are refused for what the client asks (wrong credentials, an unknown path, a head
    /// that is too large), beyond one for each that was answered otherwise: a client that only errs
    /// costs work and gets nothing. At once there may be as many as `max_concurrent_streams`. Its
    /// connection is told to go, and what is open on it may end.
    /// Default: `{ burst: 200, rate: 50 }`.
    pub refused_calls: Rate,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            resets: Rate { burst: 200, rate: 50 },
            pings: Rate { burst: 20, rate: 10 },
            settings: Rate { burst: 20, rate: 10 },
            unknown: Rate { burst: 100, rate: 100 },
            priorities: Priorities::default(),
            window_updates: WindowUpdates::default(),
            empty_data: Rate { burst: 64, rate: 10 },
            faults: Rate { burst: 100, rate: 10 },
            late_resets: Rate { burst: 100, rate: 10 },
            goaways: Rate { burst: 20, rate: 1 },
            refused_calls: Rate { burst: 200, rate: 50 },
        }
    }
}

/// A number that may come at once, and how fast it is earned again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Frames at once.
    pub burst: u32,
    /// Frames a second.
    pub rate: u32,
}

/// How much one client may ask of a listener: what is more ends with 8 and a RetryInfo. 10000 tenants
/// and as many addresses are told apart; any more of them share one count until others are idle.
/// Counts are kept over a reload that leaves the section as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsPer {
    /// One tenant, by the `x-scope-orgid` that endpoints would see. Default: no bound.
    pub tenant: Option<ClientLimits>,
    /// One client address (one /64 in IPv6), asked for credentials or not. Default: no bound.
    pub address: Option<ClientLimits>,
}

/// What one client may ask for, of all workers together; at least one of its bounds. A call is one
/// HTTP/2 stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// Calls a second. Default: no bound.
    pub calls_per_second: Option<u32>,
    /// Calls at once. Default: one second's.
    pub burst: Option<u32>,
    /// Bytes of requests a second, such as `10MiB`, without their metadata. A call that has begun
    /// is never cut: what it brings beyond this is owed, and new calls are turned away until that
    /// is paid. Default: no bound.
    #[schemars(with = "Option<String>")]
    pub bytes_per_second: Option<ByteSize>,
    /// Bytes at once. Default: one second's.
    #[schemars(with = "Option<String>")]
    pub bytes_burst: Option<ByteSize>,
    /// Calls at a time. Default: no bound.
    pub max_in_flight: Option<u32>,
}

/// PRIORITY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Priorities {
    /// Frames at once. Default: 100.
    pub burst: u32,
    /// Frames a second. Default: 10.
    pub rate: u32,
    /// Frames for each stream that was opened. Default: 100.
    pub per_stream: u32,
}

impl Default for Priorities {
    fn default() -> Self {
        Self { burst: 100, rate: 10, per_stream: 100 }
    }
}

/// WINDOW_UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WindowUpdates {
    /// Frames at once. Default: 5.
    pub burst: u32,
    /// Frames a second. Default: 10.
    pub rate: u32,
    /// Frames for each stream that was opened. Default: 2.
    pub per_stream: u32,
    /// Frames for each DATA frame that was sent to the client. Default: 20.
    pub per_data: u32,
}

impl Default for WindowUpdates {
    fn default() -> Self {
        Self { burst: 5, rate: 10, per_stream: 2, per_data: 20 }
    }
}

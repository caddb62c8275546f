//! Upbeat: a Layer-7, gRPC-aware reverse proxy in front of Grafana Tempo distributors. It forwards
//! 4317 and 9095 unchanged, and answers `grpc.health.v1.Health` and plain-HTTP health checks
//! itself, from its own probes of the backends.
//!
//! # The floors
//!
//! A module imports lower floors only, nothing beside or above it; `tests/floors` keeps it so.
//!
//! ```text
//! 8  main  cli                     arguments → tracing → configuration → exit code
//! 7  app  demo                     the only wiring: bind, start workers and tasks, reload, drain
//! 6  worker  admin                 edges: a worker's sockets; admin's HTTP
//! 5  relay                         a worker's streams: paired with an endpoint's, or answered here
//! 4  route  auth  answer  |  probe  discovery    request plane | control plane: neither imports the other
//! 3  health                        Board: endpoint states folded into one published answer
//! 2  upstream  refusals  watchdog  Upstream, Endpoint, Balancer | who is turned away | who stands still
//! 1  http2  grpc  net  tls  metrics  shutdown  log
//! 0  config                        plain data
//! ```
//!
//! The planes meet in floors 2 and 3 only: the control plane writes (discovery → an upstream's
//! endpoint set, a probe → its endpoint's health), [`health`] folds, the request plane reads. Calls
//! write one thing there, the faults of transport that they meet: these can eject an endpoint, and
//! only a probe takes it back. Each state has one writer and is published by `tokio::sync::watch`;
//! what a call counts is atomic.
//!
//! # Life of an endpoint
//!
//! The configuration lists it, or [`discovery`] finds it, in the background: no call ever waits for
//! a look-up. [`upstream::Upstream::reconcile`] makes a set of addresses the endpoints: one that
//! stays keeps its state, a new one gets a prober, one that is gone gets no more calls; each
//! worker closes its connections to it when the calls on them have ended, and forgets it.
//!
//! # Life of a request
//!
//! The acceptor takes a socket ([`net::Incoming`]) and finds it a place, where all are taken that of
//! the connection that is idle for longest, and hands it to the worker with the fewest connections ([`worker`]: one thread each, with its own connections to the
//! endpoints). Where the listener speaks TLS the handshake comes first ([`tls::Acceptor`]), and a
//! [`tls::Session`] stands between the socket and all that follows. The first bytes tell HTTP/2 from
//! HTTP/1.1 ([`net::sniff`]). What an HTTP/2
//! connection's socket reads goes through [`http2`], which knows neither sockets nor time and turns
//! bytes into events; the [`relay`] takes each event to what it means. [`route`] says from a
//! request's head what it is: a health check, which [`answer`] answers from the board, a question to
//! reflection, a call, or neither. For a call [`auth`] tells from its metadata, or from what its
//! connection's certificate names, whether it is forwarded at all and for which
//! tenant, where its listener asks. A table of the listener's routes
//! names an upstream, of which [`upstream::Upstream::pick`] gives an endpoint that has room and
//! registers the call in flight there; where none has room the call waits. One of the worker's
//! connections to the endpoint takes a stream, and frames are relayed both ways: header fields by
//! identity, payload by slices, window by window, into the buffers that are written once at the end
//! of the turn. What was sent is kept until a response begins, so that a call that no backend has
//! processed, or that its route lets be tried again, is placed anew. When the response has ended,
//! the call stops being in flight. What takes too long is found by a coarse tick, not by a timer for
//! each call.
//!
//! # Life of a health check
//!
//! [`probe`] asks each endpoint at each interval, and at once where a kept connection ends or a
//! Watch speaks, and publishes what its thresholds make of the replies; [`health::Board`] folds that
//! into a [`health::Snapshot`]; every dialect on every listener, and the admin server, answer from the
//! last snapshot, so they always agree.
//!
//! # A thread that stands still
//!
//! The board's fold beats once a second, and each worker four times. Whoever tells health asks how
//! old the fold's last beat is ([`watchdog::Vitals`]) and says NOT_SERVING where that is too old. A
//! thread of its own counts the beats that it misses ([`watchdog`]): it keeps new sockets from a
//! worker, then health from everybody, and ends the process in the end. A panic anywhere ends it at
//! once, with its message. The log has a thread too ([`log`]), so that nothing waits for a line.
//!
//! # Life of a key that tokens are signed with
//!
//! It is in a file, which is read as the configuration is, or [`app`] fetches it on the control
//! thread: at the start, at each interval, and once more where a token names another. Workers see
//! it in [`auth::Keys`], check tokens by it in their turn, and remember those that are good.
//!
//! # Life of a reload
//!
//! At SIGHUP, and when the file says something else, [`app`] reads it. Whatever could fail is done
//! first: the rules of [`config`], the keys that only a restart changes, the files of certificates
//! and keys, which lead to a reload too when they change, the new sockets; then new
//! endpoints are probed once, and new issuers are asked for their keys. Only then upstreams, the
//! board's views, listeners and workers take the new configuration over, one
//! after the other on the control thread. What is the same stays:
//! a listener's socket by its address, an endpoint with its state by its upstream and address. A
//! worker puts the new [`relay::Listener`] under its open connections, and calls in flight end by
//! the one that they began with.
//!
//! # From one process to the next
//!
//! A process offers its listening sockets to others of its user ([`net::handover`]). The next one
//! takes them, probes, serves on them, and says so; only then the first one drains, without saying
//! NOT_SERVING, since what it answers for goes on.

pub mod admin;
pub mod answer;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod demo;
pub mod discovery;
pub mod grpc;
pub mod health;
pub mod http2;
pub mod log;
pub mod metrics;
pub mod net;
pub mod probe;
pub mod refusals;
pub mod relay;
pub mod route;
pub mod shutdown;
pub mod tls;
pub mod upstream;
pub mod watchdog;
pub mod worker;

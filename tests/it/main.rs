//! Tests of the proxy as its users meet it: over real sockets, with real gRPC peers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod admin;
mod announced;
mod auth;
mod balance;
mod bounds;
mod breaches;
mod cancel;
mod chaos;
mod cli;
mod cloud;
mod config;
mod deadlines;
mod differential;
mod discovery;
mod drain;
mod ejection;
mod failover;
mod fixture;
mod flow;
mod forward;
mod goaway;
mod handover;
mod health;
mod limits;
mod mutations;
mod pings;
mod probe;
mod queue;
mod quotas;
mod reflection;
mod refusals;
mod reload;
mod retries;
mod retry;
mod routes;
mod simulate;
mod statuses;
mod stories;
mod tls;
mod truth;
mod unchanged;
mod verdicts;
mod views;

//! Upbeat.
pub mod config;
pub mod grpc;
pub mod health;
pub mod metrics;
pub mod net;
pub mod probe;
pub mod shutdown;
pub mod upstream;

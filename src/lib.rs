//! Upbeat.
pub mod admin;
pub mod answer;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod grpc;
pub mod health;
pub mod metrics;
pub mod net;
pub mod probe;
pub mod relay;
pub mod route;
pub mod shutdown;
pub mod upstream;
pub mod worker;

//! `/simulate`: what would be answered if endpoints were down.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{
    Admin,
    status::{Service, services},
};
use crate::{
    answer::{Answer, Answers, HttpCheck},
    grpc::{
        HealthCheckRequest, HealthCheckResponse, ServingStatus, decode_unary, encode,
        percent_decode,
    },
    upstream::{Endpoint, Upstream},
};

/// The body of `/simulate`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Simulation {
    /// The board as it would be, once changes that are held back are told.
    pub services: Vec<Service>,
    /// What each listener would answer for each service.
    pub answers: Vec<Answered>,
}

/// What one listener would answer for one service.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The listener.
    pub listener: String,
    /// The service; "" is the overall state.
    pub service: String,
    /// grpc-status of a Check, and its message, such as `0 SERVING`.
    pub check: String,
    /// The same, to an ALB's health checker.
    pub check_by_alb: String,
    /// The message of Watch and List.
    pub watch: String,
    /// Status and body of a GET, such as `503 NOT_SERVING`.
    pub get: String,
    /// grpc-status of ALB's default path, which asks for the overall state only.
    pub alb: String,
}

impl Admin {
    /// Takes `down=UPSTREAM/ADDRESS` or `down=UPSTREAM`, any number of times.
    pub(super) fn simulate(&self, query: &str) -> Result<Simulation, String> {
        let mut down = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let target = pair.strip_prefix("down=").ok_or_else(|| {
                format!("{pair}: expected down=UPSTREAM/ADDRESS or down=UPSTREAM")
            })?;
            down.push(self.target(&percent_decode(target.as_bytes()))?);
        }
        let is_down = |upstream: &Upstream, endpoint: &Endpoint| {
            down.iter().any(|(name, address)| {
                **upstream.name() == **name
                    && address.is_none_or(|address| address == endpoint.address())
            })
        };
        let running = self.running.borrow();
        let snapshot = running.views.simulate(&self.board.snapshot(), is_down);
        let services = services(&snapshot);
        let mut answers = Vec::new();
        for (listener, of) in running.listeners.iter() {
            let of = of.of(snapshot.clone());
            answers.extend(services.iter().map(|it| answered(listener, &of, it)));
        }
        Ok(Simulation { services, answers })
    }

    /// An upstream, and one of its endpoints or all.
    fn target(&self, text: &str) -> Result<(String, Option<SocketAddr>), String> {
        let (name, address) = match text.split_once('/') {
            Some((name, address)) => (name, Some(address)),
            None => (text, None),
        };
        let running = self.running.borrow();
        let upstream = running.upstreams.iter().find(|upstream| **upstream.name() == *name);
        let upstream = upstream.ok_or_else(|| format!("{name}: no such upstream"))?;
        let Some(address) = address else { return Ok((name.to_owned(), None)) };
        let parsed: SocketAddr =
            address.parse().map_err(|_| format!("{address}: no IP address and port"))?;
        match upstream.endpoints().iter().any(|endpoint| endpoint.address() == parsed) {
            true => Ok((name.to_owned(), Some(parsed))),
            false => Err(format!("{address}: no endpoint of {name}")),
        }
    }
}

fn answered(listener: &str, answers: &Answers, service: &Service) -> Answered {
    let name = &service.service;
    let request = encode(&HealthCheckRequest { service: name.clone() });
    let target = format!("/?service={}", name.replace('%', "%25").replace('&', "%26"));
    let check = |agent| word(&answers.check(&request, None, answers.not_serving_as(agent)));
    let get = answers.http(&HttpCheck { target: &target, named: false, accept: None });
    let alb = if name.is_empty() { word(&answers.alb()) } else { String::new() };
    Answered {
        listener: listener.to_owned(),
        service: name.clone(),
        check: check(None),
        check_by_alb: check(Some(ALB)),
        watch: service.status.clone(),
        get: format!("{} {}", get.status().as_u16(), String::from_utf8_lossy(get.body())),
        alb,
    }
}

/// A gRPC answer in a few words.
fn word(answer: &Answer) -> String {
    let message = answer.message.as_ref().and_then(|message| {
        let response: HealthCheckResponse = decode_unary(message, None, message.len()).ok()?;
        ServingStatus::try_from(response.status).ok()
    });
    let code = answer.status.code as u8;
    message.map_or_else(|| code.to_string(), |status| format!("{code} {status}"))
}

/// The user agent of ALB's health checker (AWS, Health checks for your target groups).
const ALB: &[u8] = b"ELB-HealthChecker/2.0";

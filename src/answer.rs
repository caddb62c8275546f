//! Answers to health checks, in every dialect, from the board alone; and to reflection, from none.

mod grpc;
mod http;
mod reflection;

use std::{cmp::Reverse, sync::Arc};

use bytes::Bytes;

pub use self::{
    grpc::{Answer, MAX_REQUEST, Watch},
    http::HttpCheck,
    reflection::reflect,
};
use crate::{
    config::NotServingAs,
    grpc::{HealthCheckRequest, Status, decode_unary},
    health::{Reader, Snapshot},
};

/// Answers as one listener is configured to.
#[derive(Debug, Clone)]
pub struct Answers {
    reader: Reader,
    not_serving_as: NotServingAs,
    /// Beginnings of user agents, longer ones before shorter ones.
    agents: Arc<[(Box<[u8]>, NotServingAs)]>,
    /// Whether reasons are told, which name endpoints.
    details: bool,
}

impl Answers {
    /// Answers from what `reader` sees.
    pub fn new(reader: Reader, not_serving_as: NotServingAs, details: bool) -> Self {
        Self { reader, not_serving_as, agents: Arc::default(), details }
    }

    /// The same answers from another snapshot, which does not change.
    pub fn of(&self, snapshot: Snapshot) -> Self {
        Self { reader: Reader::of(snapshot), ..self.clone() }
    }

    /// The same, but in another way to those whose user agents begin so.
    pub fn with_agents<'a>(
        self,
        agents: impl IntoIterator<Item = (&'a String, &'a NotServingAs)>,
    ) -> Self {
        let agents = agents.into_iter().map(|(agent, way)| (agent.as_bytes().into(), *way));
        let mut agents: Vec<(Box<[u8]>, _)> = agents.collect();
        agents.sort_unstable_by_key(|(agent, _)| Reverse(agent.len()));
        Self { agents: agents.into(), ..self }
    }

    /// How Check says NOT_SERVING to a user agent.
    pub fn not_serving_as(&self, agent: Option<&[u8]>) -> NotServingAs {
        let fits = |start: &[u8]| agent.is_some_and(|agent| agent.starts_with(start));
        let own = self.agents.iter().find(|(start, _)| fits(start));
        own.map_or(self.not_serving_as, |(_, way)| *way)
    }

    /// `grpc.health.v1.Health/Check`, from the request's body, for someone who is to be told
    /// NOT_SERVING in this way.
    pub fn check(&self, body: &[u8], encoding: Option<&[u8]>, way: NotServingAs) -> Answer {
        match request(body, encoding) {
            Ok(request) => grpc::check(&self.snapshot(), &request.service, way),
            Err(status) => Answer::refusal(status),
        }
    }

    /// `grpc.health.v1.Health/List`.
    pub fn list(&self) -> Answer {
        grpc::list(&self.snapshot())
    }

    /// `grpc.health.v1.Health/Watch`, from the request's body.
    ///
    /// # Errors
    /// The status that refuses a broken request.
    pub fn watch(&self, body: &[u8], encoding: Option<&[u8]>) -> Result<Watch, Status> {
        Ok(Watch::new(self.reader.follow(), request(body, encoding)?.service))
    }

    /// POST `/AWS.ALB/healthcheck`.
    pub fn alb(&self) -> Answer {
        grpc::alb(&self.snapshot())
    }

    /// GET or HEAD; the response to HEAD is the same without its body.
    pub fn http(&self, asked: &HttpCheck<'_>) -> ::http::Response<Bytes> {
        http::answer(&self.snapshot(), asked, self.details)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.reader.snapshot()
    }
}

fn request(body: &[u8], encoding: Option<&[u8]>) -> Result<HealthCheckRequest, Status> {
    decode_unary(body, encoding, MAX_REQUEST)
}

/// `GET /livez`.
pub fn live() -> ::http::Response<Bytes> {
    http::text(::http::StatusCode::OK, "LIVE")
}

/// A bare refusal. A 405 names the methods that are allowed.
pub fn refusal(status: ::http::StatusCode) -> ::http::Response<Bytes> {
    let mut response = http::text(status, status.canonical_reason().unwrap_or_default());
    if status == ::http::StatusCode::METHOD_NOT_ALLOWED {
        let allow = ::http::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(::http::header::ALLOW, allow);
    }
    response
}

/// The same to one who is to prove something first, of which a 401 says what.
pub fn denial(
    (status, challenge): (::http::StatusCode, Option<&'static str>),
) -> ::http::Response<Bytes> {
    let mut response = refusal(status);
    if let Some(challenge) = challenge {
        let challenge = ::http::HeaderValue::from_static(challenge);
        response.headers_mut().insert(::http::header::WWW_AUTHENTICATE, challenge);
    }
    response
}

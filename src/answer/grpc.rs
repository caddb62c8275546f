//! Check, Watch and List of `grpc.health.v1`, and what an ALB asks by default.

use bytes::Bytes;

use crate::{
    config::NotServingAs,
    grpc::{Code, HealthCheckResponse, HealthListResponse, ServingStatus, Status, encode},
    health::{Follow, Snapshot},
};

/// The largest request that a health check or a question to reflection may be, in bytes.
pub const MAX_REQUEST: usize = 4096;

/// The reply to a unary call: a message and its status, or the status alone as trailers-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// One message with its prefix.
    pub message: Option<Bytes>,
    /// How the call ends.
    pub status: Status,
}

impl Answer {
    /// Trailers-only.
    pub fn refusal(status: Status) -> Self {
        Self { message: None, status }
    }

    fn message(message: Bytes) -> Self {
        Self { message: Some(message), status: Status::OK }
    }
}

pub(super) fn check(snapshot: &Snapshot, service: &str, not_serving_as: NotServingAs) -> Answer {
    let Some(service) = snapshot.service(service) else {
        return Answer::refusal(Status::new(Code::NotFound, "unknown service"));
    };
    match (service.status, not_serving_as) {
        (ServingStatus::Serving, _) | (_, NotServingAs::Message) => {
            Answer::message(message(service.status))
        }
        (status, NotServingAs::Status) => {
            Answer::refusal(Status::new(Code::Unavailable, status.to_string()))
        }
    }
}

pub(super) fn list(snapshot: &Snapshot) -> Answer {
    let services = snapshot.services();
    let statuses = services.map(|(name, service)| (name.to_owned(), service.status.into()));
    Answer::message(encode(&HealthListResponse { statuses: statuses.collect() }))
}

pub(super) fn alb(snapshot: &Snapshot) -> Answer {
    Answer::refusal(match snapshot.status() {
        ServingStatus::Serving => Status::new(Code::Unimplemented, "SERVING"),
        status => Status::new(Code::Unavailable, status.to_string()),
    })
}

/// The messages of one Watch call.
#[derive(Debug)]
pub struct Watch {
    board: Follow,
    service: String,
    last: Option<ServingStatus>,
}

impl Watch {
    pub(super) fn new(board: Follow, service: String) -> Self {
        Self { board, service, last: None }
    }

    /// The next message: the first one at once, then whenever the status is another. A service
    /// that does not exist is SERVICE_UNKNOWN. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Bytes {
        loop {
            let snapshot = self.board.snapshot();
            let status = snapshot.service(&self.service).map(|service| service.status);
            let status = status.unwrap_or(ServingStatus::ServiceUnknown);
            if self.last.replace(status) != Some(status) {
                return message(status);
            }
            self.board.changed().await;
        }
    }
}

fn message(status: ServingStatus) -> Bytes {
    encode(&HealthCheckResponse::from(status))
}

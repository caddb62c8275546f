//! `grpc.health.v1.Health/Watch`, held to an endpoint beside its checks, so that it is known when
//! the endpoint says it and not at the next probe.
//!
//! Each Watch has a connection of its own: the one of Check has no streams between calls, so that
//! it ends when a GOAWAY comes, which a connection with an open stream does not.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{HeaderMap, uri::Authority};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Failure, Target,
    channel::{Open, explain, own_authority, request},
    jittered,
};
use crate::{
    config,
    grpc::{
        Code, HealthCheckRequest, HealthCheckResponse, ServingStatus, Status, decode_unary, encode,
    },
};

/// All Watches of one endpoint.
#[derive(Debug)]
pub(super) struct Watches {
    heard: mpsc::Receiver<(usize, News)>,
    orders: Arc<Orders>,
    _tasks: JoinSet<()>,
}

/// What the Watches are told to do.
#[derive(Debug, Default)]
struct Orders {
    /// To ask again, for those that have no stream.
    again: Notify,
    /// To leave the stream for a new one, or to see whether there is one now.
    renew: Notify,
}

/// What comes from a Watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// The endpoint's state, in its own words, and when they came.
    Said(ServingStatus, Instant),
    /// The stream ended after it had said something.
    Ended(Failure),
    /// There is no stream for now, and there was none.
    Absent(Failure),
    /// The endpoint has no Watch.
    Unimplemented,
}

impl Watches {
    /// Holds a Watch for each of `checks` that wants one; News come with the check's index.
    pub(super) fn start(checks: &[config::Check], target: &Target, patience: Duration) -> Self {
        let (tell, heard) = mpsc::channel(QUEUE);
        let orders = Arc::<Orders>::default();
        let mut tasks = JoinSet::new();
        for (index, check) in checks.iter().enumerate() {
            if let config::Check::Grpc(check) = check
                && check.watch != config::Watch::Never
            {
                let watch = Watch::new(check, target, patience, (index, tell.clone()));
                tasks.spawn(watch.hold(Arc::clone(&orders)));
            }
        }
        Self { heard, orders, _tasks: tasks }
    }

    /// The next news; where there is no Watch, it never comes.
    pub(super) async fn next(&mut self) -> (usize, News) {
        match self.heard.recv().await {
            Some(news) => news,
            None => pending().await,
        }
    }

    /// Has those that wait asked again at once, since the endpoint has come back.
    pub(super) fn again(&self) {
        self.orders.again.notify_waiters();
    }

    /// Has each open its stream anew on another connection. An endpoint that stops gracefully tells
    /// so by GOAWAY and then waits for its streams; h2 does not say that a GOAWAY came while one is
    /// open, but the end of the check's own connection does. So it is once certificates were renewed,
    /// and where a Check says another thing than a stream did before: the first word of a new one is
    /// not older than that. One that the endpoint has not is asked for again: another program may
    /// have come.
    pub(super) fn renew(&self) {
        self.orders.renew.notify_waiters();
    }
}

/// One Watch.
#[derive(Debug)]
struct Watch {
    target: Target,
    authority: Authority,
    metadata: HeaderMap,
    service: String,
    patience: Duration,
    tell: (usize, mpsc::Sender<(usize, News)>),
}

impl Watch {
    fn new(
        config: &config::GrpcCheck,
        target: &Target,
        patience: Duration,
        tell: (usize, mpsc::Sender<(usize, News)>),
    ) -> Self {
        let target = target.at(config.port, config.plain);
        let authority = config.authority.clone();
        Self {
            authority: authority.unwrap_or_else(|| own_authority(target.address)),
            target,
            metadata: config.metadata.clone(),
            service: config.service.clone(),
            patience,
            tell,
        }
    }

    /// Follows the stream, and opens it again when it has ended, with back-off.
    async fn hold(self, orders: Arc<Orders>) {
        let mut wait = SHORTEST;
        loop {
            let since = Instant::now();
            let news = tokio::select! {
                news = self.follow() => news,
                () = orders.renew.notified() => continue,
            };
            // Made before the news are out, so that what they lead to is not missed.
            let (again, renew) = (orders.again.notified(), orders.renew.notified());
            let pause = jittered(wait);
            wait = if since.elapsed() > LONGEST { SHORTEST } else { (wait * 2).min(LONGEST) };
            let lacks = news == News::Unimplemented;
            self.tell(news).await;
            let waited = async {
                if lacks {
                    // Only another program behind the same address can change that. A connection
                    // that ended may mean one, or an endpoint that ends each.
                    renew.await;
                    sleep_until(since + LONGEST).await;
                } else {
                    sleep(pause).await;
                }
            };
            tokio::select! {
                () = waited => {}
                () = again => wait = SHORTEST,
            }
        }
    }

    /// Opens the stream and passes on what it says; how it ended.
    async fn follow(&self) -> News {
        let mut spoke = false;
        match self.listen(&mut spoke).await {
            Ok(status) if status.code == Code::Unimplemented => News::Unimplemented,
            Ok(status) if spoke => News::Ended(Failure::Rpc(status.to_string())),
            Ok(status) => News::Absent(Failure::Rpc(status.to_string())),
            Err(failure) if spoke => News::Ended(failure),
            Err(failure) => News::Absent(failure),
        }
    }

    /// The status that the stream ends with.
    async fn listen(&self, spoke: &mut bool) -> Result<Status, Failure> {
        let late = |_| Failure::Connect("no connection in time".to_owned());
        let connect = Open::to(&self.target);
        let mut open = timeout(self.patience, connect).await.map_err(late)??;
        let request = request(self.authority.clone(), WATCH, &self.metadata, None);
        let message = encode(&HealthCheckRequest { service: self.service.clone() });
        let silent = |_| Failure::Rpc("says nothing".to_owned());
        let response = timeout(self.patience, open.send(request, message)).await;
        let (head, mut body) = response.map_err(silent)??.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(Failure::Rpc(format!("HTTP status {}", head.status)));
        }
        let mut received = BytesMut::new();
        loop {
            // The first word is said at once (health.proto); until it is there, none is known.
            let chunk = match *spoke {
                true => body.data().await,
                false => timeout(self.patience, body.data()).await.map_err(silent)?,
            };
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(explain)?;
            // Fails only after the stream has ended.
            _ = body.flow_control().release_capacity(chunk.len());
            received.extend_from_slice(&chunk);
            while let Some(status) = next_message(&mut received)? {
                *spoke = true;
                self.tell(News::Said(status, Instant::now())).await;
            }
        }
        let trailers = body.trailers().await.map_err(explain)?.unwrap_or_default();
        let status = Status::of(&trailers).or_else(|| Status::of(&head.headers));
        Ok(status.unwrap_or_else(|| Status::new(Code::Unknown, "no grpc-status in the reply")))
    }

    async fn tell(&self, news: News) {
        let (index, channel) = &self.tell;
        // Nobody listens only while the prober is being dropped, and this task with it.
        _ = channel.send((*index, news)).await;
    }
}

/// Takes one whole message off the front, where there is one.
fn next_message(received: &mut BytesMut) -> Result<Option<ServingStatus>, Failure> {
    let Some([_, length @ ..]) = received.first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_MESSAGE {
        return Err(Failure::Rpc(format!("a message of more than {MAX_MESSAGE} bytes")));
    }
    if received.len() < 5 + length {
        return Ok(None);
    }
    let response: HealthCheckResponse = decode_unary(&received.split_to(5 + length), None, 0)
        .map_err(|status| Failure::Rpc(status.message.into_owned()))?;
    Ok(Some(response.status()))
}

const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// News that wait; a peer that says more is held back by its window.
const QUEUE: usize = 8;
const MAX_MESSAGE: usize = 4 << 10;
/// Between the end of a stream and the next one; twice as long after each that was short.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let wire = [0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 2, 0, 0, 0, 0, 0];
        for size in 1..wire.len() {
            let mut received = BytesMut::new();
            let mut said = Vec::new();
            for chunk in wire.chunks(size) {
                received.extend_from_slice(chunk);
                while let Some(status) = next_message(&mut received).unwrap() {
                    said.push(status);
                }
            }
            let all = [ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::Unknown];
            assert_eq!(said, all, "{size}");
        }
    }

    #[test]
    fn a_message_too_large_or_compressed_is_refused() {
        for wire in [&[0, 0, 1, 0, 0][..], &[1, 0, 0, 0, 1, 0]] {
            assert!(next_message(&mut BytesMut::from(wire)).is_err(), "{wire:?}");
        }
    }
}

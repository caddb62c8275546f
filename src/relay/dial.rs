//! Connections to endpoints: made, and made again.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Relay, lane::LaneKey, link::Kind, turn::STREAM_WINDOW};
use crate::{
    config,
    http2::{
        connection::{Connection, Role},
        frame::Reason,
        limits::{Counted, Limits},
    },
    metrics::EndpointLabels,
    net,
    tls::{self, Session, Spoken},
    upstream::{Endpoint, Fault, Upstream},
};

impl Relay {
    /// Connects to an endpoint, trying again with growing pauses for as long as it is given calls
    /// and there is no other connection to it.
    pub(super) async fn dial(self, upstream: Arc<Upstream>, at: LaneKey) {
        let Some(endpoint) =
            self.turn(|engine| engine.lanes.get(&at).map(|lane| Arc::clone(&lane.endpoint)))
        else {
            return;
        };
        let address = endpoint.address();
        let labels = EndpointLabels {
            upstream: (&**upstream.name()).into(),
            endpoint: address.to_string().as_str().into(),
        };
        loop {
            let (pause, needed) = self.turn(|engine| {
                let lane = engine.lanes.get(&at);
                lane.map_or((Duration::ZERO, false), |lane| {
                    (lane.pause(), lane.pause().is_zero() || !lane.is_connected())
                })
            });
            sleep(pause).await;
            let wanted = (endpoint.is_healthy() || upstream.is_panicking())
                && self.turn(|engine| engine.is_for_somebody(at));
            if !needed || !wanted && !pause.is_zero() {
                return self.turn(|engine| engine.dial_given_up(at));
            }
            let within = upstream.connect_timeout();
            let (fault, failure) =
                match timeout(within, self.connect(at, &upstream, &endpoint, &labels)).await {
                    Ok(Ok(())) => return,
                    Ok(Err(failure)) => failure,
                    Err(_) => {
                        let within = humantime::format_duration(within);
                        (Some(Fault::Timeout), format!("no answer within {within}"))
                    }
                };
            if let Some(fault) = fault {
                endpoint.unreachable(fault, pause);
            }
            debug!(%address, failure, "cannot connect");
            self.0.metrics.upstream_connect_failures.get_or_create(&labels).inc();
            let why = format!("cannot connect to {address}: {failure}");
            self.turn(|engine| engine.dial_failed(at, why));
        }
    }

    /// Connects, and waits for the peer's SETTINGS, which tell how many streams it takes. An error
    /// says whether it is the endpoint's fault.
    async fn connect(
        &self,
        at: LaneKey,
        upstream: &Upstream,
        endpoint: &Endpoint,
        labels: &EndpointLabels,
    ) -> Result<(), (Option<Fault>, String)> {
        let mut socket = TcpStream::connect(endpoint.address()).await.map_err(|error| {
            ((!net::is_ours(&error)).then_some(Fault::Connect), error.kind().to_string())
        })?;
        // Fails only for a socket that the peer has closed already, which its reader sees.
        _ = socket.set_nodelay(true);
        let limits = self.settings().borrow().limits;
        let send = limits.send_timeout;
        net::keep_alive(&socket, KEEPALIVE, limits.upstream_ping_timeout, send);
        let header = self.turn(|engine| engine.lanes.get(&at).map(|lane| lane.header.clone()));
        let header = header.unwrap_or_default();
        let failed = |error: io::Error| (Some(Fault::Connect), error.kind().to_string());
        socket.write_all(&header).await.map_err(failed)?;
        let (socket, session, first) = secure(socket, upstream, endpoint).await?;
        let mut out = Vec::new();
        let connection = Connection::new(Role::Client, endpoint_limits(&limits), &mut out);
        let age = limits.max_upstream_connection_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        let kind = Kind::Endpoint(at);
        let (id, socket) = self.add_link(connection, kind, (socket, session), out, age);
        self.turn(|engine| engine.links[id].doubts = endpoint.doubts());
        let settled = Rc::clone(&self.0.engine.borrow().links[id].settled);
        let unsettled = Unsettled { relay: self.clone(), id, done: false };
        let open = self.0.metrics.upstream_connections.get_or_create(labels);
        let relay = self.clone();
        let told = Rc::clone(&settled);
        self.0.tasks.spawn_local(async move {
            open.inc();
            if first.is_empty() || relay.turn(|engine| engine.feed(id, &first)) {
                relay.drive(id, &socket).await;
            }
            open.dec();
            let retired = relay.turn(|engine| engine.remove_link(id));
            told.notify_one();
            if retired {
                Box::pin(net::close(&socket)).await;
            }
        });
        settled.notified().await;
        let mut unsettled = unsettled;
        unsettled.done = true;
        match self.0.engine.borrow().links.contains(id) {
            true => Ok(()),
            false => Err((Some(Fault::Connect), "closed before its SETTINGS".to_owned())),
        }
    }
}

/// Sees to TLS, where the endpoint speaks it; with what it said under it already.
async fn secure(
    socket: TcpStream,
    upstream: &Upstream,
    endpoint: &Endpoint,
) -> Result<(TcpStream, Option<Box<Session>>, Vec<u8>), (Option<Fault>, String)> {
    let Some(tls) = upstream.tls() else { return Ok((socket, None, Vec::new())) };
    let address = endpoint.address();
    let failed = |error: io::Error| {
        if endpoint.shook_hands(Some(tls::reason(&error))) {
            let upstream = &**upstream.name();
            warn!(upstream, endpoint = %address, reason = %error, "TLS with an endpoint failed");
        }
        (Some(Fault::Tls), format!("TLS failed: {error}"))
    };
    let stream = tls.connect(socket, address, Spoken::Http2).await.map_err(failed)?;
    endpoint.shook_hands(None);
    let (socket, connection) = stream.into_inner();
    let (mut session, mut first) = (Session::from(connection), Vec::new());
    session.take(&mut first);
    Ok((socket, Some(Box::new(session)), first))
}

/// Closes a link whose SETTINGS did not come in time.
struct Unsettled {
    relay: Relay,
    id: usize,
    done: bool,
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if !self.done {
            let id = self.id;
            self.relay.turn(|engine| {
                if let Some(link) = engine.links.get_mut(id) {
                    link.close(Reason::SETTINGS_TIMEOUT);
                    engine.touch(id);
                }
            });
        }
    }
}

fn endpoint_limits(limits: &config::Limits) -> Limits {
    Limits {
        streams: 0,
        header_list: usize::try_from(limits.max_upstream_header_list_size.as_u64())
            .unwrap_or(usize::MAX),
        header_fields: limits.max_upstream_header_fields as usize,
        header_frames: limits.max_upstream_header_frames as usize,
        stream_window: FIRST_WINDOW,
        connection_window: 128 * STREAM_WINDOW,
        frames: Some(Counted::Together(limits.max_upstream_frames)),
    }
}

/// How long an endpoint may be silent before the kernel asks whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What an endpoint may send on a stream before its client has taken some of it, in bytes; then the
/// window is widened. A client that takes nothing holds no more of each of its calls.
const FIRST_WINDOW: u32 = 32 << 10;

//! A call, forwarded: message bytes, metadata and trailers pass as they are, in both directions at
//! once. Hop-by-hop fields never get here: HTTP/2 forbids them, and h2 resets their stream.

use std::pin::pin;

use http::{HeaderMap, Request, StatusCode, Uri, header, request::Parts, uri::Authority};
use tokio::time::Instant;

use super::{
    End, Listener, Pool,
    local::{discard, refuse},
    pool::{Lease, Pending},
    transport::{CANCEL, Fault, Received, Receiver, Responder, Sender},
};
use crate::{
    grpc::{Code, MessageSizes, Status, TooLarge, is_grpc},
    upstream::{InFlight, Upstream},
};

/// Sends a call to an endpoint and its response back, and counts it.
pub(super) async fn forward(
    head: Parts,
    body: Receiver,
    mut respond: Responder,
    listener: &Listener,
    pool: &Pool,
) {
    let started = Instant::now();
    let labels = listener.route_labels();
    let streams = listener.metrics.streams.get_or_create(&labels).clone();
    streams.inc();
    let path = head.uri.path().to_owned();
    let upstream = listener.upstream.as_ref().expect("only listeners with an upstream forward");
    let ended = body.is_ended();
    let opened = tokio::select! {
        biased;
        _ = respond.closed() => None,
        opened = open(head, ended, upstream, pool) => Some(opened),
    };
    let end = match opened {
        Some(Ok(opened)) => exchange(opened, body, ended, respond, listener).await,
        Some(Err(status)) => {
            refuse(&mut respond, &status);
            discard(body).await;
            End::Refused(status.code)
        }
        None => End::Reset,
    };
    streams.dec();
    let took = started.elapsed().as_secs_f64();
    listener.metrics.request_duration.get_or_create(&labels).observe(took);
    listener.ended(&path, end);
}

/// A call that an endpoint has.
struct Opened {
    sender: Sender,
    response: Pending,
    // Both until the streams end, not only until the head has arrived.
    _lease: Lease,
    _in_flight: InFlight,
}

/// Opens a stream on an endpoint. One that cannot be reached is passed over for the next, since
/// nothing was sent to it.
async fn open(
    head: Parts,
    ended: bool,
    upstream: &Upstream,
    pool: &Pool,
) -> Result<Opened, Status> {
    let unavailable = |why: String| Status::new(Code::Unavailable, why);
    let head = request(head);
    let mut tried = Vec::new();
    let mut why = None;
    let mut lost = 0;
    loop {
        let picked = upstream
            .pick(|endpoint| !tried.contains(&endpoint.address()) && pool.is_usable(endpoint));
        let Some(endpoint) = picked.or_else(|| upstream.pick(|e| !tried.contains(&e.address())))
        else {
            let none = || format!("no healthy endpoint in upstream {}", upstream.name());
            return Err(unavailable(why.unwrap_or_else(none)));
        };
        let in_flight = endpoint.start();
        match pool.lease(upstream, &endpoint).await {
            Ok(mut lease) => match lease.send(head.clone(), ended) {
                Ok((sender, response)) => {
                    return Ok(Opened { sender, response, _lease: lease, _in_flight: in_flight });
                }
                // Gone between its choice and its use; the same endpoint may have another.
                Err(fault) => {
                    why = Some(format!("connection to {} lost: {fault:?}", endpoint.address()));
                    lost += 1;
                    if lost == LOST {
                        tried.push(endpoint.address());
                    }
                }
            },
            Err(failure) => {
                why = Some(failure.to_string());
                tried.push(endpoint.address());
            }
        }
    }
}

/// The head as the endpoint gets it: the same, in a form that names scheme and authority. A client
/// that sent Host in place of `:authority` has it moved there (RFC 9113, 8.3.1).
fn request(mut head: Parts) -> Request<()> {
    if head.uri.authority().is_none() {
        let host = head.headers.remove(header::HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = head.uri.into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = authority;
        head.uri = Uri::from_parts(parts).unwrap_or_default();
    }
    Request::from_parts(head, ())
}

/// Why an exchange broke off.
enum Break {
    /// The side that was read failed.
    Source(Fault),
    /// The side that was written failed.
    Sink(Fault),
    /// A message is larger than the listener takes.
    TooLarge(TooLarge),
}

/// Moves both directions until the response has ended, whatever is left of the request then.
async fn exchange(
    opened: Opened,
    mut body: Receiver,
    ended: bool,
    mut respond: Responder,
    listener: &Listener,
) -> End {
    let Opened { mut sender, response, _lease, _in_flight } = opened;
    let mut request = Meter::new(listener.max_message_size);
    let mut reply = Meter::new(listener.max_message_size);
    let mut back = None;
    let outcome = {
        let mut upload = pin!(upload(&mut body, &mut sender, &mut request));
        let mut download = pin!(download(response, &mut respond, &mut back, &mut reply));
        let mut uploading = !ended;
        loop {
            tokio::select! {
                biased;
                outcome = &mut download => break outcome,
                outcome = &mut upload, if uploading => match outcome {
                    // Of an endpoint that takes no more, the response says why.
                    Ok(()) | Err(Break::Sink(_)) => uploading = false,
                    // To the response's side, the client is the one that is written to.
                    Err(Break::Source(fault)) => break Err(Break::Sink(fault)),
                    Err(Break::TooLarge(error)) => break Err(Break::TooLarge(error)),
                },
            }
        }
    };
    listener.forwarded("request", request.bytes);
    listener.forwarded("response", reply.bytes);
    let status = match outcome {
        Ok(end) => return end,
        Err(Break::Sink(fault)) => {
            sender.reset(if let Fault::Reset(code) = fault { code } else { CANCEL });
            return End::Reset;
        }
        Err(Break::Source(Fault::Reset(code))) => {
            respond.reset(code);
            return End::Reset;
        }
        Err(Break::Source(Fault::Lost(why))) => {
            Status::new(Code::Unavailable, format!("upstream connection lost: {why}"))
        }
        Err(Break::TooLarge(error)) => {
            sender.reset(CANCEL);
            Status::new(Code::ResourceExhausted, error.to_string())
        }
    };
    match &mut back {
        // Fails only where the client has reset the stream.
        Some(back) => _ = back.trailers(status.trailers()),
        None => refuse(&mut respond, &status),
    }
    End::Status(status.code)
}

/// The request's body. Trailers of a client mean nothing in gRPC and are left out.
async fn upload(body: &mut Receiver, to: &mut Sender, meter: &mut Meter) -> Result<(), Break> {
    match pump(body, to, meter, true).await? {
        Ended::ByData => Ok(()),
        Ended::After(_) => to.end().map_err(Break::Sink),
    }
}

/// The response: head, body, trailers. Where the status is missing from gRPC's, one is put in its
/// place, so that the client always gets exactly one.
async fn download(
    response: Pending,
    respond: &mut Responder,
    back: &mut Option<Sender>,
    meter: &mut Meter,
) -> Result<End, Break> {
    let (mut head, mut body) = tokio::select! {
        biased;
        fault = respond.closed() => return Err(Break::Sink(fault)),
        response = response.response() => response.map_err(Break::Source)?,
    };
    let grpc = head.status() == StatusCode::OK && is_grpc(head.headers().get(header::CONTENT_TYPE));
    let early = Code::of(head.headers());
    if body.is_ended() {
        let end = if grpc { one_status(head.headers_mut()) } else { early.map(End::Status) };
        respond.head(head, true).map_err(Break::Sink)?;
        return Ok(end.unwrap_or(End::Http));
    }
    let to = back.insert(respond.head(head, false).map_err(Break::Sink)?);
    if !grpc {
        // Its bytes are no length-prefixed messages.
        meter.sizes = None;
    }
    let wants_status = grpc && early.is_none();
    match pump(&mut body, to, meter, !wants_status).await? {
        Ended::ByData => Ok(early.map_or(End::Http, End::Status)),
        Ended::After(trailers) => {
            let mut trailers = trailers.unwrap_or_default();
            let end = if wants_status { one_status(&mut trailers) } else { early.map(End::Status) };
            let sent = if trailers.is_empty() { to.end() } else { to.trailers(trailers) };
            sent.map_err(Break::Sink)?;
            Ok(end.unwrap_or(End::Http))
        }
    }
}

/// Leaves exactly one grpc-status in the fields that end a response.
fn one_status(fields: &mut HeaderMap) -> Option<End> {
    let code = match Code::of(fields) {
        Some(code) => code,
        None => {
            let status = Status::new(Code::Unknown, "the upstream sent no grpc-status");
            fields.extend(status.trailers());
            status.code
        }
    };
    if fields.get_all("grpc-status").iter().count() > 1
        && let Some(first) = fields.get("grpc-status").cloned()
    {
        fields.insert("grpc-status", first);
    }
    Some(End::Status(code))
}

/// How a body ended.
enum Ended {
    /// With its last DATA frame, whose end was sent on.
    ByData,
    /// With these trailers, or an empty frame; the end is yet to be sent on.
    After(Option<HeaderMap>),
}

/// Moves a body. What was received is credited to its sender only as the other side takes it, so
/// that no more than one window of it ever waits here.
async fn pump(
    from: &mut Receiver,
    to: &mut Sender,
    meter: &mut Meter,
    end_by_data: bool,
) -> Result<Ended, Break> {
    loop {
        let received = tokio::select! {
            biased;
            fault = to.closed() => return Err(Break::Sink(fault)),
            received = from.next() => received.map_err(Break::Source)?,
        };
        let mut chunk = match received {
            Received::Data(chunk) => chunk,
            Received::End(trailers) => return Ok(Ended::After(trailers)),
        };
        if let Some(sizes) = &mut meter.sizes {
            sizes.scan(&chunk).map_err(Break::TooLarge)?;
        }
        let last = end_by_data && from.is_ended();
        while !chunk.is_empty() {
            let taken = to.data(&mut chunk, last).await.map_err(Break::Sink)?;
            from.credit(taken);
            meter.bytes += taken as u64;
        }
        if last {
            return Ok(Ended::ByData);
        }
    }
}

/// What passed in one direction.
struct Meter {
    sizes: Option<MessageSizes>,
    bytes: u64,
}

impl Meter {
    fn new(max_message_size: u64) -> Self {
        Self { sizes: Some(MessageSizes::new(max_message_size)), bytes: 0 }
    }
}

/// How often one call tries anew on a connection that was lost before anything was sent.
const LOST: u32 = 3;

//! What the backend receives and what the client gets back is what the other side sent.
//!
//! Client and backend are raw [`Wire`]s, so no library's opinion stands between a test and the
//! proxy. [`World::exchange`] plays one call through it; [`difference`] is the judge.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fixture::proxy::Proxy;
use crate::fixture::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, End, Fields, Form, Frame, HEADERS,
    INITIAL_WINDOW_SIZE, Message, PADDED, PING, PRIORITIZED, PRIORITY, SETTINGS, WINDOW_UPDATE,
    Wire, encode, fields, grpc_frame,
};

const CONFIG: &str = r#"
listeners: [{ name: otlp, address: "127.0.0.1:0", upstream: otlp }]
upstreams: { otlp: { endpoints: ["ADDR"], probe: { interval: 300ms, timeout: 290ms, checks: [ { tcp: {} } ] } } }
admin: { address: "127.0.0.1:0" }
drain: { delay: 0s, timeout: 1s }
"#;

/// DATA frames of bodies are this long: no divisor of a message, a window or a frame limit.
const FRAME: usize = 10_007;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

const HOP_BY_HOP: [&str; 5] = [
    "connection=keep-alive",
    "keep-alive=timeout=5",
    "proxy-connection=keep-alive",
    "transfer-encoding=chunked",
    "upgrade=h2c",
];

#[tokio::test]
async fn an_export_arrives_as_it_was_sent_both_ways() {
    let request = call(
        "te=trailers grpc-encoding=gzip user-agent=grpc-go/1.76.0 \
         grpc-accept-encoding=identity,deflate,gzip x-scope-orgid=tenant-7 \
         tracestate=congo=t61rcWkgMzE,rojo=00f067aa \
         traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    let response = answer("server-timing=q;dur=2", "grpc-message= x-shard=3");
    passes(&[(request, response)]).await;
}

#[tokio::test]
async fn values_of_one_name_stay_in_order_also_between_other_names() {
    let metadata = "x-a=1 x-b=9 x-a=3 x-c= x-a=2 x-b=9 x-a=1";
    passes(&[(call(metadata), answer(metadata, metadata))]).await;
}

#[tokio::test]
async fn binary_metadata_keeps_its_padding_and_its_duplicates() {
    let metadata =
        "a-bin=AAEC/w== a-bin=AAEC/w empty-bin= a-bin=AAEC/w== a-bin=AQ list-bin=AQ,Ag,Aw==";
    passes(&[(call(metadata), answer(metadata, metadata))]).await;
}

#[tokio::test]
async fn every_lawful_byte_passes_in_a_value() {
    let visible: Vec<u8> = (0x21..=0x7e).collect();
    let high: Vec<u8> = (0x80..=0xff).collect();
    let values =
        [&visible, &high, &b"a\tb  c \t d"[..], b"\"q\\\"\", ;=,: %00 %zz", &[b'v'; 4_000], b""];
    let list = fields(&values.map(|value| ("x-value", value)));
    let (mut request, mut response) = (call("x-next=1"), answer("", "x-next=1"));
    request.head.extend(list.clone());
    response.head.extend(list.clone());
    response.trailers.as_mut().unwrap().extend(list);
    passes(&[(request, response)]).await;
}

#[tokio::test]
async fn authority_scheme_and_path_are_not_rewritten() {
    let targets = [
        ":scheme=http :path=/tempopb.Querier/FindTraceByID :authority=tempo.example:4317",
        ":scheme=http :path=/a.b_C1/d_E2 :authority=127.0.0.1",
        ":scheme=https :path=/Lonely/Method :authority=UPPER.example",
    ];
    let cases = targets.map(|target| {
        let head = list(&format!(":method=POST {target} content-type=application/grpc"));
        (Message::new(&head).body(grpc_frame(b"x")), answer("", ""))
    });
    passes(&cases).await;
}

#[tokio::test]
async fn an_error_keeps_its_message_details_and_duplicates() {
    let trailers = list(
        "grpc-status=8 grpc-message=r%C3%A4te%20limit:%20100%25%0Aretry x-reason=tenant \
         grpc-status-details-bin=CAgSBWxpbWl0GigKJnR5cGUuZ29vZ2xlYXBpcy5jb20vUmV0cnlJbmZv \
         x-reason=burst",
    );
    passes(&[(call(""), answer("", "").trailers(&trailers))]).await;
}

#[tokio::test]
async fn a_trailers_only_response_stays_one_header_block() {
    let head = list(
        ":status=200 content-type=application/grpc grpc-status=14 grpc-message=no%20org%20id \
         grpc-status-details-bin=CA4 x-a=1 x-a=2",
    );
    passes(&[(call(""), Message::new(&head))]).await;
}

#[tokio::test]
async fn a_response_without_a_message_keeps_head_and_trailers_apart() {
    let head = list(":status=200 content-type=application/grpc x-head=1");
    let response = Message::new(&head).trailers(&list("grpc-status=5 x-trailer=1"));
    passes(&[(call(""), response)]).await;
}

#[tokio::test]
async fn messages_of_any_size_keep_their_bytes() {
    let noise: Vec<u8> =
        (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let several = [&b"one"[..], b"", &noise[..70_000], b"four"].map(grpc_frame).concat();
    let [none, five, large] = [&b""[..], b"5 now", &noise].map(grpc_frame);
    let bodies = [none, five, large, several];
    passes(&bodies.map(|body| (call("").body(body.clone()), with_body(body)))).await;
}

#[tokio::test]
async fn single_bytes_and_small_windows_change_nothing() {
    let mut world = World::start().await;
    let (setting, size) = (INITIAL_WINDOW_SIZE.to_be_bytes(), 1_000_u32.to_be_bytes());
    let narrow = [&setting[..], &size].concat();
    world.client.send(Frame::new(SETTINGS, 0, 0, narrow)).await;
    let request = call("").body(grpc_frame(b"drops"));
    let response = with_body(grpc_frame(&[7; 50_000]));
    world.backend.answer_ended(&response);

    let stream = world.client.open();
    world.client.play(stream, &request, 1).await;
    let back = world.client.message(stream).await;

    assert_same(&request, &world.backend.request().await);
    assert_same(&response, &back);
    assert!(back.data_frames.iter().all(|length| *length <= 1_000));
    world.stop().await;
}

#[tokio::test]
async fn a_compressed_message_is_not_opened() {
    let mut body = grpc_frame(b"\x1f\x8b this is no gzip stream at all");
    body[0] = 1;
    let request = call("grpc-encoding=gzip").body(body.clone());
    let mut response = answer("grpc-encoding=snappy", "");
    response.body = body;
    passes(&[(request, response)]).await;
}

#[tokio::test]
async fn a_request_may_end_with_an_empty_data_frame() {
    let mut world = World::start().await;
    world.backend.answer_ended(&answer("", ""));
    for request in [call(""), call("").body([])] {
        let stream = world.client.open();
        world.client.head(stream, &request.head, false).await;
        if !request.body.is_empty() {
            world.client.data(stream, &request.body, false).await;
        }
        world.client.data(stream, &[], true).await;
        let back = world.client.message(stream).await;

        assert_same(&request, &world.backend.request().await);
        assert_same(&answer("", ""), &back);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_response_that_is_not_grpc_passes_as_it_is() {
    let text = list(":status=415 content-type=text/plain content-length=5");
    let bare = list(":status=503 content-type=text/html retry-after=7");
    let responses = [Message::new(&text).body("sorry"), Message::new(&bare)];
    passes(&responses.map(|response| (call(""), response))).await;
}

#[tokio::test]
async fn a_head_in_padded_and_continued_frames_arrives_the_same() {
    let mut world = World::start().await;
    world.backend.answer_ended(&answer("", ""));
    let request = call("te=trailers x-a=1 x-a=2");
    let block = encode(&request.head, &[]);
    let priority = [0, 0, 0, 0, 15];
    let head = [&[3][..], &priority, &block[..7], &[0; 3]].concat();
    let body = [&[200][..], &request.body, &[0; 200]].concat();

    let stream = world.client.open();
    for frame in [
        Frame::new(PING, 0, 0, *b"upbeat!!"),
        Frame::new(PRIORITY, 0, stream, priority),
        Frame::new(HEADERS, PADDED | PRIORITIZED, stream, head),
        Frame::new(CONTINUATION, 0, stream, &block[7..40]),
        Frame::new(CONTINUATION, END_HEADERS, stream, &block[40..]),
        Frame::new(DATA, PADDED | END_STREAM, stream, body),
    ] {
        assert!(world.client.send(frame).await);
    }
    let back = world.client.message(stream).await;

    assert_same(&request, &world.backend.request().await);
    assert_same(&answer("", ""), &back);
    world.stop().await;
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_request_never_reach_the_backend() {
    let mut world = World::start().await;
    world.backend.answer_ended(&answer("", ""));
    for hop in HOP_BY_HOP {
        let stream = world.send(&call(hop)).await;
        let back = world.client.message(stream).await;

        // HTTP/2 forbids such a field, so to refuse the request is as good as to drop the field.
        match world.backend.requests.try_recv() {
            Ok(got) => assert_same(&call(""), &got),
            Err(_) => assert!(refused(&back), "{hop}: {back:?}"),
        }
    }
    let (got, _) = world.exchange(&call("x-last=1"), &answer("", "")).await;
    assert_same(&call("x-last=1"), &got);
    world.stop().await;
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_response_never_reach_the_client() {
    for hop in HOP_BY_HOP {
        // A proxy of its own for each: an engine may learn to shun a backend that misbehaves.
        let mut world = World::start().await;
        for response in [answer(hop, ""), answer("", hop)] {
            let (_, back) = world.exchange(&call(""), &response).await;

            let through = back.fields().any(|field| field.0 == list(hop)[0].0);
            assert!(!through, "{hop} got through: {back:?}");
            let failed = refused(&back) || matches!(back.ended_by, End::Reset(1..));
            let same = difference(&answer("", ""), &back).is_none();
            assert!(failed || same, "{hop}: {back:?}");
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn a_reset_by_the_client_reaches_the_backend_with_its_code() {
    let mut world = World::start().await;
    for code in [CANCEL, INTERNAL_ERROR] {
        // In the middle of a call that both sides have begun.
        let head = Message::new(&answer("", "").head).ended_by(End::Open);
        world.backend.answer(move |_| Some(head.clone()));
        let stream = world.send(&call("").ended_by(End::Open)).await;
        world.client.begun(stream).await;
        world.client.reset(stream, code).await;
        assert_eq!(world.backend.request().await.ended_by, End::Reset(code));

        // After the request, while its answer is awaited.
        world.backend.answer(|_| None);
        let stream = world.send(&call("")).await;
        assert_same(&call(""), &world.backend.request().await);
        world.client.reset(stream, code).await;
        assert_eq!(world.backend.late_reset().await, code);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_reset_by_the_backend_reaches_the_client_with_its_code() {
    for code in [INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM] {
        let mut world = World::start().await;
        let mut begun = answer("", "");
        begun.trailers = None;
        for response in [Message::default(), begun] {
            let response = response.ended_by(End::Reset(code));

            let (_, back) = world.exchange(&call(""), &response).await;

            // A reset may overtake what was queued before it.
            assert_eq!(back.ended_by, End::Reset(code), "for {response:?}");
            assert!(response.body.starts_with(&back.body) && back.trailers.is_none());
            // A refused stream may have been tried again.
            while world.backend.requests.try_recv().is_ok() {}
        }
        world.stop().await;
    }
}

#[tokio::test]
async fn sixty_four_calls_in_a_row_keep_their_own_metadata() {
    // All of it enters the tables of HPACK, which overflow several times.
    let indexed = |message: Message| {
        let forms = vec![Form::Incremental; message.fields().count()];
        Message { forms, ..message }
    };
    let request = |n| indexed(numbered(call(""), n));
    let response = |n| indexed(numbered(answer("", ""), n));
    let case = |n| (request(n), response(n));
    passes(&(0..64).map(case).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn thirty_two_calls_at_once_keep_their_own_metadata_and_bytes() {
    let mut world = World::start().await;
    world.backend.answer(|request| {
        let number = str::from_utf8(request.value("x-call")?).ok()?;
        let number = number.parse().ok()?;
        (request.ended_by != End::Open).then(|| numbered(answer("", ""), number))
    });
    let calls: Vec<_> = (0..32).map(|n| (world.client.open(), numbered(call(""), n))).collect();
    for (stream, request) in &calls {
        world.client.head(*stream, &request.head, false).await;
    }
    for (stream, request) in &calls {
        let start = &request.body[..9];
        world.client.body(*stream, start, FRAME, false).await;
    }
    for (stream, request) in calls.iter().rev() {
        let rest = &request.body[9..];
        world.client.body(*stream, rest, FRAME, true).await;
    }

    for (n, (stream, _)) in calls.iter().enumerate() {
        let back = world.client.message(*stream).await;
        assert_same(&numbered(answer("", ""), n), &back);
    }
    let mut arrived = BTreeSet::new();
    for _ in &calls {
        let got = world.backend.request().await;
        let mut calls = calls.iter();
        let sent = calls.find(|(_, sent)| sent.value("x-call") == got.value("x-call"));
        let (stream, sent) = sent.expect("only these calls were made");
        assert_same(sent, &got);
        assert!(arrived.insert(stream), "stream {stream} arrived twice");
    }
    world.stop().await;
}

#[tokio::test]
async fn never_indexed_fields_leave_as_they_came() {
    let mut world = World::start().await;
    let secret = |message: Message| {
        let form = |field: &(Bytes, Bytes)| match &field.0[..] {
            b"x-secret" => Form::NeverIndexed,
            _ => Form::Plain,
        };
        let forms = message.fields().map(form).collect();
        Message { forms, ..message }
    };
    let request = secret(call("x-secret=s3cret x-open=1 x-secret=2nd"));
    let response = secret(answer("x-secret=1 x-open=1", "x-open=2 x-secret=2"));
    // Twice, since an engine may index what it sees a second time.
    for _ in 0..2 {
        let (got, back) = world.exchange(&request, &response).await;
        for (sent, got) in [(&request, &got), (&response, &back)] {
            assert_same(sent, got);
            assert_eq!(marks(sent).len(), 2);
            assert_eq!(marks(sent), marks(got));
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_wire_reads_what_a_wire_wrote() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(TcpStream::connect(address).await.unwrap());
    let (mut server, mut client) = tokio::join!(Wire::accept(&listener), Wire::connect(address));
    let mut request = call(&format!("x-long={}", "v".repeat(20_000))).body([7; 70_000]);
    request.forms = vec![Form::NeverIndexed, Form::Plain, Form::Incremental];
    let stream = client.open();

    server.credits = false;
    tokio::join!(client.play(stream, &request, 16_384), async {
        while server.begun(stream).await.body.len() < 65_535 {
            server.next().await.unwrap();
        }
        let credit = 100_000_u32.to_be_bytes();
        for stream in [0, stream] {
            let update = Frame::new(WINDOW_UPDATE, 0, stream, credit);
            server.send(update).await;
        }
    });
    let got = server.message(stream).await;
    assert_eq!(difference(&request, &got), None);
    assert_eq!(got.head, request.head);
    assert_eq!(got.forms[..3], request.forms);
    assert_eq!(got.forms[3], Form::Plain);
    assert_eq!(got.data_frames, [16_384, 16_384, 16_384, 16_383, 4_465]);

    server.head(stream, &[(":status", "103")], false).await;
    server.play(stream, &answer("", ""), FRAME).await;
    server.reset(stream, NO_ERROR).await;
    let back = client.message(stream).await;
    assert_eq!(difference(&answer("", ""), &back), None);
    drop(server);
    while client.next().await.is_some() {}
}

#[test]
fn the_comparison_sees_what_is_dropped_changed_added_or_reordered() {
    let sent = answer("x-a=1 x-b=1 x-a=2", "x-t=1");
    let after = |change: fn(&mut Message)| {
        let mut got = sent.clone();
        change(&mut got);
        difference(&sent, &got)
    };
    let changes: [fn(&mut Message); 14] = [
        |got| got.head.truncate(4),
        |got| got.head.retain(|field| field.0 != "x-b"),
        |got| got.head[3].1 = "other".into(),
        |got| got.head[3].1 = "1 ".into(),
        |got| got.head[3].0 = "x-B".into(),
        |got| got.head.push(got.head[3].clone()),
        |got| got.head.extend(fields(&[("via", "2 upbeat")])),
        |got| got.head.swap(2, 4),
        |got| got.head.swap(0, 1),
        |got| got.body[6] ^= 1,
        |got| got.body.truncate(8),
        |got| got.trailers = None,
        |got| got.trailers = Some(list("grpc-status=0 x-t=2")),
        |got| got.ended_by = End::Data,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert!(after(change).is_some(), "change {index} passes unseen");
    }
    assert_eq!(after(|_| ()), None);
    assert!(after(|got| got.head.swap(3, 4)).is_some());
}

/// A client, the proxy, and a backend behind it.
struct World {
    client: Wire,
    backend: Backend,
    proxy: Proxy,
}

impl World {
    async fn start() -> Self {
        let backend = Backend::start().await;
        let proxy = Proxy::start(&CONFIG.replace("ADDR", &backend.address.to_string())).await;
        proxy.wait_serving().await;
        let client = Wire::connect(proxy.address("otlp")).await;
        Self { client, backend, proxy }
    }

    /// Sends a request on a fresh stream.
    async fn send(&mut self, request: &Message) -> u32 {
        let stream = self.client.open();
        self.client.play(stream, request, FRAME).await;
        stream
    }

    /// One whole call: what the backend received, and what the client got back.
    async fn exchange(&mut self, request: &Message, response: &Message) -> (Message, Message) {
        self.backend.answer_ended(response);
        let stream = self.send(request).await;
        let back = self.client.message(stream).await;
        (self.backend.request().await, back)
    }

    async fn stop(self) {
        drop(self.client);
        self.proxy.stop().await;
    }
}

/// What the backend answers to a request as far as it has come; asked again until it is something.
type Answer = Arc<dyn Fn(&Message) -> Option<Message> + Send + Sync>;

struct Backend {
    address: SocketAddr,
    answers: watch::Sender<Answer>,
    /// Requests in the order of their ends. Without a head: a reset that came after the end.
    requests: mpsc::UnboundedReceiver<Message>,
    _connections: JoinSet<()>,
}

impl Backend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (answers, answer) = watch::channel::<Answer>(Arc::new(|_| None));
        let (seen, requests) = mpsc::unbounded_channel();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut served = JoinSet::new();
            loop {
                tokio::select! {
                    connection = listener.accept() => {
                        let (socket, _) = connection.expect("the listener accepts");
                        served.spawn(serve(socket, answer.clone(), seen.clone()));
                    }
                    Some(end) = served.join_next() => end.expect("no connection's task panics"),
                }
            }
        });
        Self { address, answers, requests, _connections: connections }
    }

    fn answer(&self, answer: impl Fn(&Message) -> Option<Message> + Send + Sync + 'static) {
        self.answers.send_replace(Arc::new(answer));
    }

    /// Answers every request once it has ended.
    fn answer_ended(&self, response: &Message) {
        let response = response.clone();
        self.answer(move |request| (request.ended_by != End::Open).then(|| response.clone()));
    }

    async fn request(&mut self) -> Message {
        let request = timeout(Duration::from_secs(20), self.requests.recv()).await;
        request.expect("a request reaches the backend").expect("the backend lives")
    }

    /// The code of a reset that comes after the request has ended.
    async fn late_reset(&mut self) -> u32 {
        match self.request().await {
            Message { head, ended_by: End::Reset(code), .. } if head.is_empty() => code,
            other => panic!("not a late reset: {other:?}"),
        }
    }
}

/// Serves one connection of the proxy, or of its prober.
async fn serve(
    socket: TcpStream,
    answer: watch::Receiver<Answer>,
    seen: mpsc::UnboundedSender<Message>,
) {
    let Some(mut wire) = Wire::serve(socket).await else {
        return;
    };
    wire.patience = Duration::from_secs(60); // a proxy may keep a connection without need
    let mut answered = BTreeSet::new();
    loop {
        let ask = answer.borrow().clone();
        let mut replies = Vec::new();
        for stream in Vec::from_iter(wire.arriving.keys().copied()) {
            let message = &wire.arriving[&stream];
            let begun = !message.head.is_empty() && !answered.contains(&stream);
            if let Some(reply) = begun.then(|| ask(message)).flatten() {
                answered.insert(stream);
                replies.push((stream, reply));
            }
            if message.ended_by != End::Open
                && let Some(message) = wire.arriving.remove(&stream)
                && seen.send(message).is_err()
            {
                return;
            }
        }
        // A test may count on it that a request is seen before its reply leaves.
        for (stream, reply) in &replies {
            wire.play(*stream, reply, FRAME).await;
        }
        // Other requests may have ended during the replies, so look again before waiting.
        if replies.is_empty() && wire.next().await.is_none() {
            return;
        }
    }
}

/// Plays the calls one after the other on one connection; all arrive as they were sent.
async fn passes(cases: &[(Message, Message)]) {
    assert!(!cases.is_empty());
    let mut world = World::start().await;
    for (request, response) in cases {
        let (got, back) = world.exchange(request, response).await;
        assert_same(request, &got);
        assert_same(response, &back);
    }
    world.stop().await;
}

/// Fields out of a line such as `x-a=1 x-b= x-a=2`, for values without a space.
fn list(line: &str) -> Fields {
    let pairs = line.split_whitespace().map(|field| field.split_once('=').expect("name=value"));
    fields(&pairs.collect::<Vec<_>>())
}

/// A request with this metadata and a small message.
fn call(metadata: &str) -> Message {
    let head = ":method=POST :scheme=http :authority=collector.example:4317 \
                :path=/opentelemetry.proto.collector.trace.v1.TraceService/Export \
                content-type=application/grpc";
    Message::new(&list(&format!("{head} {metadata}"))).body(grpc_frame(b"spans"))
}

/// A response with this metadata in its head and its trailers and a small message.
fn answer(head: &str, trailers: &str) -> Message {
    let head = format!(":status=200 content-type=application/grpc {head}");
    let trailers = format!("grpc-status=0 {trailers}");
    Message::new(&list(&head)).body(grpc_frame(b"done")).trailers(&list(&trailers))
}

fn with_body(body: Vec<u8>) -> Message {
    let mut answer = answer("", "");
    answer.body = body;
    answer
}

/// The message with metadata and bytes that tell it from all others.
fn numbered(mut message: Message, number: usize) -> Message {
    let (plain, long) = (number.to_string(), format!("{number:03}").repeat(50));
    let list = fields(&[("x-call", &plain), ("x-long", &long), ("x-call", &long)]);
    if let Some(trailers) = &mut message.trailers {
        trailers.extend(list.clone());
    }
    message.head.extend(list);
    message.body = grpc_frame(long.repeat(number + 1).as_bytes());
    message
}

/// Whether this is a refusal by the proxy: RST_STREAM, an HTTP status, or gRPC's trailers-only.
fn refused(back: &Message) -> bool {
    let status = back.value(":status").is_some_and(|status| matches!(status, [b'4' | b'5', ..]));
    let grpc = back.value("grpc-status").is_some_and(|status| status != b"0");
    back.ended_by == End::Reset(PROTOCOL_ERROR) || status || grpc
}

/// The fields that no hop may index, sorted.
fn marks(message: &Message) -> Fields {
    let forms = message.fields().zip(&message.forms);
    let mut marks: Fields = forms
        .filter(|(_, form)| **form == Form::NeverIndexed)
        .map(|(field, _)| field.clone())
        .collect();
    marks.sort();
    marks
}

#[track_caller]
fn assert_same(sent: &Message, got: &Message) {
    if let Some(difference) = difference(sent, got) {
        panic!("{difference}");
    }
}

/// What is not the same, in words. How a body was cut into frames does not count.
fn difference(sent: &Message, got: &Message) -> Option<String> {
    let trailers = |message: &Message| message.trailers.clone().unwrap_or_default();
    if let Some(head) = difference_of_fields(&sent.head, &got.head) {
        return Some(format!("head: {head}"));
    }
    if sent.body != got.body {
        let same = sent.body.iter().zip(&got.body).take_while(|(sent, got)| sent == got).count();
        let (sent, got) = (sent.body.len(), got.body.len());
        return Some(format!("body: {sent} bytes were sent, {got} came, equal up to {same}"));
    }
    if let Some(trailers) = difference_of_fields(&trailers(sent), &trailers(got)) {
        return Some(format!("trailers: {trailers}"));
    }
    let ends = (sent.ended_by, got.ended_by);
    (ends.0 != ends.1).then(|| format!("end: {:?} was sent, {:?} came", ends.0, ends.1))
}

fn difference_of_fields(sent: &Fields, got: &Fields) -> Option<String> {
    let regular_first = got.iter().is_sorted_by_key(|(name, _)| !name.starts_with(b":"));
    if !regular_first {
        return Some(format!("a pseudo-header comes late in {got:?}"));
    }
    (sent != got).then(|| format!("{sent:?} was sent, {got:?} came"))
}

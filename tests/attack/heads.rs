//! Heads: too long, too slow, too many fields, and such as must not reach a backend.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use upbeat::http2::frame::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, SETTINGS,
};

use crate::{
    crowd,
    endpoints::{FOREVER, echoed},
    fixture::{
        frame,
        wire::{self, Fields, Form, Frame, Wire, encode},
    },
    floods::NOISE,
    raw::{Raw, request},
    scene::{Aside, Scene, Setup},
    victim::UNARY,
};

/// Seven frames of one header block that does not end: of a KiB, of 16, and empty.
pub(crate) async fn continuations(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    for (what, length) in [("1 KiB", 1024), ("16 KiB", 16_384), ("empty", 0)] {
        let mut raw = Raw::connect(address, &[]).await?;
        raw.listen(Duration::from_millis(100)).await;
        let (started, stream) = (Instant::now(), raw.stream());
        // Fields of four bytes each.
        let piece = encode(&vec![("a", ""); length / 4], &[]);
        raw.put(HEADERS, 0, stream, &piece);
        (0..6).for_each(|_| raw.put(CONTINUATION, 0, stream, &piece));
        // Before the time for a header block is over, which would close it too.
        let closed = raw.closed(started, Duration::from_secs(4)).await;
        scene.at_most(&format!("{what}: closed by 7 frames after"), closed, 4.0, " s");
    }
    scene.memory(0.0625 + NOISE);
    Ok(())
}

/// A header block of which a byte comes each second: within HEADERS, and within CONTINUATION.
pub(crate) async fn dripped(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (limits, often, bound) = match scene.options.slow {
        true => ("", 1000, 6.0),
        false => ("frame_timeout: 1s", 200, scene.patient(2.0)),
    };
    let address = scene.begin(Setup { limits, ..Setup::default() }).await?;
    for (what, kind) in [("HEADERS", HEADERS), ("CONTINUATION", CONTINUATION)] {
        let mut raw = Raw::connect(address, &[]).await?;
        raw.listen(Duration::from_millis(100)).await;
        let stream = raw.stream();
        if kind == CONTINUATION {
            raw.put(HEADERS, 0, stream, &encode(&request(UNARY), &[]));
        }
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind, 0, stream, &encode(&request(UNARY), &[]));
        let started = Instant::now();
        for byte in bytes {
            raw.bytes(&[byte]);
            raw.listen(Duration::from_millis(often)).await;
            if raw.heard.closed.is_some() || started.elapsed().as_secs_f64() > bound + 3.0 {
                break;
            }
        }
        let closed = raw.closed(started, Duration::ZERO).await;
        scene.at_most(&format!("{what} closed"), closed, bound, " s");
    }
    Ok(())
}

/// 10 connections with 128 streams each, whose heads are one field of 4 KB three times over, and
/// whose answers have no window; then one of 16 000 such fields.
pub(crate) async fn hpack_bomb(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (limits, stalled) = if scene.options.slow { ("", 30.0) } else { ("send_timeout: 2s", 2.0) };
    // With an endpoint of its own: 15 MB of heads are much work for one, which is not the proxy's.
    let endpoint = scene.echo(None).await?;
    let aside = Aside::to(&[endpoint.address()], "");
    let address = scene.begin(Setup { limits, ..aside.setup() }).await?;
    let large = "v".repeat(4000);
    let plain = [request("/test.Echo/Answer"), vec![("x-bytes", "1000")]].concat();
    let entry = encode(&[("x-large", &*large)], &[Form::Incremental]);
    let mut clients = crowd::open(address, 10, &[(INITIAL_WINDOW_SIZE, 0)]).await?;
    for client in &mut clients {
        for number in 0..128 {
            let stream = client.stream();
            let first = if number == 0 { &entry[..] } else { &[0xbe] };
            let block = [&encode(&plain, &[])[..], first, &[0xbe; 2]].concat();
            client.head(stream, &block, true);
        }
    }
    crowd::until(&mut clients, Duration::from_secs_f64(stalled + 5.0), |it| it.over() == 128).await;
    let over = crowd::sum(&clients, |it| if it.closed.is_some() { 128 } else { it.over() });
    scene.at_least("ended", over, 1280.0, "");
    scene.memory(10.0 * 2.0);
    let mut bomb = Raw::connect(address, &[]).await?;
    let stream = bomb.stream();
    let block = [&encode(&plain, &[])[..], &entry, &[0xbe; 16_000]].concat();
    bomb.head(stream, &block, true);
    let refused = is_refused(&mut bomb, stream).await;
    scene.equal("16 000 fields refused", refused, true);
    Ok(())
}

/// A header list of a MiB, and one of 25 000 fields.
pub(crate) async fn too_large(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let value = "v".repeat(16_000);
    let forms = [("1 MiB", vec![("x-a", &*value); 64]), ("25 000 fields", vec![("a", ""); 25_000])];
    for (what, more) in forms {
        let mut raw = Raw::connect(address, &[]).await?;
        let head = [request(UNARY), more].concat();
        let stream = raw.open(&head, true);
        let refused = is_refused(&mut raw, stream).await;
        scene.equal(&format!("{what} refused"), refused, true);
    }
    scene.memory(0.25 + NOISE);
    Ok(())
}

/// Whether a request is answered by 431, or by 8, is reset, or ends its connection.
async fn is_refused(raw: &mut Raw, stream: u32) -> bool {
    raw.until(Duration::from_secs(5), |heard| heard.over() > 0).await;
    let answer = raw.heard.ended.get(&stream);
    let answered = answer.is_some_and(|it| it.http == "431" || it.grpc == ["8"]);
    answered || raw.heard.closed.is_some() || raw.heard.resets.contains_key(&stream)
}

/// 4300 heads with a name of 4 KB each that nobody has had before, each referred to once.
pub(crate) async fn fresh_names(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    let plain = encode(&request("/grpc.health.v1.Health/Check"), &[]);
    let rounds = if scene.options.slow { 4300 } else { 2000 };
    for round in 0..rounds {
        let name = format!("x-{round:06}-{}", "n".repeat(3900));
        let entry = encode(&[(&*name, "v")], &[Form::Incremental]);
        for field in [&entry[..], &[0xbe]] {
            let stream = raw.stream();
            raw.head(stream, &[&plain[..], field].concat(), false);
            raw.put(upbeat::http2::frame::DATA, END_STREAM, stream, &[0; 5]);
        }
        let wanted = 2 * (round + 1);
        // As many are under way as a client may have.
        raw.until(Duration::from_secs(10), |heard| heard.over() + 64 >= wanted).await;
        if raw.heard.closed.is_some() {
            break;
        }
    }
    scene.note("heads", raw.heard.over());
    drop(raw);
    sleep(Duration::from_secs(1)).await;
    scene.memory(4.0);
    Ok(())
}

/// 14 KB heads of some 1100 names that nobody has had before, again and again.
pub(crate) async fn heads_that_err(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    let mut number = 0;
    let started = Instant::now();
    let sent = raw.flood(5000, Duration::from_secs(60), |raw| {
        let names: Vec<_> = (0..1100).map(|_| (number += 1, format!("x{number:08x}")).1).collect();
        let fields: Vec<_> = names.iter().map(|name| (&**name, "")).collect();
        raw.open(&[request(UNARY), fields].concat(), true);
    });
    let sent = sent.await;
    scene.note("sent", sent);
    let closed = raw.closed(started, Duration::from_secs(2)).await;
    scene.at_most("closed", closed, scene.patient(2.0), " s");
    Ok(())
}

/// Requests that would be something else behind another server: none may reach the backend.
pub(crate) async fn smuggled(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (address, seen) = begin_recorded(scene).await?;
    let good = request(PROBED);
    let with = |more: &[(&str, &str)]| wire::fields(&[good.clone(), more.to_vec()].concat());
    let without = |name: &str| -> Fields {
        wire::fields(&good.iter().filter(|it| it.0 != name).copied().collect::<Vec<_>>())
    };
    let instead = |name: &str, value: &str| -> Fields {
        let mut head = wire::fields(&good);
        let field = head.iter_mut().find(|field| field.0 == name).expect("every request has it");
        field.1 = Bytes::copy_from_slice(value.as_bytes());
        head
    };
    let connect = wire::fields(&[(":method", "CONNECT"), (":authority", "upbeat")]);
    let mut cases: Vec<(&str, Fields)> = vec![
        ("CONNECT", connect),
        ("CONNECT with a path", instead(":method", "CONNECT")),
        ("extended CONNECT", with(&[(":protocol", "websocket")])),
        ("host", with(&[("host", "other")])),
        ("te", with(&[("te", "gzip")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("connection", with(&[("connection", "close")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("two content-lengths", with(&[("content-length", "5"), ("content-length", "6")])),
        ("CR LF", with(&[("x-a", "b\r\nx-c: d")])),
        ("LF", with(&[("x-a", "b\nc")])),
        ("NUL", with(&[("x-a", "b\0c")])),
        ("upper case", with(&[("X-A", "b")])),
        ("blank in a name", with(&[("x a", "b")])),
        ("colon in a name", with(&[("x:a", "b")])),
        ("no name", with(&[("", "b")])),
        ("second path", with(&[(":path", PROBED)])),
        ("late pseudo-header", with(&[(":authority", "upbeat")])),
        ("unknown pseudo-header", with(&[(":other", "b")])),
        ("no path", without(":path")),
        ("no scheme", without(":scheme")),
        ("no method", without(":method")),
        ("blank before the authority", instead(":authority", " upbeat")),
    ];
    if scene.options.target.is_none() {
        // Lawful, and no calls: other proxies are there for these too.
        cases.push(("GET", instead(":method", "GET")));
        cases.push(("no content type", without("content-type")));
    }
    // RFC 9113, 8.3: pseudo-headers come first, and once.
    let mut late = wire::fields(&good);
    late.rotate_left(1);
    cases.push(("method at the end", late));
    for (what, head) in &cases {
        let mut raw = Raw::connect(address, &[]).await?;
        raw.unary(&borrowed(head), 5);
        raw.until(Duration::from_millis(500), |heard| heard.over() > 0).await;
        report(scene, &seen, what);
    }
    for text in HTTP1 {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = [0; 1024];
        _ = timeout(Duration::from_millis(500), stream.read(&mut answer)).await;
        report(scene, &seen, text.lines().next().unwrap_or_default());
    }
    scene.at_least("tried", (cases.len() + HTTP1.len()) as f64, 25.0, "");
    reached(scene, &seen);
    Ok(())
}

const PROBED: &str = "/test.Smuggle/Call";

/// Requests of HTTP/1.1.
const HTTP1: [&str; 4] = [
    "POST /test.Smuggle/Call HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\n\
     upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    "POST /test.Smuggle/Call HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\
     transfer-encoding: chunked\r\ncontent-type: application/grpc\r\n\r\n0\r\n\r\n",
    "POST /test.Smuggle/Call HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\
     content-type: application/grpc\r\n\r\n\0\0\0\0\0",
    "CONNECT upbeat:443 HTTP/1.1\r\nhost: upbeat\r\n\r\n",
];

/// Paths that are no method's: none may reach the backend.
pub(crate) async fn paths(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (address, seen) = begin_recorded(scene).await?;
    let long = format!("/test.Smuggle/{}", "a".repeat(8192));
    let paths = [
        "",
        "*",
        "/",
        "test.Smuggle/Call",
        "//test.Smuggle/Call",
        "/test.Smuggle//Call",
        "/test.Smuggle/Call/",
        "/test.Smuggle%2fCall",
        "/test.Smuggle/%43all",
        "/a/../test.Smuggle/Call",
        "/test.Smuggle/./Call",
        "/test.Smuggle/..",
        "/test.Smuggle/Call?a=b",
        "/test.Smuggle/Call#a",
        "/test.Smuggle\\Call",
        "/test.Smuggle/Call;a",
        "/test.Smuggle/C all",
        "/test.Smuggle/Cäll",
        "http://upbeat/test.Smuggle/Call",
        &long,
    ];
    for path in paths {
        let mut raw = Raw::connect(address, &[]).await?;
        raw.unary(&request(path), 5);
        raw.until(Duration::from_millis(500), |heard| heard.over() > 0).await;
        report(scene, &seen, &path.chars().take(40).collect::<String>());
    }
    scene.note("tried", paths.len());
    reached(scene, &seen);
    Ok(())
}

/// What reached the backend, by what was sent.
#[derive(Default)]
struct Seen {
    heads: usize,
    known: usize,
    what: Vec<String>,
}

type Shared = Arc<Mutex<Seen>>;

/// Begins before an endpoint that keeps count of all that is not the victim's, lawful or not.
async fn begin_recorded(scene: &mut Scene<'_>) -> anyhow::Result<(std::net::SocketAddr, Shared)> {
    let seen = Shared::default();
    let inside = Arc::clone(&seen);
    let recorder = scene.server(move |stream| record(stream, Arc::clone(&inside))).await?;
    let address = scene.begin(Setup { endpoints: &[recorder], ..Setup::default() }).await?;
    // A good one is seen.
    let mut raw = Raw::connect(address, &[]).await?;
    raw.unary(&request(PROBED), 5);
    raw.until(Duration::from_secs(5), |heard| heard.over() > 0).await;
    let known = seen.lock().unwrap().heads + scene.others();
    scene.equal("a good one reaches it", known, 1);
    seen.lock().unwrap().known = known;
    Ok((address, seen))
}

async fn record(stream: TcpStream, seen: Shared) {
    let Some(mut wire) = Wire::serve(stream).await else { return };
    wire.patience = FOREVER;
    while let Some(frame) = wire.next().await {
        if frame.kind == wire::HEADERS
            && let Some(asked) = wire.arriving.get(&frame.stream)
            && asked.value(":path") != Some(UNARY.as_bytes())
        {
            seen.lock().unwrap().heads += 1;
        }
        if matches!(frame.kind, wire::HEADERS | wire::DATA) && frame.has(wire::END_STREAM) {
            let asked = wire.arriving.remove(&frame.stream).unwrap_or_default();
            wire.play(frame.stream, &echoed(&asked.body), 16_384).await;
        }
    }
}

/// Notes by name what has reached the backend since the last time.
fn report(scene: &Scene<'_>, seen: &Shared, what: &str) {
    let others = scene.others();
    let mut seen = seen.lock().unwrap();
    if seen.heads + others > seen.known {
        seen.known = seen.heads + others;
        seen.what.push(what.to_owned());
    }
}

fn reached(scene: &mut Scene<'_>, seen: &Shared) {
    let what = std::mem::take(&mut seen.lock().unwrap().what);
    scene.equal("reached the backend", what, Vec::<String>::new());
}

fn borrowed(fields: &Fields) -> Vec<(&[u8], &[u8])> {
    fields.iter().map(|(name, value): &(Bytes, Bytes)| (&name[..], &value[..])).collect()
}

/// An endpoint that takes header lists of 4096 bytes and ends the connection at larger ones; six
/// heads of 13.7 KB.
pub(crate) async fn small_list(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let endpoint = scene.server(takes_small_lists).await?;
    let address = scene.begin(Setup { endpoints: &[endpoint], ..Setup::default() }).await?;
    let large = "v".repeat(13_500);
    let every = scene.scaled(Duration::from_secs(1));
    let mut codes = Vec::new();
    for _ in 0..6 {
        let mut raw = Raw::connect(address, &[]).await?;
        let head = [request(UNARY), vec![("x-large", &*large)]].concat();
        let stream = raw.unary(&head, 5);
        raw.until(Duration::from_secs(5), |heard| heard.over() > 0).await;
        codes.push(raw.heard.ended.get(&stream).map(|it| it.grpc.concat()).unwrap_or_default());
        sleep(every).await;
    }
    codes.dedup();
    scene.equal("codes", codes, vec!["8".to_owned()]);
    Ok(())
}

async fn takes_small_lists(stream: TcpStream) {
    let Some(mut wire) = Wire::serve(stream).await else { return };
    wire.patience = FOREVER;
    let most = [&[0, 6][..], &4096_u32.to_be_bytes()].concat();
    wire.send(Frame::new(SETTINGS, 0, 0, most)).await;
    while let Some(frame) = wire.next().await {
        if !matches!(frame.kind, wire::HEADERS | wire::DATA) || !frame.has(wire::END_STREAM) {
            continue;
        }
        let asked = wire.arriving.remove(&frame.stream).unwrap_or_default();
        let size = |(name, value): &(Bytes, Bytes)| name.len() + value.len() + 32;
        if asked.head.iter().map(size).sum::<usize>() > 4096 {
            let last = frame.stream.to_be_bytes();
            wire.send(Frame::new(wire::GOAWAY, 0, 0, [&last[..], &[0, 0, 0, 1]].concat())).await;
            return;
        }
        wire.play(frame.stream, &echoed(&asked.body), 16_384).await;
    }
}

/// An endpoint that writes heads in CONTINUATION frames of 20 bytes.
pub(crate) async fn heads_in_crumbs(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let crumbs = scene.server(answers_in_crumbs).await?;
    let address = scene.begin(Setup { endpoints: &[crumbs], ..Setup::default() }).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    for round in 0..20 {
        raw.unary(&request("/test.Crumbs/Call"), 5);
        raw.until(Duration::from_secs(5), |heard| heard.over() > round).await;
    }
    let answered = raw.heard.with(0);
    scene.at_least("answered", answered as f64, 20.0, "");
    Ok(())
}

async fn answers_in_crumbs(stream: TcpStream) {
    let Some(mut wire) = Wire::serve(stream).await else { return };
    wire.patience = FOREVER;
    while let Some(frame) = wire.next().await {
        if !matches!(frame.kind, wire::HEADERS | wire::DATA) || !frame.has(wire::END_STREAM) {
            continue;
        }
        let asked = wire.arriving.remove(&frame.stream).unwrap_or_default();
        let answer = echoed(&asked.body);
        if asked.value(":path") == Some(UNARY.as_bytes()) {
            wire.play(frame.stream, &answer, 16_384).await;
            continue;
        }
        let filler = "v".repeat(400);
        let head = [&answer.head[..], &wire::fields(&[("x-filler", &*filler)])].concat();
        let block = encode(&head, &[]);
        let (mut kind, mut pieces) = (wire::HEADERS, block.chunks(20).peekable());
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            wire.send(Frame::new(kind, flags, frame.stream, piece)).await;
            kind = CONTINUATION;
        }
        wire.data(frame.stream, &answer.body, false).await;
        wire.head(frame.stream, &[("grpc-status", "0")], true).await;
    }
}

//! Calls that are lawful one by one: too many, too large, cancelled, answered early.

use std::{net::SocketAddr, sync::atomic::Ordering::SeqCst, time::Duration};

use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;
use std::io::Write;
use tokio::{
    net::TcpStream,
    runtime::Builder,
    task::spawn_blocking,
    time::{Instant, interval, sleep},
};
use upbeat::http2::frame::{DATA, END_STREAM, WINDOW_UPDATE};

use crate::{
    crowd,
    endpoints::{FOREVER, echoed},
    fixture::{
        certs::Authority,
        issuer::{Signer, from_now, set},
        wire::{self, Message, Wire, encode},
    },
    raw::{Raw, request},
    scene::{Scene, Setup},
    victim::UNARY,
};

const HANG: &str = "/test.Echo/Hang";

/// 2000 streams at once where 128 are allowed.
pub(crate) async fn too_many_streams(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    // What is allowed is known by now.
    raw.listen(Duration::from_millis(200)).await;
    for _ in 0..2000 {
        raw.unary(&request(HANG), 0);
    }
    raw.until(Duration::from_secs(5), |heard| heard.over() >= 1872).await;
    let refused = raw.heard.resets.values().filter(|code| **code == 7).count();
    // Others have another limit, and it is theirs to say.
    let least = if scene.options.target.is_none() { 1872.0 } else { 1.0 };
    scene.at_least("refused", refused as f64, least, "");
    let pongs = raw.heard.pongs;
    raw.put(upbeat::http2::frame::PING, 0, 0, &[1; 8]);
    let lives = raw.until(Duration::from_secs(5), |heard| heard.pongs > pongs).await;
    scene.equal("the connection lives", lives, true);
    Ok(())
}

/// A message whose prefix says a GiB.
pub(crate) async fn huge_prefix(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let listener = "max_message_size: 4MiB";
    let address = scene.begin(Setup { listener, ..Setup::default() }).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    let stream = raw.open(&request(UNARY), false);
    raw.put(DATA, 0, stream, &[&[0], &(1_u32 << 30).to_be_bytes()[..]].concat());
    let mut sent = 5;
    while raw.heard.over() == 0 && sent < 4 << 20 && raw.heard.closed.is_none() {
        raw.listen(Duration::from_millis(20)).await;
        if raw.heard.over() == 0 {
            raw.put(DATA, 0, stream, &[0; 16_384]);
            sent += 16_384;
        }
    }
    raw.listen(Duration::from_millis(200)).await;
    let code = raw.heard.ended.get(&stream).map(|it| it.grpc.concat()).unwrap_or_default();
    scene.equal("code", &*code, "8");
    scene.at_most("after", f64::from(sent) / 1024.0, 256.0, " KiB");
    Ok(())
}

/// Zeros, gzipped: 16 MiB, or ten GiB where it may take its time.
pub(crate) async fn zeros(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let mebibyte = vec![0; 1 << 20];
    for _ in 0..if scene.options.slow { 10_240 } else { 16 } {
        gzip.write_all(&mebibyte)?;
    }
    let message = gzip.finish()?;
    let mut raw = Raw::connect(address, &[]).await?;
    let head = [request("/test.Echo/Early"), vec![("grpc-encoding", "gzip")]].concat();
    let stream = raw.open(&head, false);
    raw.put(DATA, 0, stream, &[&[1], &(message.len() as u32).to_be_bytes()[..]].concat());
    for piece in message.chunks(16_384).take(15) {
        raw.put(DATA, 0, stream, piece);
    }
    raw.until(Duration::from_secs(10), |heard| heard.over() > 0).await;
    let code = raw.heard.ended.get(&stream).map(|it| it.grpc.concat()).unwrap_or_default();
    scene.equal("passed or refused", ["0", "8"].contains(&&*code), true);
    scene.memory(1.0);
    Ok(())
}

/// Trailers of clients and endpoints: each call has one grpc-status.
pub(crate) async fn trailers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let endpoint = scene.server(odd_trailers).await?;
    let address = scene.begin(Setup { endpoints: &[endpoint], ..Setup::default() }).await?;
    let mut wrong = Vec::new();
    for path in ["Client", "Pseudo", "Large", "None", "Twice", "Connection", "NoEnd"] {
        let mut raw = Raw::connect(address, &[]).await?;
        let path = format!("/test.Trailers/{path}");
        let stream = raw.open(&request(&path), false);
        raw.put(DATA, 0, stream, &[0; 5]);
        let own = encode(&[("grpc-status", "0"), ("x-own", "1")], &[]);
        raw.head(stream, &own, true);
        raw.until(Duration::from_secs(5), |heard| heard.over() > 0).await;
        let answer = raw.heard.ended.get(&stream).cloned().unwrap_or_default();
        let reset = raw.heard.resets.get(&stream).is_some_and(|code| *code != 0);
        if answer.grpc.len() != 1 && !reset {
            wrong.push(format!("{path}: {:?}", answer.grpc));
        }
    }
    scene.equal("not one status", wrong, Vec::new());
    Ok(())
}

/// Answers by trailers that are as the path says.
async fn odd_trailers(stream: TcpStream) {
    let Some(mut wire) = Wire::serve(stream).await else { return };
    wire.patience = FOREVER;
    while let Some(frame) = wire.next().await {
        if !matches!(frame.kind, wire::HEADERS | wire::DATA) || !frame.has(wire::END_STREAM) {
            continue;
        }
        let asked = wire.arriving.remove(&frame.stream).unwrap_or_default();
        let path = asked.value(":path").unwrap_or_default().to_vec();
        let good = echoed(&asked.body);
        let large = "v".repeat(70_000);
        let with = |trailers: &[(&str, &str)]| -> Message { good.clone().trailers(trailers) };
        let answer = match &*path {
            b"/test.Trailers/Pseudo" => with(&[("grpc-status", "0"), (":status", "200")]),
            b"/test.Trailers/Large" => with(&[("grpc-status", "0"), ("x-large", &large)]),
            b"/test.Trailers/None" => with(&[("x-other", "1")]),
            b"/test.Trailers/Twice" => with(&[("grpc-status", "0"), ("grpc-status", "5")]),
            b"/test.Trailers/Connection" => with(&[("grpc-status", "0"), ("connection", "close")]),
            b"/test.Trailers/NoEnd" => good.clone().ended_by(wire::End::Reset(0)),
            _ => good,
        };
        wire.play(frame.stream, &answer, 16_384).await;
    }
}

/// 5000 cancels a second over 25 connections, which are opened anew as they are closed.
pub(crate) async fn cancels(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let (started, span) = (Instant::now(), scene.scaled(Duration::from_secs(60)));
    let mut clients = crowd::open(address, 25, &[]).await?;
    let (mut cancelled, mut closed) = (0, 0);
    let mut pace = interval(Duration::from_millis(20));
    while started.elapsed() < span {
        pace.tick().await;
        for client in &mut clients {
            if client.heard.closed.is_some() || client.heard.goaway.is_some() {
                closed += 1;
                *client = Raw::connect(address, &[]).await?;
            }
            for _ in 0..4 {
                let stream = client.unary(&request(HANG), 0);
                client.reset(stream, 8);
                cancelled += 1;
            }
        }
        crowd::listen(&mut clients, Duration::from_millis(5)).await;
    }
    scene.note("cancels", format!("{:.0}/s", f64::from(cancelled) / span.as_secs_f64()));
    scene.note("connections closed", closed);
    let ended = scene.endpoint.seen().ended.load(SeqCst);
    scene.at_most("connections ended by the endpoint", ended as f64, 0.0, "");
    Ok(())
}

/// 600 calls that are answered before their requests end, where a client may have 1000.
pub(crate) async fn answered_early(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let listener = "max_concurrent_streams: 1000";
    let address = scene.begin(Setup { listener, ..Setup::default() }).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    raw.listen(Duration::from_millis(200)).await;
    let streams: Vec<_> = (0..600)
        .map(|_| {
            let stream = raw.open(&request("/test.Echo/Early"), false);
            raw.put(DATA, 0, stream, &[0; 5]);
            stream
        })
        .collect();
    raw.until(Duration::from_secs(10), |heard| heard.over() == 600).await;
    scene.at_least("answered", raw.heard.over() as f64, 600.0, "");
    for _ in 0..4 {
        streams.iter().for_each(|stream| raw.put(DATA, 0, *stream, &[0; 100]));
        raw.listen(Duration::from_millis(50)).await;
    }
    raw.listen(Duration::from_millis(500)).await;
    let lives = raw.heard.goaway.is_none() && raw.heard.closed.is_none();
    scene.equal("the connection lives", lives, true);
    Ok(())
}

/// 100 calls a second with a deadline of 300 ms, by which their client resets them.
pub(crate) async fn deadlines(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    let (started, span) = (Instant::now(), scene.scaled(Duration::from_secs(24)));
    let head = [request(HANG), vec![("grpc-timeout", "300m")]].concat();
    let mut open = std::collections::VecDeque::new();
    while started.elapsed() < span && raw.heard.closed.is_none() && raw.heard.goaway.is_none() {
        open.push_back((Instant::now(), raw.unary(&head, 0)));
        raw.listen(Duration::from_millis(9)).await;
        while open.front().is_some_and(|(at, _)| at.elapsed() >= Duration::from_millis(300)) {
            let (_, stream) = open.pop_front().expect("just seen");
            raw.reset(stream, 8);
        }
    }
    scene.note("calls", raw.opened());
    let lives = raw.heard.goaway.is_none() && raw.heard.closed.is_none();
    scene.equal("the connection lives", lives, true);
    Ok(())
}

/// 300 calls, one after the other, of a head, empty DATA, and DATA with the message.
pub(crate) async fn empty_before_message(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    for round in 0..300 {
        let stream = raw.open(&request(UNARY), false);
        raw.put(DATA, 0, stream, &[]);
        raw.put(DATA, END_STREAM, stream, &[0; 5]);
        raw.until(Duration::from_secs(5), |heard| heard.over() > round).await;
        if raw.heard.closed.is_some() {
            break;
        }
    }
    scene.at_least("answered", raw.heard.with(0) as f64, 300.0, "");
    Ok(())
}

/// 20 000 WINDOW_UPDATE of a byte over 120 streams whose answers have no window.
pub(crate) async fn window_by_bytes(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[(upbeat::http2::frame::INITIAL_WINDOW_SIZE, 0)]).await?;
    let head = [request("/test.Echo/Answer"), vec![("x-bytes", "20000")]].concat();
    for _ in 0..120 {
        raw.unary(&head, 0);
    }
    raw.listen(Duration::from_secs(1)).await;
    let cpu = scene.subject().cpu();
    let mut turn = 0;
    let sent = raw.flood(20_000, Duration::from_secs(20), |raw| {
        turn += 1;
        raw.put(WINDOW_UPDATE, 0, 1 + 2 * (turn % 120), &1_u32.to_be_bytes());
    });
    let sent = sent.await;
    raw.listen(Duration::from_millis(500)).await;
    let used = (scene.subject().cpu() - cpu).as_secs_f64() * 1e6 / sent as f64;
    scene.note("CPU", format!("{used:.1} µs each"));
    scene.note("sent", sent);
    scene.note("closed", raw.heard.closed.is_some());
    scene.at_most("DATA frames", raw.heard.pieces as f64, 2000.0, "");
    Ok(())
}

/// 24 550 forged tokens of ES256, each another one.
pub(crate) async fn forged_tokens(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let signer = Signer::new(jsonwebtoken::Algorithm::ES256, "key");
    let file = Authority::new("attack-A10", "keys").file().with_extension("jwks");
    std::fs::write(&file, set(&[&signer]))?;
    let more = format!(
        "  - {{ name: guarded, address: \"127.0.0.1:0\", upstream: otlp, auth: {{ jwt: {{ \
         jwks_file: '{}', issuer: 'https://a/', audience: [upbeat] }} }} }}\n---\n",
        file.display()
    );
    scene.begin(Setup { more: &more, ..Setup::default() }).await?;
    let address = scene.subject().listener("guarded");
    let claims = serde_json::json!({
        "iss": "https://a/", "aud": "upbeat", "tenant": "a", "exp": from_now(600), "sub": "a"
    });
    let good = signer.sign(&claims);
    let (rest, signature) = good.rsplit_once('.').expect("three parts");
    let mut raw = Raw::connect(address, &[]).await?;
    let calls = if scene.options.slow { 24_550 } else { 5000 };
    let mut number = 0;
    let sent = raw.in_step(calls, 50, |raw| {
        number += 1;
        let digits = format!("{number:05}");
        let token = format!("Bearer {rest}.{digits}{}", &signature[5..]);
        raw.unary(&[request(UNARY), vec![("authorization", &*token)]].concat(), 0);
    });
    let sent = sent.await;
    scene.at_most("closed by tokens", sent, 1000.0, "");
    let opened = scene.opened(UNARY);
    scene.note("the endpoint's calls", opened);
    Ok(())
}

/// Health checks whose heads are indexed, as many as there is room for, again and again.
pub(crate) async fn indexed_checks(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut raw = Raw::connect(address, &[]).await?;
    raw.reads = false;
    let forms = [wire::Form::Incremental; 6];
    let first = encode(&request("/grpc.health.v1.Health/Check"), &forms);
    let indexed: Vec<u8> = (0..6).map(|at| 0xc3 - at).collect();
    let end = Instant::now() + scene.scaled(Duration::from_secs(20));
    let mut checks = 0;
    while Instant::now() < end && raw.heard.closed.is_none() {
        let before = raw.heard.over();
        for _ in 0..100 {
            let stream = raw.stream();
            raw.head(stream, if stream == 1 { &first } else { &indexed }, false);
            raw.put(DATA, END_STREAM, stream, &[0; 5]);
            checks += 1;
        }
        raw.flush(Duration::from_secs(5)).await;
        raw.reads = true;
        raw.until(Duration::from_secs(5), |heard| heard.over() >= before + 100).await;
    }
    scene.note("checks", checks);
    let answered = raw.heard.with(0);
    scene.at_least("answered", answered as f64, f64::from(checks), "");
    Ok(())
}

/// Watch streams, 128 on each of a hundred connections.
pub(crate) async fn watches(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let connections = if scene.options.is_strict() { 100 } else { 30 };
    let head = request("/grpc.health.v1.Health/Watch");
    let mut clients = crowd::open(address, connections as usize, &[]).await?;
    for client in &mut clients {
        for _ in 0..128 {
            client.unary(&head, 0);
        }
    }
    crowd::until(&mut clients, Duration::from_secs(5), |heard| heard.over() >= 124).await;
    let open = clients.iter().map(|it| it.opened() - it.heard.over()).max().unwrap_or_default();
    scene.at_most("open on a connection", open as f64, 4.0, "");
    let all = f64::from(connections * 128) - crowd::sum(&clients, |heard| heard.over());
    scene.at_most("open in all", all, 1000.0, "");
    Ok(())
}

/// 50 000 Checks a second on four connections, beside one client that makes one at a time.
pub(crate) async fn checks(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let address = scene.begin(Setup::default()).await?;
    let mut clients = crowd::open(address, 4, &[]).await?;
    let begun = Instant::now();
    let end = begun + scene.scaled(Duration::from_secs(20));
    // On a thread of its own, as the victim: what the others take of theirs is not the proxy's.
    let asker = spawn_blocking(move || {
        Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(one_check_at_a_time(address, end))
    });
    let load = join_all(clients.iter_mut().map(async |client| {
        while Instant::now() < end && client.heard.closed.is_none() {
            let due = (begun.elapsed().as_secs_f64() * 12_500.0) as usize;
            let most = due.min(client.heard.over() + 100);
            while client.opened() < most {
                client.unary(&request("/grpc.health.v1.Health/Check"), 0);
            }
            client.listen(Duration::from_millis(1)).await;
        }
    }));
    let (_, took) = tokio::join!(load, asker);
    let mut took = took??;
    took.sort_by(f64::total_cmp);
    let p99 = took[(took.len() * 99).div_ceil(100) - 1];
    let all = crowd::sum(&clients, |heard| heard.over());
    let span = scene.scaled(Duration::from_secs(20)).as_secs_f64();
    scene.note("Checks", format!("{:.0}/s", all / span));
    scene.at_most("Check p99", p99, if scene.options.is_strict() { 5.0 } else { 10_000.0 }, " ms");
    Ok(())
}

async fn one_check_at_a_time(address: SocketAddr, end: Instant) -> anyhow::Result<Vec<f64>> {
    let (mut client, mut took) = (Raw::connect(address, &[]).await?, Vec::new());
    while Instant::now() < end {
        let (started, over) = (Instant::now(), client.heard.over());
        client.unary(&request("/grpc.health.v1.Health/Check"), 0);
        client.until(Duration::from_secs(5), |heard| heard.over() > over).await;
        took.push(started.elapsed().as_secs_f64() * 1e3);
        sleep(Duration::from_millis(10)).await;
    }
    Ok(took)
}

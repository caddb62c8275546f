//! Another configuration while the process runs: what changes, what is refused, and what nobody
//! notices.

mod access;
mod calls;
mod command;
mod files;
mod flap;
mod load;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::fixture::{
    caller::{Caller, get, read},
    echo::Echo,
    eventually,
    proxy::Proxy,
    wire::Wire,
};

const UNARY: &str = "/test.Echo/Unary";
const MESSAGE: &[u8] = &[0, 0, 0, 0, 1, 7];

/// A proxy and the file that it follows.
struct Live {
    file: PathBuf,
    proxy: Proxy,
}

impl Live {
    async fn start(name: &str, config: &str) -> Self {
        let file = directory(name).join("upbeat.yaml");
        write(&file, config);
        let proxy = Proxy::follow(&file).await;
        eventually("SERVING", async || get(proxy.admin(), "/readyz").await.0 == 200).await;
        Self { file, proxy }
    }

    async fn count(&self, result: &str) -> f64 {
        self.proxy.metric(&format!("upbeat_config_reloads_total{{result=\"{result}\"}}")).await
    }

    /// Writes the file, and waits until it has come to this.
    async fn reload(&self, config: &str, result: &str) {
        let before = self.count(result).await;
        write(&self.file, config);
        eventually(result, async || self.count(result).await == before + 1.0).await;
    }

    async fn successful(&self) -> f64 {
        self.proxy.metric("upbeat_config_last_reload_successful").await
    }

    async fn caller(&self) -> Caller {
        Caller::connect(self.proxy.address("otlp")).await
    }

    async fn stop(self) {
        self.proxy.stop().await;
    }
}

/// An empty directory; each test has a name of its own for it.
fn directory(name: &str) -> PathBuf {
    let name = format!("reload-{name}-{}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// As editors and deployment tools do: never half of it.
fn write(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// Listeners with their addresses and upstreams, upstreams with their endpoints, and `more`.
fn config(
    listeners: &[(&str, &str, &str)],
    upstreams: &[(&str, &[SocketAddr])],
    more: &str,
) -> String {
    let mut text = "listeners:\n".to_owned();
    for (name, address, upstream) in listeners {
        text += &format!("  - {{ name: {name}, address: \"{address}\", upstream: {upstream} }}\n");
    }
    text += "upstreams:\n";
    for (name, endpoints) in upstreams {
        let endpoints: Vec<_> = endpoints.iter().map(|it| format!("\"{it}\"")).collect();
        let probe = "{ interval: 300ms, timeout: 290ms, checks: [{ tcp: {} }] }";
        let endpoints = endpoints.join(", ");
        text += &format!("  {name}: {{ endpoints: [{endpoints}], probe: {probe} }}\n");
    }
    text += "admin: { address: \"127.0.0.1:0\" }\ndrain: { delay: 0s, timeout: 2s }\nworkers: 2\n";
    text + "reload: { interval: 5ms }\n" + more
}

const ANY: &str = "127.0.0.1:0";

/// An address where nobody listens at this moment.
fn free() -> SocketAddr {
    std::net::TcpListener::bind(ANY).unwrap().local_addr().unwrap()
}

fn streams(echo: &Echo) -> usize {
    echo.seen().streams.load(SeqCst)
}

#[tokio::test]
async fn another_upstream_is_for_the_next_call_of_an_open_connection() {
    let (a, b) = (Echo::start().await, Echo::start().await);
    let (ends_a, ends_b) = ([a.address()], [b.address()]);
    let upstreams = [("a", &ends_a[..]), ("b", &ends_b[..])];
    let live = Live::start("route", &config(&[("otlp", ANY, "a")], &upstreams, "")).await;
    let mut caller = live.caller().await;
    for _ in 0..3 {
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    }
    let mut open = caller.open("/test.Echo/Stream").await.unwrap();
    open.request.send_data(MESSAGE.into(), false).unwrap();
    eventually("the call is at the first one", async || streams(&a) == 4).await;

    live.reload(&config(&[("otlp", ANY, "b")], &upstreams, ""), "applied").await;
    for _ in 0..3 {
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    }
    assert_eq!((streams(&a), streams(&b)), (4, 3));
    open.request.send_data(MESSAGE.into(), true).unwrap();
    let reply = read(open.response.await.unwrap()).await.unwrap();
    assert_eq!((reply.body.len(), reply.code()), (2 * MESSAGE.len(), 0));
    live.stop().await;
}

#[tokio::test]
async fn methods_that_are_known_by_their_index_count_for_their_own_configuration() {
    let (a, b) = (Echo::start().await, Echo::start().await);
    let (ends_a, ends_b) = ([a.address()], [b.address()]);
    let upstreams = [("a", &ends_a[..]), ("b", &ends_b[..])];
    let live = Live::start("methods", &config(&[("otlp", ANY, "a")], &upstreams, "")).await;
    // POST, http, and the others as literals that are indexed; then all by their index.
    let mut first = vec![0x83, 0x86];
    for (name, value) in [
        (&[0x44][..], UNARY),
        (&[0x41], "x"),
        (&[0x5f], "application/grpc"),
        (&[0x40, 2, b't', b'e'], "trailers"),
    ] {
        first.extend_from_slice(name);
        first.push(u8::try_from(value.len()).unwrap());
        first.extend_from_slice(value.as_bytes());
    }
    let again = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
    let mut wire = Wire::connect(live.proxy.address("otlp")).await;
    for (count, upstream) in [(4.0, "a"), (3.0, "b")] {
        if upstream == "b" {
            live.reload(&config(&[("otlp", ANY, "b")], &upstreams, ""), "applied").await;
        }
        for _ in 0..count as u32 {
            let stream = wire.open();
            let block = if stream == 1 { &first[..] } else { &again };
            wire.block(stream, block, false).await;
            wire.data(stream, MESSAGE, true).await;
            assert_eq!(wire.message(stream).await.body, MESSAGE);
        }
        let counted = format!(
            "upbeat_requests_total{{listener=\"otlp\",upstream=\"{upstream}\",service=\"test.Echo\",method=\"Unary\",code=\"OK\"}}"
        );
        assert_eq!(live.proxy.metric(&counted).await, count, "{upstream}");
    }
    live.stop().await;
}

#[tokio::test]
async fn endpoints_that_stay_keep_their_state_and_their_connections() {
    let (a, b) = (Echo::start().await, Echo::start().await);
    let both = [a.address(), b.address()];
    let before = config(&[("otlp", ANY, "otlp")], &[("otlp", &both[..1])], "");
    let live = Live::start("endpoints", &before).await;
    let mut caller = live.caller().await;
    assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    let since = live.proxy.status().await.upstreams[0].endpoints[0].history[0].at.clone();
    let after = config(&[("otlp", ANY, "otlp")], &[("otlp", &both)], "");
    for text in [&after, &after.replace("interval: 300ms", "interval: 320ms")] {
        live.reload(text, "applied").await;
        let status = live.proxy.status().await;
        let [first, second] = &status.upstreams[0].endpoints[..] else { panic!("{status:?}") };
        assert_eq!((&*first.health, &*second.health), ("healthy", "healthy"));
        assert_eq!((first.history.len(), &first.history[0].at), (1, &since));
        for _ in 0..20 {
            assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
        }
    }
    let connections = |echo: &Echo| echo.seen().connections.load(SeqCst);
    assert_eq!((connections(&a), connections(&b)), (1, 1));

    // One that is gone loses its connection, and its labels.
    let label = format!("upbeat_endpoint_healthy{{upstream=\"otlp\",endpoint=\"{}\"}}", both[1]);
    assert!(get(live.proxy.admin(), "/metrics").await.1.contains(&label));
    live.reload(&before, "applied").await;
    assert!(!get(live.proxy.admin(), "/metrics").await.1.contains(&label));
    let total = streams(&b);
    for _ in 0..20 {
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    }
    assert_eq!(streams(&b), total);
    let label =
        format!("upbeat_upstream_connections{{upstream=\"otlp\",endpoint=\"{}\"}}", both[0]);
    assert_eq!(live.proxy.metric(&label).await, 1.0);
    live.stop().await;
}

#[tokio::test]
async fn adopted_endpoints_are_not_judged_by_one_probe() {
    let echo = Echo::start().await;
    let address = echo.address();
    let before = config(&[("otlp", ANY, "otlp")], &[("otlp", &[address])], "");
    let live = Live::start("adopted", &before).await;
    // Fails from now on; it takes three of these, an hour apart.
    let after = before
        .replace("interval: 300ms", "interval: 1h")
        .replace("{ tcp: {} }", "{ http: { path: /ready } }");
    live.reload(&after, "applied").await;
    let failed = format!(
        "upbeat_probes_total{{upstream=\"otlp\",endpoint=\"{address}\",result=\"failed\"}}"
    );
    eventually("it failed once", async || live.proxy.metric(&failed).await == 1.0).await;
    assert_eq!(live.proxy.status().await.upstreams[0].endpoints[0].health, "healthy");
    assert_eq!(live.proxy.check().await, 1);
    live.stop().await;
}

#[tokio::test]
async fn listeners_come_and_go() {
    let echo = Echo::start().await;
    let upstreams = [("otlp", &[echo.address()][..])];
    let one = config(&[("otlp", ANY, "otlp")], &upstreams, "");
    let live = Live::start("listeners", &one).await;
    let extra = free();
    let address = extra.to_string();
    let two = config(&[("otlp", ANY, "otlp"), ("extra", &address, "otlp")], &upstreams, "");
    live.reload(&two, "applied").await;
    let mut kept = live.caller().await;
    let mut caller = Caller::connect(extra).await;
    assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    let mut open = caller.open("/test.Echo/Stream").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
    let mut watching = TcpStream::connect(extra).await.unwrap();
    watching.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    watching.read_exact(&mut [0; 15]).await.unwrap();

    // Another name for the same address is another listener on the same socket.
    live.reload(&two.replace("extra", "other"), "applied").await;
    eventually("GOAWAY", async || kept_going(extra).await).await;
    live.reload(&one, "applied").await;
    eventually("refused", async || TcpStream::connect(extra).await.is_err()).await;
    let mut ended = async || loop {
        match caller.unary(UNARY, MESSAGE).await {
            Ok(reply) => assert_eq!(reply.code(), 0),
            Err(error) => return error,
        }
    };
    let error = timeout(Duration::from_secs(20), ended()).await.expect("GOAWAY comes");
    assert!(error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR), "{error}");
    open.request.send_data(MESSAGE.into(), true).unwrap();
    let reply = read(open.response.await.unwrap()).await.unwrap();
    assert_eq!((reply.body.len(), reply.code()), (MESSAGE.len(), 0));
    let mut rest = Vec::new();
    let closed = watching.read_to_end(&mut rest);
    timeout(Duration::from_secs(20), closed).await.expect("HTTP/1.1 is closed too").unwrap();
    assert_eq!(kept.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    let forgotten =
        async || !get(live.proxy.admin(), "/metrics").await.1.contains("listener=\"extra\"");
    eventually("the call that ended late is forgotten too", forgotten).await;
    live.stop().await;
}

/// Whether a new connection is served.
async fn kept_going(address: SocketAddr) -> bool {
    Caller::connect(address).await.unary(UNARY, MESSAGE).await.is_ok_and(|it| it.code() == 0)
}

#[tokio::test]
async fn limits_of_a_listener_are_for_new_connections_and_more_or_fewer_of_them() {
    let echo = Echo::start().await;
    let with = |most: u32| {
        let text = config(&[("otlp", ANY, "otlp")], &[("otlp", &[echo.address()])], "");
        text.replace("upstream: otlp }", &format!("upstream: otlp, max_connections: {most} }}"))
    };
    let live = Live::start("limits", &with(3)).await;
    let mut callers = Vec::new();
    for _ in 0..3 {
        callers.push(live.caller().await);
    }
    for caller in &mut callers {
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    }
    let _busy = callers[0].open("/test.Echo/Hang").await.unwrap();
    live.reload(&with(1), "applied").await;
    callers.truncate(1);
    // Two places were given back, and both were taken away.
    for _ in 0..3 {
        let reply = live.caller().await.unary(UNARY, MESSAGE).await.unwrap();
        assert_eq!(reply.code(), 14, "{reply:?}");
    }
    live.reload(&with(2), "applied").await;
    assert_eq!(live.caller().await.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    drop(callers);
    live.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_refuses_the_whole_configuration() {
    let (a, b) = (Echo::start().await, Echo::start().await);
    let (ends_a, ends_b) = ([a.address()], [b.address()]);
    let upstreams = [("a", &ends_a[..]), ("b", &ends_b[..])];
    let good = config(&[("otlp", ANY, "a")], &upstreams, "");
    let live = Live::start("taken", &good).await;
    let hash = get(live.proxy.admin(), "/config").await.1;
    let taken = b.address().to_string();
    let bad = config(&[("otlp", ANY, "b"), ("extra", &taken, "b")], &upstreams, "");
    live.reload(&bad, "refused").await;
    assert_eq!(live.successful().await, 0.0);
    assert_eq!(get(live.proxy.admin(), "/config").await.1, hash);
    assert_eq!(live.caller().await.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    assert_eq!((streams(&a), streams(&b)), (1, 0));
    live.reload(&good, "unchanged").await;
    assert_eq!(live.successful().await, 1.0);
    live.stop().await;
}

#[tokio::test]
async fn what_is_no_configuration_is_refused_once_and_changes_nothing() {
    let echo = Echo::start().await;
    let good = config(&[("otlp", ANY, "otlp")], &[("otlp", &[echo.address()])], "");
    let live = Live::start("bad", &good).await;
    let mut caller = live.caller().await;
    for bad in ["listeners: [", "listeners: []", &good.replace("workers: 2", "workers: 3")] {
        live.reload(bad, "refused").await;
        assert_eq!(live.successful().await, 0.0);
        assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    }
    let refused = live.count("refused").await;
    live.reload(&good.replace("delay: 0s", "delay: 10ms"), "applied").await;
    assert_eq!((live.successful().await, live.count("refused").await), (1.0, refused));
    fs::remove_file(&live.file).unwrap();
    eventually("missing", async || live.count("refused").await == refused + 1.0).await;
    assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    live.stop().await;
}

#[tokio::test]
async fn the_swap_of_a_kubernetes_configmap_is_seen() {
    let (a, b) = (Echo::start().await, Echo::start().await);
    let at = directory("configmap");
    let version = |number: u32, echo: &Echo| {
        let directory = format!("..2026_{number}");
        fs::create_dir(at.join(&directory)).unwrap();
        let text = config(&[("otlp", ANY, "otlp")], &[("otlp", &[echo.address()])], "");
        fs::write(at.join(&directory).join("upbeat.yaml"), text).unwrap();
        _ = fs::remove_file(at.join("..data_tmp"));
        symlink(directory, at.join("..data_tmp")).unwrap();
        fs::rename(at.join("..data_tmp"), at.join("..data")).unwrap();
    };
    version(1, &a);
    symlink("..data/upbeat.yaml", at.join("upbeat.yaml")).unwrap();
    let proxy = Proxy::follow(&at.join("upbeat.yaml")).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    version(2, &b);
    eventually("calls go to the other one", async || {
        proxy.metric("upbeat_config_reloads_total{result=\"applied\"}").await == 1.0
    })
    .await;
    assert_eq!(caller.unary(UNARY, MESSAGE).await.unwrap().code(), 0);
    assert_eq!((streams(&a), streams(&b)), (0, 1));
    proxy.stop().await;
}

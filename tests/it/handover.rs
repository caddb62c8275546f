//! Listening sockets that another process had before: the one that ran, or systemd.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::OwnedFd,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use crate::fixture::{caller::Caller, caller::get, echo::Echo, eventually, program::command};

const UNARY: &str = "/test.Echo/Unary";

/// A configuration on ports that are free.
struct Place {
    otlp: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
}

impl Place {
    /// Whose processes drain for so long before they stop to accept.
    fn new(name: &str, endpoint: SocketAddr, delay: &str) -> Self {
        let free = [0, 0].map(|_| StdListener::bind("127.0.0.1:0").unwrap());
        let [otlp, admin] = free.map(|socket| socket.local_addr().unwrap());
        let name = format!("upbeat-handover-{name}-{}.yaml", std::process::id());
        let file = std::env::temp_dir().join(name);
        let text = format!(
            r#"
listeners: [{{ name: otlp, address: "{otlp}", upstream: otlp }}]
upstreams:
  otlp:
    endpoints: ["{endpoint}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ tcp: {{}} }}] }}
admin: {{ address: "{admin}" }}
drain: {{ delay: {delay}, timeout: 10s }}
workers: 2
"#
        );
        std::fs::write(&file, text).unwrap();
        Self { otlp, admin, file }
    }

    fn run(&self, more: &[&str]) -> Child {
        let config = self.file.to_str().unwrap();
        let mut command = command(&[&["run", "--config", config], more].concat());
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    async fn is_ready(&self) -> bool {
        // Without a process there is nobody to ask.
        tokio::net::TcpStream::connect(self.admin).await.is_ok()
            && get(self.admin, "/readyz").await.1 == "SERVING\n"
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.file);
    }
}

async fn ended(child: &mut Child) -> Option<i32> {
    timeout(Duration::from_secs(20), child.wait()).await.expect("it ends").unwrap().code()
}

fn terminate(child: &Child) {
    let id = child.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").arg(id).status().unwrap().success());
}

/// Calls without end, half of them on connections of their own; how many were made.
fn callers(address: SocketAddr, over: &Arc<AtomicBool>) -> (JoinSet<()>, Arc<AtomicUsize>) {
    let (mut callers, made) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for number in 0..6 {
        let (over, made) = (Arc::clone(over), Arc::clone(&made));
        callers.spawn(async move {
            let mut caller = Caller::connect(address).await;
            while !over.load(SeqCst) {
                if number % 2 == 0 {
                    caller = Caller::connect(address).await;
                }
                match caller.unary(UNARY, &[0, 0, 0, 0, 1, 7]).await {
                    Ok(reply) => assert_eq!(reply.code(), 0, "{:?}", reply.status()),
                    // What GOAWAY did not take up is tried again, as every gRPC client does.
                    Err(error) if error.is_go_away() => {
                        caller = Caller::connect(address).await;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                }
                made.fetch_add(1, SeqCst);
            }
        });
    }
    (callers, made)
}

#[tokio::test]
async fn a_process_takes_over_from_the_one_that_runs_and_no_call_is_lost() {
    let echo = Echo::start().await;
    let place = Place::new("over", echo.address(), "60s");
    let mut running = place.run(&[]);
    eventually("it serves", async || place.is_ready().await).await;
    let mut open = Caller::connect(place.otlp).await;
    let mut call = open.open("/test.Echo/Stream").await.unwrap();
    call.request.send_data(bytes::Bytes::from_static(&[0; 5]), false).unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let (mut calling, made) = callers(place.otlp, &over);
    for _ in 0..3 {
        let before = made.load(SeqCst);
        eventually("calls go on", async || made.load(SeqCst) > before + 100).await;
        let mut next = place.run(&["--take-over"]);
        // The stream that is open on the first one holds that one only.
        if call.request.send_data(bytes::Bytes::from_static(&[0; 5]), true).is_ok() {
            let reply = crate::fixture::caller::read((&mut call.response).await.unwrap()).await;
            assert_eq!(reply.unwrap().body.len(), 10);
        }
        assert_eq!(ended(&mut running).await, Some(0), "without a wait of drain.delay");
        assert!(next.try_wait().unwrap().is_none());
        running = next;
    }
    let before = made.load(SeqCst);
    eventually("calls go on", async || made.load(SeqCst) > before + 100).await;
    over.store(true, SeqCst);
    while let Some(caller) = calling.join_next().await {
        caller.unwrap();
    }
    assert!(place.is_ready().await);
    running.kill().await.unwrap();
}

#[tokio::test]
async fn one_that_cannot_serve_leaves_the_other_serving() {
    let echo = Echo::start().await;
    let place = Place::new("broken", echo.address(), "60s");
    let mut running = place.run(&[]);
    eventually("it serves", async || place.is_ready().await).await;
    let text = std::fs::read_to_string(&place.file).unwrap();
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let more = format!("- {{ name: b, address: \"{}\" }}", taken.local_addr().unwrap());
    let other = std::env::temp_dir().join(format!("upbeat-broken-{}.yaml", std::process::id()));
    let text = text
        .replace("listeners: [{", "listeners:\n- {")
        .replace("upstream: otlp }]", &format!("upstream: otlp }}\n{more}"));
    std::fs::write(&other, text).unwrap();
    let mut next = command(&["run", "--take-over", "--config", other.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(ended(&mut next).await, Some(1), "its other port is taken");
    std::fs::remove_file(other).unwrap();
    let mut caller = Caller::connect(place.otlp).await;
    assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
    assert!(running.try_wait().unwrap().is_none());
    running.kill().await.unwrap();
}

#[tokio::test]
async fn with_nothing_to_take_over_it_binds() {
    let echo = Echo::start().await;
    let place = Place::new("first", echo.address(), "60s");
    let mut running = place.run(&["--take-over"]);
    eventually("it serves", async || place.is_ready().await).await;
    running.kill().await.unwrap();
}

#[tokio::test]
async fn a_socket_that_systemd_passes_on_is_used_and_outlives_the_process() {
    let echo = Echo::start().await;
    let place = Place::new("systemd", echo.address(), "0s");
    let socket = StdListener::bind(place.otlp).unwrap();
    for _ in 0..2 {
        // As sd_listen_fds(3) has it: descriptor 3, and whose it is.
        let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut running = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_upbeat"), "run", "--config"])
            .arg(&place.file)
            .stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        eventually("it serves", async || place.is_ready().await).await;
        let mut caller = Caller::connect(place.otlp).await;
        assert_eq!(caller.unary(UNARY, &[0; 5]).await.unwrap().code(), 0);
        drop(caller);
        terminate(&running);
        ended(&mut running).await;
        // Nobody accepts, and nobody is refused.
        tokio::net::TcpStream::connect(place.otlp).await.unwrap();
    }
}

//! A proxy in a process of its own, which a test breaks from within.
//!
//! The process is this test binary, asked for one test alone, so that a thread can be made to stand
//! still or to panic by what a program may always meet: a log that does not take a line. Nothing in
//! the proxy knows of it.

use std::{
    collections::HashMap,
    env, io,
    io::Write,
    net::SocketAddr,
    process::{ExitStatus, Stdio, exit},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
    process::{Child as Process, Command},
    time::timeout,
};
use upbeat::{app::App, config::Config, shutdown::Shutdown, watchdog};

use crate::fixture::caller::{Caller, get};

/// What becomes of the thread that logs a certain line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// It stands still for so long.
    Stall(Duration),
    /// It panics.
    Panic,
}

/// The process, as its parent sees it.
pub(super) struct Child {
    process: Process,
    addresses: HashMap<String, SocketAddr>,
}

impl Child {
    /// Starts the process for the test of this name. In that process it never returns.
    pub(super) async fn start(test: &str, endpoint: SocketAddr, fault: Fault) -> Self {
        if env::var_os(MARK).is_some() {
            let endpoint = env::var(MARK).unwrap().parse().unwrap();
            thread::spawn(move || serve(endpoint, fault)).join().unwrap();
        }
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
        command.env(MARK, endpoint.to_string()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut addresses = HashMap::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        while !addresses.contains_key("admin") {
            let line = timeout(PATIENCE, lines.next_line()).await.expect("a line").unwrap();
            let line = line.expect("the process runs");
            if let Some((name, address)) = line.split_once(" at ") {
                addresses.insert(name.to_owned(), address.parse().unwrap());
            }
        }
        Self { process, addresses }
    }

    pub(super) fn address(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// Whether it says SERVING; none where nobody answers soon.
    pub(super) async fn answer(&self, listener: &str, path: &str) -> Option<bool> {
        let asked = get(self.address(listener), path);
        timeout(Duration::from_millis(500), asked).await.ok().map(|(status, _)| status == 200)
    }

    /// Has the worker that has the fewest connections log a line.
    pub(super) async fn break_a_worker(&self) {
        let mut caller = Caller::connect(self.address("guarded")).await;
        // It is not answered where the worker stands still.
        _ = timeout(Duration::from_millis(200), caller.unary("/test.Echo/Unary", b"")).await;
    }

    /// Has the control thread log a line.
    pub(super) async fn break_control(&self) {
        _ = TcpStream::connect(self.address("closed")).await.unwrap();
    }

    pub(super) async fn metric(&self, name: &str) -> f64 {
        let (_, body) = get(self.address("admin"), "/metrics").await;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// How it ends by itself, and what it said.
    pub(super) async fn ends(mut self) -> (ExitStatus, String) {
        let mut stderr = String::new();
        let mut pipe = self.process.stderr.take().unwrap();
        let ended = async {
            pipe.read_to_string(&mut stderr).await.unwrap();
            self.process.wait().await.unwrap()
        };
        let status = timeout(PATIENCE, ended).await.expect("it ends");
        (status, stderr)
    }
}

/// Runs the proxy, to the end of the process.
fn serve(endpoint: SocketAddr, fault: Fault) {
    tracing_subscriber::fmt().with_writer(move || Breaking(fault)).with_ansi(false).init();
    watchdog::end_on_panic();
    let config = format!(
        r#"
listeners:
  - {{ name: open, address: "127.0.0.1:0", upstream: otlp }}
  - {{ name: closed, address: "127.0.0.1:0", allow: [192.0.2.0/24] }}
  - {{ name: full, address: "127.0.0.1:0", upstream: otlp, max_connections: 1 }}
  - name: guarded
    address: "127.0.0.1:0"
    upstream: otlp
    auth: {{ bearer: {{ tokens: [{{ token: t0ken-a, tenant: team-a }}] }} }}
upstreams:
  otlp:
    endpoints: ["{endpoint}"]
    probe: {{ interval: 300ms, timeout: 290ms, checks: [{{ tcp: {{}} }}] }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 2s }}
limits: {{ reserved_connections: 0 }}
workers: 2
"#
    );
    let app = App::bind(Config::parse(&config, |_| None).unwrap()).unwrap();
    // Behind what the test harness has begun to say.
    println!();
    for (name, address) in app.addresses().unwrap() {
        println!("{name} at {address}");
    }
    println!("admin at {}", app.admin_address().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    _ = runtime.block_on(app.run(Shutdown::new()));
    exit(0);
}

/// Standard error, but for lines that somebody is turned away.
struct Breaking(Fault);

impl Write for Breaking {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let line = str::from_utf8(line).unwrap();
        if line.contains("call denied") || line.contains("connection refused") {
            match self.0 {
                Fault::Stall(time) => thread::sleep(time),
                Fault::Panic => panic!("the log is full"),
            }
        }
        io::stderr().write(line.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says in the environment that the process is such a child, and where its endpoint is.
const MARK: &str = "UPBEAT_TEST_CHILD_OF";
/// For what takes a moment.
const PATIENCE: Duration = Duration::from_secs(40);

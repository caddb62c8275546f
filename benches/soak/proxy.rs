//! The proxy: a process, its configuration, its certificate.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::fixture::{caller::get, certs::Authority};

pub(crate) struct Proxy {
    child: Child,
    folder: PathBuf,
    authority: Authority,
    endpoints: Vec<SocketAddr>,
    certificates: u64,
    configurations: u64,
    addresses: HashMap<String, SocketAddr>,
}

impl Proxy {
    pub(crate) async fn start(binary: &Path, folder: &Path, endpoints: Vec<SocketAddr>) -> Self {
        let log = fs::File::create(folder.join("log")).unwrap();
        let authority = Authority::new("soak", "soak");
        let mut proxy = Self {
            child: Command::new("true").spawn().unwrap(),
            folder: folder.to_owned(),
            authority,
            endpoints,
            certificates: 0,
            configurations: 0,
            addresses: HashMap::new(),
        };
        proxy.certify();
        proxy.configure();
        proxy.child = Command::new(binary)
            .args(["run", "--config"])
            .arg(folder.join("upbeat.yaml"))
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        proxy.wait_serving().await;
        proxy
    }

    async fn wait_serving(&mut self) {
        let begun = Instant::now();
        while self.addresses.len() < 3 || get(self.address("admin"), "/readyz").await.0 != 200 {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "it does not serve: {:?}",
                self.log()
            );
            for line in self.log() {
                let name = match line["message"].as_str() {
                    Some("listening") => line["listener"].as_str().unwrap(),
                    Some("admin listening") => "admin",
                    _ => continue,
                };
                let address = line["address"].as_str().unwrap().parse().unwrap();
                self.addresses.insert(name.to_owned(), address);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.addresses[name]
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Who issues its certificates.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Another certificate in the place of the one it has.
    pub(crate) fn certify(&mut self) {
        self.certificates += 1;
        let pair = self.authority.issue("localhost", self.certificates, false);
        for (new, name) in [(&pair.cert, "cert.pem"), (&pair.key, "key.pem")] {
            self.put(name, &fs::read_to_string(new).unwrap());
        }
    }

    /// A configuration that says something else than the one before.
    pub(crate) fn configure(&mut self) {
        self.configurations += 1;
        let endpoints: Vec<_> = self.endpoints.iter().map(|it| format!("\"{it}\"")).collect();
        let (endpoints, folder) = (endpoints.join(", "), self.folder.display());
        let other = self.configurations % 2;
        let yaml = format!(
            r#"
listeners:
  - {{ name: plain, address: "127.0.0.1:0", upstream: otlp, timeouts: {{ call: {}s }} }}
  - name: tls
    address: "127.0.0.1:0"
    upstream: otlp
    tls: {{ cert_file: "{folder}/cert.pem", key_file: "{folder}/key.pem" }}
upstreams:
  otlp:
    endpoints: [{endpoints}]
    load_balancing: {}
    probe: {{ checks: [{{ otlp: {{}} }}] }}
admin: {{ address: "127.0.0.1:0" }}
drain: {{ delay: 0s, timeout: 10s }}
log: {{ format: json }}
workers: 2
"#,
            60 + other,
            ["least_request", "round_robin"][other as usize],
        );
        self.put("upbeat.yaml", &yaml);
    }

    /// As Kubernetes does: whole, in one step.
    fn put(&self, name: &str, text: &str) {
        let (new, file) = (self.folder.join("new"), self.folder.join(name));
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// Whether all endpoints are healthy.
    pub(crate) async fn has_all(&self) -> bool {
        let (_, body) = get(self.address("admin"), "/status").await;
        let status: Value = serde_json::from_str(&body).unwrap();
        status["upstreams"][0]["healthy"] == self.endpoints.len()
    }

    /// The sum of a metric over all its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, body) = get(self.address("admin"), "/metrics").await;
        let of = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        };
        body.lines().filter_map(of).sum()
    }

    pub(crate) fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Ends it; its exit code.
    pub(crate) async fn stop(mut self) -> Option<i32> {
        let pid = self.pid().to_string();
        Command::new("kill").args(["-s", "TERM", &pid]).status().await.unwrap();
        let ended = timeout(Duration::from_secs(30), self.child.wait()).await;
        ended.ok().and_then(|status| status.unwrap().code())
    }
}

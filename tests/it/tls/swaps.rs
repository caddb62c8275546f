//! Certificates that are renewed many times, on both sides of the proxy, while calls go on.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio::task::JoinSet;

use super::{MESSAGE, UNARY, calls, yaml};
use crate::fixture::{
    caller::Caller,
    certs::{Authority, Client, Pair},
    echo::Echo,
    eventually,
    proxy::Proxy,
    resident,
};

/// 50 of them, or as many as `SWAPS` says.
#[tokio::test]
async fn certificates_swapped_under_load_lose_no_call_and_leave_nothing_behind() {
    let swaps = std::env::var("SWAPS").map_or(50, |it| it.parse().unwrap());
    let ca = Authority::new("swaps", "ca");
    // The listener's, and what the endpoint is shown.
    let pairs: Vec<_> = (1..=8)
        .map(|it| [ca.issue("localhost", it, false), ca.issue("upbeat", it, false)])
        .collect();
    let (own, shown) = (ca.pair("caller"), Arc::default());
    let echo = Echo::with_tls(endpoint(&ca, &shown)).await;
    let mut volume = Volume::mount(&pairs[0]);
    let proxy = start(&ca, &volume, &echo).await;
    let address = proxy.address("tls");
    let load = Arc::new(Load::default());
    let mut callers = JoinSet::new();
    for number in 0..4 {
        callers.spawn(Arc::clone(&load).call(number, ca.client(Some(&own)), address));
    }
    let mut memory = Vec::new();
    for number in 1..=swaps {
        let pair = &pairs[number % pairs.len()];
        match number % 2 {
            0 => volume.swap(pair),
            _ => volume.rewrite(pair),
        }
        let newest = &pair[0].read().0[0];
        eventually("the newest one is shown", async || {
            let stream = ca.client(Some(&own)).connect(address).await.unwrap();
            stream.get_ref().1.peer_certificates().unwrap()[0] == *newest
        })
        .await;
        if number % 10 == 0 {
            // So that the endpoint is shown another one too.
            echo.go_away();
        }
        assert!(callers.try_join_next().is_none(), "a caller ended");
        if number % (swaps / 10).max(1) == 0 {
            memory.push(resident() >> 10);
        }
    }
    load.over.store(true, SeqCst);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let newest = &pairs[swaps % pairs.len()][1].read().0[0];
    eventually("the endpoint is shown the newest one", async || {
        echo.go_away();
        assert!(calls(ca.client(Some(&own)).connect(address).await, address).await);
        shown.lock().unwrap().as_ref() == Some(newest)
    })
    .await;
    let (calls, connections) = (load.calls.load(SeqCst), echo.seen().connections.load(SeqCst));
    println!(
        "{swaps} swaps, {calls} calls, none lost, {connections} connections to the endpoint; \
         KiB in memory at each tenth: {memory:?}"
    );
    assert!(calls > swaps, "only {calls} calls");
    proxy.stop().await;
}

/// Calls one after the other.
#[derive(Default)]
struct Load {
    calls: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// The first caller stays on its connection, the others make new ones after some calls.
    async fn call(self: Arc<Self>, number: usize, client: Client, address: SocketAddr) {
        let path = if number.is_multiple_of(2) { UNARY } else { "/test.Echo/Slow" };
        let most = if number == 0 { usize::MAX } else { 10 * number };
        while !self.over.load(SeqCst) {
            let stream = client.connect(address).await.unwrap();
            let mut caller = Caller::over(stream, address).await.unwrap();
            for _ in 0..most {
                let reply = caller.unary(path, MESSAGE).await.unwrap();
                assert_eq!(reply.code(), 0, "{:?}", reply.status());
                self.calls.fetch_add(1, SeqCst);
                if self.over.load(SeqCst) {
                    break;
                }
            }
        }
    }
}

/// With certificates on both sides, and files that are looked at all the time.
async fn start(ca: &Authority, volume: &Volume, echo: &Echo) -> Proxy {
    let [listener, upstream] = ["listener", "upstream"].map(|name| {
        let [cert, key] = volume.files(name);
        format!("cert_file: {cert:?}, key_file: {key:?}")
    });
    let trust = ca.file();
    let config = yaml(echo.address(), &format!("{listener}, client_ca_file: {trust:?}")).replace(
        "    probe:",
        &format!(
            "    tls: {{ ca_file: {trust:?}, server_name: localhost, {upstream} }}\n    probe:"
        ),
    );
    let file = volume.0.join("upbeat.yaml");
    fs::write(&file, config + "reload: { interval: 1ms }\n").unwrap();
    let proxy = Proxy::follow(&file).await;
    proxy.wait_serving().await;
    proxy
}

/// A folder of files as Kubernetes mounts a secret.
struct Volume(PathBuf, usize);

impl Volume {
    fn mount(pairs: &[Pair; 2]) -> Self {
        let name = format!("swaps-{}", std::process::id());
        let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        _ = fs::remove_dir_all(&at);
        fs::create_dir_all(&at).unwrap();
        let mut volume = Self(at, 0);
        volume.swap(pairs);
        for file in ["listener", "upstream"].iter().flat_map(|name| volume.files(name)) {
            symlink(Path::new("..data").join(file.file_name().unwrap()), file).unwrap();
        }
        volume
    }

    /// A certificate and its key.
    fn files(&self, name: &str) -> [PathBuf; 2] {
        ["crt", "key"].map(|kind| self.0.join(format!("{name}.{kind}")))
    }

    /// Changes all of them at once, as Kubernetes does.
    fn swap(&mut self, pairs: &[Pair; 2]) {
        let before = self.0.join(format!("..{}", self.1));
        self.1 += 1;
        let directory = format!("..{}", self.1);
        fs::create_dir(self.0.join(&directory)).unwrap();
        write(&self.0.join(&directory), pairs);
        symlink(directory, self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
        _ = fs::remove_dir_all(before);
    }

    /// Writes one after the other where it is, as a person may do.
    fn rewrite(&self, pairs: &[Pair; 2]) {
        write(&self.0, pairs);
    }
}

fn write(into: &Path, pairs: &[Pair; 2]) {
    for (name, pair) in ["listener", "upstream"].iter().zip(pairs) {
        fs::write(into.join(format!("{name}.crt")), fs::read(&pair.cert).unwrap()).unwrap();
        fs::write(into.join(format!("{name}.key")), fs::read(&pair.key).unwrap()).unwrap();
    }
}

/// What an endpoint was shown last.
type Shown = Arc<Mutex<Option<CertificateDer<'static>>>>;

/// An endpoint that wants certificates, and notes them.
fn endpoint(ca: &Authority, shown: &Shown) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.file()).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let noting = Noting { verifier: verifier.build().unwrap(), shown: Arc::clone(shown) };
    let (chain, key) = ca.pair("localhost").read();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_client_cert_verifier(Arc::new(noting))
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[derive(Debug)]
struct Noting {
    verifier: Arc<dyn ClientCertVerifier>,
    shown: Shown,
}

impl ClientCertVerifier for Noting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        *self.shown.lock().unwrap() = Some(end_entity.clone().into_owned());
        self.verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

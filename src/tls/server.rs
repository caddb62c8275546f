//! A listener's side: its certificates, which clients it takes, and their handshakes.

use std::{
    future::{Future, poll_fn},
    io,
    path::PathBuf,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs::Ticketer,
    pki_types::{CertificateRevocationListDer, ServerName},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    task::yield_now,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{PROTOCOLS, chains::Short, files::Files, provider};
use crate::config::{Clients, ListenerTls, Problem};

/// What a listener needs for its clients' handshakes.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    plain: bool,
    /// Of what it was made, wherever that stands in the configuration.
    source: (ListenerTls, u64),
    /// What clients' certificates are checked by.
    trust: (Option<Clients>, u64),
    ends: Vec<(PathBuf, i64)>,
}

impl PartialEq for Acceptor {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Acceptor {}

impl Acceptor {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// Everything that is wrong with them, without lines.
    pub fn new(config: &ListenerTls) -> Result<Self, Vec<Problem>> {
        let mut files = Files::default();
        let clients = match &config.clients {
            Some(clients) => verifier(&mut files, &config.path, clients),
            None => Some(WebPkiClientVerifier::no_client_auth()),
        };
        let trust = (config.clients.clone(), files.fingerprint());
        let pairs = config.certificates.iter().map(|pair| files.pair(pair).map(Arc::new));
        let certificates: Vec<_> = pairs.collect();
        let made = certificates.into_iter().collect::<Option<Vec<_>>>().zip(clients);
        let source = (config.anywhere(), files.fingerprint());
        let ends = files.ends();
        let (certificates, clients) = files.end(made)?;
        let plain = config.plain;
        let config = Arc::new(server(certificates, clients));
        Ok(Self { config, plain, source, trust, ends })
    }

    /// The same where no HTTP/2 is spoken.
    pub fn without_http2(mut self) -> Self {
        let [_, http1] = PROTOCOLS.map(<[u8]>::to_vec);
        Arc::make_mut(&mut self.config).alpn_protocols = vec![http1];
        self
    }

    /// When its certificates end, each with its file, in seconds since 1970.
    pub fn ends(&self) -> &[(PathBuf, i64)] {
        &self.ends
    }

    /// Whether a connection may stay that was made by other rules: with TLS or without, and with a
    /// certificate or none.
    pub fn keeps(&self, secured: bool, certified: bool) -> bool {
        let required = self.trust.0.as_ref().is_some_and(|clients| clients.required);
        if secured { certified || !required } else { self.plain }
    }

    /// Whether clients' certificates are checked as `other` does it.
    pub fn trusts_as(&self, other: &Self) -> bool {
        self.trust == other.trust
    }

    /// Lets a client speak without TLS.
    ///
    /// # Errors
    /// It may not.
    pub fn allow_plain(&self) -> io::Result<()> {
        match self.plain {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "no TLS")),
        }
    }

    /// Makes a client's connection one of TLS, unless it speaks without, and may.
    ///
    /// # Errors
    /// The handshake failed, or what was said is no TLS.
    pub async fn accept(&self, stream: TcpStream, handshakes: &Handshakes) -> io::Result<Accepted> {
        let mut first = [0];
        // As the TCP checks of load balancers do.
        if stream.peek(&mut first).await.unwrap_or(0) == 0 {
            return Ok(Accepted::Gone);
        }
        if first[0] != HANDSHAKE {
            return self.allow_plain().map(|()| Accepted::Plain(stream));
        }
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let accepting = hello.into_stream(Arc::clone(&self.config)).into_fallible();
        let mut accepting = std::pin::pin!(accepting);
        let place = handshakes.place().await;
        // What is worth bounding is the work of the answer. A client that takes its time then, which
        // may be on purpose, holds up no other.
        let answered = poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx))).await;
        yield_now().await;
        drop(place);
        let done = match answered {
            Poll::Ready(done) => done,
            Poll::Pending => accepting.await,
        };
        match done {
            Ok(stream) => Ok(Accepted::Tls(Box::new(stream))),
            Err((error, stream)) => {
                _ = timeout(LINGER, leave(stream)).await;
                Err(error)
            }
        }
    }
}

/// Closes a connection whose client was told why, and has it read that: what it sends meanwhile, as
/// clients of TLS 1.3 do at once, would end it by a reset if nobody read it.
async fn leave(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut unread = vec![0; 4096];
    for _ in 0..PIECES {
        if stream.read(&mut unread).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// A client's connection.
#[derive(Debug)]
pub enum Accepted {
    /// Its handshake is done.
    Tls(Box<TlsStream<TcpStream>>),
    /// It speaks without TLS.
    Plain(TcpStream),
    /// It left without a word.
    Gone,
}

/// A worker's handshakes: so many in one turn that the calls of others go on between them.
#[derive(Debug)]
pub struct Handshakes(Semaphore);

impl Handshakes {
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.0.acquire().await.ok()
    }
}

impl Default for Handshakes {
    fn default() -> Self {
        Self(Semaphore::new(IN_FLIGHT))
    }
}

fn server(
    certificates: Vec<Arc<CertifiedKey>>,
    clients: Arc<dyn ClientCertVerifier>,
) -> ServerConfig {
    // What a ticket brings back was not checked again, so that a certificate which was revoked
    // meanwhile would pass.
    let resumes = !clients.offer_client_auth();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("the provider has suites for both versions")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(ByName(certificates)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Sessions are the tickets' alone: a store would be one lock for all workers.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    if resumes && let Ok(ticketer) = Ticketer::new() {
        config.ticketer = ticketer;
        config.send_tls13_tickets = 1;
    }
    config
}

/// Who may connect with which certificate.
fn verifier(
    files: &mut Files,
    path: &str,
    clients: &Clients,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let at = format!("{path}.client_ca_file");
    let roots = files.roots(at.clone(), &clients.ca_file);
    let mut revoked = Some(Vec::new());
    for (index, file) in clients.crl_files.iter().enumerate() {
        let lists = files.revoked(format!("{path}.crl_files[{index}]"), file);
        revoked = revoked.zip(lists).map(|(all, more)| [all, more].concat());
    }
    let (roots, revoked): (RootCertStore, Vec<CertificateRevocationListDer<'static>>) =
        roots.zip(revoked)?;
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).with_crls(revoked);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    match builder.build() {
        Ok(verifier) => Some(Arc::new(Short(verifier))),
        Err(error) => {
            files.problem(at, format!("cannot be used: {error}"));
            None
        }
    }
}

/// Certificates of which the first one fits whatever name is asked for, or none.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = &*self.0 {
            return Some(Arc::clone(only));
        }
        let named = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |pair: &&Arc<CertifiedKey>| {
            let certificate = pair.end_entity_cert().ok();
            let parsed = certificate.and_then(|it| ParsedCertificate::try_from(it).ok());
            parsed
                .zip(named.as_ref())
                .is_some_and(|(it, name)| verify_server_name(&it, name).is_ok())
        };
        let mut offered: Vec<_> = self.0.iter().filter(fits).collect();
        if offered.is_empty() {
            offered.extend(&self.0);
        }
        // One name may have a key of each kind, of which a client knows one.
        let signs = |pair: &&&Arc<CertifiedKey>| {
            pair.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        offered.iter().find(signs).or_else(|| offered.first()).map(|pair| Arc::clone(pair))
    }
}

/// The first byte of a TLS connection: a record of the handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;
/// Clients of one worker whose first words are answered before it looks at its sockets again.
const IN_FLIGHT: usize = 32;
/// How long a client that was refused has to close, and in how many pieces it may send what for.
const LINGER: Duration = Duration::from_secs(1);
const PIECES: usize = 16;

//! One fetch of an issuer's keys.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};

use crate::{
    config::{Jwks, KeysFrom},
    tls::{Connector, Spoken, Stream},
};

/// Fetches the keys.
///
/// # Errors
/// Why there are none, in words for the log.
pub(super) async fn keys(from: &KeysFrom, connector: Option<&Connector>) -> Result<Jwks, String> {
    let body = timeout(PATIENCE, get(from, connector)).await;
    let body = body.map_err(|_| format!("no answer within {PATIENCE:?}"))??;
    Jwks::parse(&body).map_err(|words| format!("what was answered {words}"))
}

async fn get(from: &KeysFrom, connector: Option<&Connector>) -> Result<Bytes, String> {
    let stream = connect(&from.host, from.port).await;
    let stream = stream.map_err(|why| format!("cannot connect: {why}"))?;
    let stream = match connector {
        None => Stream::Plain(stream),
        Some(connector) => {
            let address = stream.peer_addr().map_err(|error| error.to_string())?;
            let secured = connector.connect(stream, address, Spoken::Http1).await;
            Stream::Tls(Box::new(secured.map_err(|error| format!("no TLS: {error}"))?))
        }
    };
    let explain = |error: hyper::Error| format!("no HTTP/1.1: {error}");
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(explain)?;
    let mut driver = JoinSet::new();
    driver.spawn(async {
        // What ends it is seen by the request that it fails.
        _ = connection.await;
    });
    let request = Request::get(&from.path)
        .header(header::HOST, &from.authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("upbeat/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(explain)?;
    // Elsewhere is not followed: whom to ask is the configuration's to say.
    if response.status() != StatusCode::OK {
        return Err(format!("answered {}", response.status()));
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    Ok(body.map_err(|error| format!("the answer was cut: {error}"))?.to_bytes())
}

/// Connects to the first of a host's addresses that answers.
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let mut why = "the name has no address".to_owned();
    for address in lookup_host((host, port)).await.map_err(|error| error.to_string())? {
        why = match timeout(EACH, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => format!("{address}: {error}"),
            Err(_) => format!("{address}: no answer within {EACH:?}"),
        };
    }
    Err(why)
}

/// For one address.
const EACH: Duration = Duration::from_secs(1);
/// For all of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// In bytes.
const LARGEST: usize = 256 << 10;

//! Endpoints that take the place of all that were there.

use std::{fs, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::sleep,
};

use super::{directory, endpoints, everywhere, finding, ip};
use crate::fixture::caller::{Caller, get};

/// Answers every HTTP probe by 200, after a while.
async fn hesitant() -> (u16, JoinSet<()>) {
    let socket = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut socket, _)) = socket.accept().await {
            connections.spawn(async move {
                while socket.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                    sleep(Duration::from_millis(300)).await;
                    _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    (port, serving)
}

#[tokio::test]
async fn no_call_is_lost_while_endpoints_that_replace_all_others_are_not_probed_yet() {
    let (echo, (port, _probed)) = (everywhere().await, hesitant().await);
    let [a, b] = [1, 2].map(|last| SocketAddr::new(ip(last), echo.address().port()));
    let directory = directory("swap");
    let path = directory.join("endpoints.yaml");
    fs::write(&path, format!("- {a}\n")).unwrap();
    let found = format!("file: {{ path: {} }}", path.display());
    let proxy = finding(&found, &format!("{{ http: {{ port: {port} }} }}")).await;
    proxy.wait_serving().await;

    fs::write(&path, format!("- {b}\n")).unwrap();
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    while endpoints(&proxy).await != [b].into() {
        let reply = caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap();
        assert_eq!(reply.code(), 0, "{:?}", reply.status());
        assert_eq!(get(proxy.address("otlp"), "/").await.0, 200);
        sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..10 {
        assert_eq!(caller.unary("/test.Echo/Unary", &[0; 5]).await.unwrap().code(), 0);
    }
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

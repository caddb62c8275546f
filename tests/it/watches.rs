//! How many Watch streams there may be.

use crate::fixture::{
    echo::Echo,
    proxy::{CHECK, Proxy, yaml},
    wire::{Message, Wire},
};

fn head(path: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "upbeat"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

async fn proxy(limits: &str) -> (Echo, Proxy) {
    let echo = Echo::start().await;
    let config = yaml(&[echo.address()], "{ tcp: {} }", &format!("limits: {limits}"));
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    (echo, proxy)
}

/// Opens a Watch stream.
async fn watch(wire: &mut Wire) -> u32 {
    let stream = wire.open();
    let request = Message::new(&head("/grpc.health.v1.Health/Watch")).body([0; 5]);
    wire.play(stream, &request, 16_384).await;
    stream
}

/// Why a Watch stream is refused; none where it is open.
async fn refused(wire: &mut Wire, stream: u32) -> Option<String> {
    let begun = wire.begun(stream).await;
    let status = begun.value("grpc-status")?;
    assert_eq!(status, b"8", "{begun:?}");
    Some(String::from_utf8(begun.value("grpc-message").unwrap().to_vec()).unwrap())
}

async fn denied(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric(&format!(r#"upbeat_denied_total{{listener="otlp",reason="{reason}"}}"#)).await
}

#[tokio::test]
async fn a_connection_has_four_watch_streams_at_a_time() {
    let (_echo, proxy) = proxy("{}").await;
    let mut wire = Wire::connect(proxy.address("otlp")).await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(watch(&mut wire).await);
    }
    for stream in &streams[..4] {
        assert_eq!(refused(&mut wire, *stream).await, None);
    }
    for stream in &streams[4..] {
        let words = refused(&mut wire, *stream).await.expect("it is one too many");
        assert!(
            words.ends_with("limits.max_watches_per_connection of Upbeat allows: 4"),
            "{words}"
        );
    }
    assert_eq!(denied(&proxy, "max_watches_per_connection").await, 2.0);
    // Checks are no Watch streams, and one that ends makes room.
    let check = wire.open();
    wire.play(check, &Message::new(&head(CHECK)).body([0; 5]), 16_384).await;
    assert_eq!(wire.message(check).await.value("grpc-status"), Some(&b"0"[..]));
    wire.reset(streams[0], 8).await;
    let stream = watch(&mut wire).await;
    assert_eq!(refused(&mut wire, stream).await, None);
    drop(wire);
    proxy.stop().await;
}

#[tokio::test]
async fn a_process_has_so_many_watch_streams_on_all_workers() {
    let (_echo, proxy) = proxy("{ max_watches: 5, max_watches_per_connection: 1 }").await;
    let mut wires = Vec::new();
    let mut refusals = 0;
    for _ in 0..8 {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        let stream = watch(&mut wire).await;
        if let Some(words) = refused(&mut wire, stream).await {
            assert!(words.ends_with("limits.max_watches of Upbeat allows: 5"), "{words}");
            refusals += 1;
        }
        wires.push(wire);
    }
    assert_eq!((refusals, denied(&proxy, "max_watches").await), (3, 3.0));
    // Connections that end give theirs back.
    drop(wires);
    crate::fixture::eventually("there is room again", async || {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        let stream = watch(&mut wire).await;
        refused(&mut wire, stream).await.is_none()
    })
    .await;
    proxy.stop().await;
}

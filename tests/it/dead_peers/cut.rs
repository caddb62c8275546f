//! Endpoints that close in the middle of a response: whole messages arrive, half ones end by a reset.

use tokio::net::TcpListener;

use crate::fixture::{
    eventually,
    proxy::{Proxy, yaml},
    wire::{
        ACK, End, Frame, INITIAL_WINDOW_SIZE, Message, PING, SETTINGS, WINDOW_UPDATE, Wire,
        grpc_frame,
    },
};

const REFUSED_STREAM: u32 = 7;

const HEAD: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "upbeat"),
    (":path", "/a.B/C"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

/// Has an endpoint send `body` on a call, without an end, and close; the client takes `window`
/// bytes. Returns the client and its stream.
async fn closed_after(body: &[u8], window: u32) -> (Proxy, Wire, u32) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = yaml(&[listener.local_addr().unwrap()], "{ tcp: {} }", "");
    let proxy = Proxy::start(&config.replace("workers: 2", "workers: 1")).await;
    proxy.wait_serving().await;
    let mut client = Wire::connect(proxy.address("otlp")).await;
    client.credits = false;
    let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
    client.send(Frame::new(SETTINGS, 0, 0, setting)).await;
    let stream = client.open();
    client.head(stream, &HEAD, true).await;

    let mut endpoint = Wire::accept(&listener).await;
    endpoint.begun(1).await;
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let said = Message::new(&head).body(body).ended_by(End::Open);
    endpoint.play(1, &said, 16_384).await;
    // With everything read, its close is no reset.
    endpoint.send(Frame::new(PING, 0, 0, *b"all read")).await;
    while !endpoint.next().await.is_some_and(|it| it.kind == PING && it.has(ACK)) {}
    drop(endpoint);
    let open = format!(
        r#"upbeat_upstream_connections{{upstream="otlp",endpoint="{}"}}"#,
        listener.local_addr().unwrap()
    );
    eventually("it is gone", async || proxy.metric(&open).await == 0.0).await;
    (proxy, client, stream)
}

#[tokio::test]
async fn whole_messages_of_an_endpoint_that_closed_reach_a_slow_client_before_the_status() {
    let five = grpc_frame(&[7; 995]).repeat(5);
    let (proxy, mut client, stream) = closed_after(&five, 2000).await;
    for step in 1..=5 {
        while client.arriving.get(&stream).is_none_or(|it| it.body.len() < step * 1000) {
            client.next().await.expect("it gets as much as it takes");
        }
        client.send(Frame::new(WINDOW_UPDATE, 0, stream, 1000_u32.to_be_bytes())).await;
    }
    let end = client.message(stream).await;
    assert_eq!((end.ended_by, end.body.len()), (End::Trailers, five.len()));
    assert!(end.body == five && end.value("grpc-status") == Some(b"14"), "{:?}", end.trailers);
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn half_a_message_of_an_endpoint_that_closed_ends_by_a_reset_that_clients_read_as_14() {
    let cut = [grpc_frame(&[7; 995]), grpc_frame(&[8; 995])[..500].to_vec()].concat();
    for window in [65_535, 1200] {
        let (proxy, mut client, stream) = closed_after(&cut, window).await;
        client.send(Frame::new(WINDOW_UPDATE, 0, stream, 65_535_u32.to_be_bytes())).await;
        let end = client.message(stream).await;
        assert_eq!((end.ended_by, &end.trailers), (End::Reset(REFUSED_STREAM), &None));
        assert!(end.body.len() >= 1000 && cut.starts_with(&end.body), "{}", end.body.len());
        drop(client);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_closed_before_a_whole_message_ends_its_call_by_14() {
    for (said, ends_by) in [(vec![], End::Trailers), (vec![0, 0], End::Reset(REFUSED_STREAM))] {
        let (proxy, mut client, stream) = closed_after(&said, 65_535).await;
        let end = client.message(stream).await;
        assert_eq!(end.ended_by, ends_by, "{said:?}");
        if ends_by == End::Trailers {
            assert_eq!(end.value("grpc-status"), Some(&b"14"[..]));
        }
        drop(client);
        proxy.stop().await;
    }
}

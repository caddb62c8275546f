//! A client's fault is held against no endpoint.

use tokio::net::TcpStream;

use super::{UNARY, call, code, proxy};
use crate::{
    ejection::{Moody, RESETS},
    fixture::{caller::Caller, connect_from, echo::Echo, proxy::Proxy, wire::Wire},
};

async fn ejected(proxy: &Proxy) -> usize {
    let endpoints = proxy.status().await.upstreams.remove(0).endpoints;
    endpoints.iter().filter(|it| it.ejected.is_some()).count()
}

#[tokio::test]
async fn unfinished_requests_up_to_their_deadlines_eject_nothing() {
    let echoes = [Echo::start().await, Echo::start().await];
    let proxy = proxy(&echoes.each_ref().map(Echo::address), "").await;
    let mut wires = Vec::new();
    for _ in 0..6 {
        let mut wire = Wire::connect(proxy.address("otlp")).await;
        for _ in 0..8 {
            let stream = wire.open();
            let head = [call(UNARY), vec![("grpc-timeout", "1100m")]].concat();
            wire.head(stream, &head, false).await;
            wire.data(stream, &[0], false).await;
        }
        wires.push(wire);
    }
    for wire in &mut wires {
        for stream in (1..16).step_by(2) {
            assert_eq!(code(&wire.message(stream).await), Some(4));
        }
        assert_eq!(ejected(&proxy).await, 0);
    }
    drop(wires);
    proxy.stop().await;
}

/// Makes one call from an address; returns its status, or none where it was reset.
async fn call_from(proxy: &Proxy, client: [u8; 4]) -> Option<u8> {
    let stream: TcpStream = connect_from(client, proxy.address("otlp")).await;
    let mut caller = Caller::after(stream).await;
    caller.unary(UNARY, &[0; 5]).await.ok().map(|reply| reply.code())
}

#[tokio::test]
async fn streams_that_an_endpoint_resets_for_one_client_alone_eject_nothing() {
    let (bad, good) = (Moody::start(RESETS).await, Moody::start(0).await);
    let proxy = proxy(&[bad.address, good.address], "").await;
    let mut lost = 0;
    for _ in 0..60 {
        lost += usize::from(call_from(&proxy, [127, 0, 0, 1]).await.is_none());
    }
    assert!(lost >= 20 && bad.calls() >= 20, "{lost} lost, of {} there", bad.calls());
    assert_eq!(ejected(&proxy).await, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_resets_the_streams_of_two_clients_is_ejected() {
    let (bad, good) = (Moody::start(RESETS).await, Moody::start(0).await);
    let proxy = proxy(&[bad.address, good.address], "").await;
    for number in 0..200 {
        call_from(&proxy, [127, 0, 0, 1 + number % 2]).await;
        if ejected(&proxy).await == 1 {
            break;
        }
    }
    assert_eq!(ejected(&proxy).await, 1, "after {} calls there", bad.calls());
    let before = bad.calls();
    for number in 0..20 {
        assert_eq!(call_from(&proxy, [127, 0, 0, 1 + number % 2]).await, Some(0));
    }
    assert_eq!(bad.calls(), before, "it gets none");
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_resets_few_of_its_streams_is_not_ejected() {
    let (moody, good) = (Moody::start(0).await, Moody::start(0).await);
    let proxy = proxy(&[moody.address, good.address], "").await;
    for number in 0..120 {
        moody.is_now(if number % 10 < 2 { RESETS } else { 0 });
        call_from(&proxy, [127, 0, 0, 1 + number % 2]).await;
    }
    assert!(moody.calls() >= 20, "{} calls came there", moody.calls());
    assert_eq!(ejected(&proxy).await, 0);
    proxy.stop().await;
}

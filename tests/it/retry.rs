//! What a client is told of coming back: `google.rpc.RetryInfo`, read by tonic's decoder.

use std::{collections::BTreeSet, sync::atomic::Ordering::SeqCst, time::Duration};

use tonic_types::StatusExt;

use crate::fixture::{
    caller::{Caller, Reply, read},
    echo::Echo,
    eventually,
    proxy::{CHECK, Proxy, yaml},
    refusing,
};

const UNARY: &str = "/test.Echo/Unary";

/// The status of a reply as tonic reads it.
fn status(reply: &Reply) -> tonic::Status {
    let fields = if reply.trailers.is_empty() { reply.head.headers() } else { &reply.trailers };
    tonic::Status::from_header_map(fields).unwrap()
}

/// The delay that a reply of UNAVAILABLE bids its client, once all else in it is as it should be.
fn delay(reply: &Reply) -> Duration {
    let status = status(reply);
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
    let details = status.check_error_details_vec().unwrap();
    assert_eq!(details.len(), 1, "{details:?}");
    // What a client finds in it again is the code and the words.
    assert!(!status.message().is_empty());
    let inner: tonic_types::Status = prost::Message::decode(status.details()).unwrap();
    assert_eq!((inner.code, inner.message.as_str()), (14, status.message()));
    status.get_details_retry_info().unwrap().retry_delay.unwrap()
}

#[tokio::test]
async fn a_call_that_finds_no_endpoint_is_bidden_to_come_back_each_at_another_time() {
    let proxy = Proxy::start(&yaml(&[refusing()], "{ tcp: {} }", "")).await;
    proxy.wait_not_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut delays = BTreeSet::new();
    for _ in 0..50 {
        delays.insert(delay(&caller.unary(UNARY, &[0; 5]).await.unwrap()));
    }
    let (first, last) = (delays.first().unwrap(), delays.last().unwrap());
    assert!(*first >= Duration::from_secs(1) && *last <= Duration::from_secs(3), "{delays:?}");
    assert!(*last - *first > Duration::from_secs(1), "{delays:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_whose_connection_is_lost_or_cannot_be_made_is_bidden_to_come_back() {
    let echo = Echo::start().await;
    // Probes too slow to know of the death.
    let config = yaml(&[echo.address()], "{ tcp: {} }", "")
        .replace("interval: 300ms, timeout: 290ms", "interval: 60s, timeout: 1s");
    let proxy = Proxy::start(&config).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let call = caller.open("/test.Echo/Hang").await.unwrap();
    eventually("the call has arrived", async || echo.seen().open.load(SeqCst) == 1).await;
    drop(echo);
    let lost = read(call.response.await.unwrap()).await.unwrap();
    assert!(status(&lost).message().starts_with("upstream connection lost"), "{lost:?}");
    delay(&lost);
    let refused = caller.unary(UNARY, &[0; 5]).await.unwrap();
    assert!(status(&refused).message().starts_with("cannot connect"), "{refused:?}");
    delay(&refused);
    proxy.stop().await;
}

#[tokio::test]
async fn what_would_fail_again_is_not_bidden_to_come_back() {
    let echo = Echo::start().await;
    let more = "health: { not_serving_as: status, services: { off: { not: otlp } } }";
    let proxy = Proxy::start(&yaml(&[echo.address()], "{ tcp: {} }", more)).await;
    proxy.wait_serving().await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let huge = [0, 0xff, 0xff, 0xff, 0xff];
    // A Check's `off`: its answer is the status, and the checker has its own interval.
    let off = [0, 0, 0, 0, 5, 10, 3, b'o', b'f', b'f'];
    for (path, body, code) in [
        (UNARY, &huge[..], tonic::Code::ResourceExhausted),
        ("/nothing", &[0; 5], tonic::Code::Unimplemented),
        (CHECK, &off, tonic::Code::Unavailable),
    ] {
        let status = status(&caller.unary(path, body).await.unwrap());
        assert_eq!((status.code(), status.details()), (code, &[][..]), "{path}");
    }
    proxy.stop().await;
}

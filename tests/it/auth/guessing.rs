//! Health checks where something is to be proved for them: no place to try one token after another.

use http::HeaderMap;

use super::{A, AUTH, check, denied, http1, proxy};
use crate::fixture::{echo::Echo, proxy::CHECK};

#[tokio::test]
async fn who_guesses_at_health_checks_is_held_up_as_who_calls() {
    let echo = Echo::start().await;
    let limits = "limits_per: { address: { calls_per_second: 1, burst: 3 } }";
    let proxy = proxy(echo.address(), &format!("{AUTH}, health: true }}, {limits}")).await;
    let said = async |value: &str| {
        let mut metadata = HeaderMap::new();
        metadata.insert("authorization", value.parse().unwrap());
        check(&proxy, CHECK, &metadata).await
    };
    assert_eq!(said("Bearer guess").await, 16);
    assert!(http1(&proxy, "GET /healthz").await.starts_with("HTTP/1.1 401"));
    // However slow this machine is, it asks more often than once a second.
    let (mut shed, mut get) = (0, 0);
    for _ in 0..30 {
        // What proves something is not even looked at.
        shed += usize::from(said(A.1).await == 8);
        get += usize::from(http1(&proxy, "GET /healthz").await.starts_with("HTTP/1.1 429"));
    }
    assert!(shed > 0 && get > 0, "{shed} {get}");
    assert!(http1(&proxy, "GET /livez").await.starts_with("HTTP/1.1 200"));
    assert_eq!(denied(&proxy, "address_rate").await, (shed + get) as f64);
    proxy.stop().await;
}

#[tokio::test]
async fn open_health_checks_count_for_no_bound() {
    let echo = Echo::start().await;
    let limits = "limits_per: { address: { calls_per_second: 1 } }";
    let proxy = proxy(echo.address(), &format!("{AUTH} }}, {limits}")).await;
    for _ in 0..20 {
        assert_eq!(check(&proxy, CHECK, &HeaderMap::new()).await, 0);
    }
    assert!(http1(&proxy, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    proxy.stop().await;
}

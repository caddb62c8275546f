//! Files that a new configuration names before they are there.

use std::fs;

use super::{ANY, Live, config};
use crate::fixture::{
    certs::{Authority, Pair},
    echo::Echo,
    eventually,
};

#[tokio::test]
async fn a_configuration_that_waits_for_its_files_is_taken_over_once_they_are_there() {
    let echo = Echo::start().await;
    let ca = Authority::new("late-files", "ca");
    let made = ca.pair("localhost");
    let before = config(&[("otlp", ANY, "otlp")], &[("otlp", &[echo.address()])], "");
    let live = Live::start("late-files", &before).await;
    let directory = live.file.parent().unwrap().to_owned();
    let at = |name: &str| directory.join(name);
    let (tokens, pair) = (at("tokens.yaml"), Pair { cert: at("cert"), key: at("key") });
    let keys = format!(
        "auth: {{ bearer: {{ tokens_file: {tokens:?} }} }}, \
         tls: {{ cert_file: {:?}, key_file: {:?} }}",
        pair.cert, pair.key
    );
    live.reload(
        &before.replace("upstream: otlp }", &format!("upstream: otlp, {keys} }}")),
        "refused",
    )
    .await;

    fs::write(&tokens, "token: team-a\n").unwrap();
    eventually("read again", async || live.count("refused").await == 2.0).await;
    fs::copy(&made.key, &pair.key).unwrap();
    fs::copy(&made.cert, &pair.cert).unwrap();
    eventually("taken over", async || live.count("applied").await == 1.0).await;
    assert_eq!(live.successful().await, 1.0);
    live.stop().await;
}

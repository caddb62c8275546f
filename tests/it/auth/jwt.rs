//! Tokens that an issuer has signed.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

use super::*;
use crate::fixture::{
    certs::Authority,
    issuer::{Issuer, Signer, from_now, set},
};

const RULES: &str = "issuer: 'https://issuer.test/', audience: [upbeat, other], leeway: 0s";

/// Claims that are good, with these in the place of theirs; one that is null is left out.
fn claims(others: Value) -> Value {
    let mut claims = json!({ "iss": "https://issuer.test/", "aud": "upbeat", "tenant": "team-a",
        "exp": from_now(60), "sub": "agent" });
    for (name, value) in others.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

async fn call(proxy: &Proxy, token: &str) -> u8 {
    tell(proxy, &[("authorization", &format!("Bearer {token}"))]).await.code()
}

/// A listener whose keys are in a file, which is followed.
async fn with_file(echo: &Echo, directory: &Path, keys: &str, more: &str) -> Proxy {
    let (file, config) = (directory.join("jwks.json"), directory.join("upbeat.yaml"));
    fs::write(&file, keys).unwrap();
    let jwt = format!("jwt: {{ jwks_file: '{}', {RULES} }}", file.display());
    let keys = format!("auth: {{ {jwt}{more} }}");
    fs::write(&config, beside_open(echo.address(), &keys) + "reload: { interval: 20ms }\n")
        .unwrap();
    serving(Proxy::follow(&config).await).await
}

#[tokio::test]
async fn tokens_by_every_kind_of_key_say_the_tenant() {
    let (echo, directory) = (Echo::start().await, directory("jwt-kinds"));
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS512, RS256, RS384};
    let kinds = [RS256, RS384, PS256, PS512, ES256, ES384, EdDSA];
    let signers = kinds.map(|kind| Signer::new(kind, &format!("{kind:?}")));
    let keys = set(&signers.each_ref());
    let proxy = with_file(
        &echo,
        &directory,
        &keys,
        ", bearer: { tokens: [{ token: static, tenant: team-s }] }",
    )
    .await;
    for (signer, kind) in signers.iter().zip(kinds) {
        for (others, tenant) in [
            (json!({}), "team-a"),
            (json!({ "tenant": "b|c", "aud": ["x", "other"], "nbf": from_now(-5) }), "b|c"),
        ] {
            // The second time it is known.
            let token = signer.sign(&claims(others));
            for _ in 0..2 {
                let proof = ("authorization", &*format!("Bearer {token}"));
                assert_eq!(tell(&proxy, &[proof, (ORG, "forged")]).await.code(), 0, "{kind:?}");
                assert_eq!(echo.heard(ORG), [tenant]);
                assert_eq!(echo.heard("authorization"), [""; 0]);
            }
        }
    }
    // The one key for Ed25519 needs no name.
    assert_eq!(call(&proxy, &signers[6].sign_as(None, &claims(json!({})))).await, 0);
    assert_eq!(call(&proxy, "static").await, 0);
    assert_eq!(echo.heard(ORG), ["team-s"]);
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn tokens_that_are_not_as_they_must_be_reach_no_backend() {
    let (echo, directory) = (Echo::start().await, directory("jwt-bad"));
    let (rsa, ed) = (Signer::new(Algorithm::RS256, "rsa"), Signer::new(Algorithm::EdDSA, "ed"));
    let (second, other) =
        (Signer::new(Algorithm::EdDSA, "ed2"), Signer::new(Algorithm::EdDSA, "ed"));
    let set = set(&[&rsa, &ed, &second]);
    let proxy = with_file(&echo, &directory, &set, "").await;
    let good = ed.sign(&claims(json!({})));
    let parts: Vec<_> = good.split('.').collect();
    let forged = other.sign(&claims(json!({ "tenant": "team-b" })));
    let forged: Vec<_> = forged.split('.').collect();
    // What a library that goes by the token's word would take: the public key as a secret.
    let mut hmac = Header::new(Algorithm::HS256);
    hmac.kid = Some("rsa".to_owned());
    let secret = EncodingKey::from_secret(rsa.jwk["n"].as_str().unwrap().as_bytes());
    let hmac = encode(&hmac, &claims(json!({})), &secret).unwrap();
    let none = "eyJhbGciOiJub25lIiwia2lkIjoiZWQifQ";
    let mut critical = Header::new(Algorithm::EdDSA);
    (critical.kid, critical.crit) = (Some("ed".to_owned()), Some(vec!["exp".to_owned()]));
    let signed = |others| ed.sign(&claims(others));
    let cases = [
        ("garbage", 16, "bad_token", "a.b.c".to_owned()),
        ("no parts", 16, "bad_token", "abc".to_owned()),
        ("none", 16, "bad_token", format!("{none}.{}.", parts[1])),
        ("none, signed", 16, "bad_token", format!("{none}.{}.{}", parts[1], parts[2])),
        ("no signature", 16, "bad_token", format!("{}.{}.", parts[0], parts[1])),
        ("other claims", 16, "bad_token", format!("{}.{}.{}", parts[0], forged[1], parts[2])),
        ("other key", 16, "bad_token", other.sign(&claims(json!({})))),
        ("HS256 by a public key", 16, "bad_token", hmac),
        ("other algorithm", 16, "token_key", ed.sign_as(Some("rsa"), &claims(json!({})))),
        ("unknown key", 16, "token_key", ed.sign_as(Some("new"), &claims(json!({})))),
        ("one of two keys", 16, "token_key", ed.sign_as(None, &claims(json!({})))),
        ("critical", 16, "bad_token", ed.sign_with(&critical, &claims(json!({})))),
        ("expired", 16, "token_time", signed(json!({ "exp": from_now(-2) }))),
        ("early", 16, "token_time", signed(json!({ "nbf": from_now(30) }))),
        ("no end", 16, "token_time", signed(json!({ "exp": null }))),
        ("an end in words", 16, "token_time", signed(json!({ "exp": "never" }))),
        ("issuer", 16, "token_scope", signed(json!({ "iss": "https://issuer.test" }))),
        ("no issuer", 16, "token_scope", signed(json!({ "iss": null }))),
        ("audience", 16, "token_scope", signed(json!({ "aud": ["x", "y"] }))),
        ("no audience", 16, "token_scope", signed(json!({ "aud": null }))),
        ("no tenant", 7, "token_tenant", signed(json!({ "tenant": null }))),
        ("no lawful tenant", 7, "token_tenant", signed(json!({ "tenant": "a\r\nb" }))),
        ("no text", 7, "token_tenant", signed(json!({ "tenant": ["team-a"] }))),
        ("too long", 16, "bad_token", signed(json!({ "sub": "x".repeat(9000) }))),
    ];
    for (what, code, reason, token) in cases {
        let before = denied(&proxy, reason).await;
        assert_eq!(call(&proxy, &token).await, code, "{what}");
        assert_eq!(denied(&proxy, reason).await, before + 1.0, "{what}");
    }
    assert_eq!(echo.seen().streams.load(SeqCst), 0);
    assert_eq!(call(&proxy, &good).await, 0);
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_token_that_is_known_ends_when_it_says_and_with_the_keys_that_it_is_by() {
    let (echo, directory) = (Echo::start().await, directory("jwt-file"));
    let (first, second) = (Signer::new(Algorithm::ES256, "1"), Signer::new(Algorithm::ES256, "2"));
    let proxy = with_file(&echo, &directory, &set(&[&first]), "").await;
    let short = first.sign(&claims(json!({ "exp": from_now(2) })));
    let (old, new) = (first.sign(&claims(json!({}))), second.sign(&claims(json!({}))));
    assert_eq!((call(&proxy, &short).await, call(&proxy, &old).await), (0, 0));
    assert_eq!(call(&proxy, &new).await, 16);
    eventually("expired", async || call(&proxy, &short).await == 16).await;
    assert!(denied(&proxy, "token_time").await >= 1.0);
    assert_eq!(call(&proxy, &old).await, 0);
    let file = directory.join("jwks.json");
    write(&file, "{ \"keys\": [] }");
    let refused = r#"upbeat_config_reloads_total{result="refused"}"#;
    eventually("refused", async || proxy.metric(refused).await == 1.0).await;
    assert_eq!(call(&proxy, &old).await, 0);
    write(&file, &set(&[&second]));
    eventually("taken over", async || call(&proxy, &new).await == 0).await;
    assert_eq!(call(&proxy, &old).await, 16);
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

async fn fetches(proxy: &Proxy, result: &str) -> f64 {
    let name = "upbeat_jwks_fetches_total";
    proxy.metric(&format!("{name}{{listener=\"otlp\",result=\"{result}\"}}")).await
}

#[tokio::test]
async fn keys_are_waited_for_and_fetched_anew_where_a_token_names_another() {
    let echo = Echo::start().await;
    let (first, second) = (Signer::new(Algorithm::ES256, "1"), Signer::new(Algorithm::ES256, "2"));
    let third = Signer::new(Algorithm::ES256, "3");
    let mut issuer = Issuer::closed(set(&[&first]));
    let url = format!("http://{}/keys?of=test", issuer.address);
    let proxy =
        proxy(echo.address(), &format!("auth: {{ jwt: {{ jwks_url: '{url}', {RULES} }} }}")).await;
    let tokens = [&first, &second, &third].map(|signer| signer.sign(&claims(json!({}))));
    // 14, since clients drop what 16 refuses. What is no token is none with any key.
    assert_eq!(call(&proxy, &tokens[0]).await, 14);
    assert_eq!(call(&proxy, "x").await, 16);
    let secret = EncodingKey::from_secret(b"secret");
    let shared = encode(&Header::new(Algorithm::HS256), &claims(json!({})), &secret).unwrap();
    assert_eq!(call(&proxy, &shared).await, 16);
    assert_eq!(denied(&proxy, "no_keys").await, 1.0);
    eventually("failed", async || fetches(&proxy, "failed").await >= 1.0).await;
    issuer.open(None);
    eventually("fetched", async || call(&proxy, &tokens[0]).await == 0).await;
    let last = r#"upbeat_jwks_last_success_timestamp_seconds{listener="otlp"}"#;
    assert!(proxy.metric(last).await > from_now(-60) as f64);
    assert_eq!((issuer.asked(), fetches(&proxy, "changed").await), (1, 1.0));

    // Rotated: the first call that names the new key has it fetched, long before its time.
    issuer.answers(200, set(&[&first, &second]));
    assert_eq!(call(&proxy, &tokens[1]).await, 14);
    eventually("fetched anew", async || call(&proxy, &tokens[1]).await == 0).await;
    assert_eq!((issuer.asked(), call(&proxy, &tokens[0]).await), (2, 0));
    // A name that nobody has is not asked for again and again.
    for _ in 0..10 {
        assert_eq!(call(&proxy, &tokens[2]).await, 16);
    }
    assert_eq!(issuer.asked(), 2);
    assert_eq!(echo.heard(ORG), ["team-a"]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_reload_waits_for_the_keys_that_its_calls_will_need() {
    let (echo, directory) = (Echo::start().await, directory("jwt-reload"));
    let signers = [Signer::new(Algorithm::ES256, "1"), Signer::new(Algorithm::ES256, "2")];
    let mut issuers = signers.each_ref().map(|signer| Issuer::closed(set(&[signer])));
    issuers.iter_mut().for_each(|issuer| issuer.open(None));
    let config = directory.join("upbeat.yaml");
    let with = |issuer: &Issuer, more: &str| {
        let url = format!("http://{}/keys?of=test", issuer.address);
        let keys = format!("auth: {{ jwt: {{ jwks_url: '{url}', {RULES}{more} }} }}");
        beside_open(echo.address(), &keys) + "reload: { interval: 20ms }\n"
    };
    fs::write(&config, with(&issuers[0], "")).unwrap();
    let proxy = serving(Proxy::follow(&config).await).await;
    let [first, second] = signers.each_ref().map(|signer| signer.sign(&claims(json!({}))));
    eventually("fetched", async || call(&proxy, &first).await == 0).await;
    let applied = r#"upbeat_config_reloads_total{result="applied"}"#;
    write(&config, &with(&issuers[1], ""));
    eventually("applied", async || proxy.metric(applied).await == 1.0).await;
    assert_eq!(call(&proxy, &second).await, 0);
    assert_eq!((call(&proxy, &first).await, issuers[0].asked()), (14, 1));
    // Rules that change leave the keys, which are asked for again where their place changes alone.
    write(&config, &with(&issuers[1], ", tenant_claim: sub"));
    eventually("applied", async || proxy.metric(applied).await == 2.0).await;
    assert_eq!(call(&proxy, &second).await, 0);
    assert_eq!(echo.heard(ORG), ["agent"]);
    assert!(issuers[1].asked() <= 2);
    proxy.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_or_read_leave_the_last_ones() {
    let echo = Echo::start().await;
    let ca = Authority::new("jwks", "ca");
    let (first, second) = (Signer::new(Algorithm::ES256, "1"), Signer::new(Algorithm::ES256, "2"));
    let mut tls = (*ca.server(&ca.pair("127.0.0.1"), false)).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut issuer = Issuer::closed(set(&[&first]));
    issuer.open(Some(Arc::new(tls)));
    let url = format!("https://{}/keys?of=test", issuer.address);
    let jwt = |ca: &Authority| {
        let ca = ca.file();
        let more = format!("ca_file: '{}', refresh_interval: 50ms", ca.display());
        format!("auth: {{ jwt: {{ jwks_url: '{url}', {more}, {RULES} }} }}")
    };
    let proxy = proxy(echo.address(), &jwt(&ca)).await;
    let (old, new) = (first.sign(&claims(json!({}))), second.sign(&claims(json!({}))));
    eventually("fetched", async || call(&proxy, &old).await == 0).await;
    let large = format!("{} {}", set(&[&second]), " ".repeat(300 << 10));
    for (status, text) in
        [(500, set(&[&second])), (302, set(&[&second])), (200, large), (200, "{}".to_owned())]
    {
        issuer.answers(status, text);
        let before = fetches(&proxy, "failed").await;
        eventually("failed", async || fetches(&proxy, "failed").await >= before + 2.0).await;
        assert_eq!(call(&proxy, &old).await, 0);
        // Whether it is good cannot be known now.
        assert_eq!(call(&proxy, &new).await, 14);
    }
    issuer.answers(200, set(&[&second]));
    // However well it was known.
    eventually("fetched", async || call(&proxy, &old).await == 16).await;
    assert_eq!(call(&proxy, &new).await, 0);
    proxy.stop().await;

    // Whoever is not of the right authority is not believed.
    let other = self::proxy(echo.address(), &jwt(&Authority::new("jwks", "other"))).await;
    eventually("failed", async || fetches(&other, "failed").await >= 2.0).await;
    assert_eq!(call(&other, &new).await, 14);
    other.stop().await;
}

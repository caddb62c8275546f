//! Everything that is turned away at the edge, as one table: what its client sees, what the log
//! says, what is counted, and that no endpoint heard of it. `--nocapture` prints it.

mod world;

use tokio::net::TcpStream;

use self::world::World;
use crate::fixture::program::Running;

/// What is turned away.
struct Row {
    what: &'static str,
    /// Its listener has these keys.
    keys: String,
    act: Act,
    /// Words of what the client sees.
    sees: &'static str,
    /// Words of the line that the log has of it.
    logs: [&'static str; 2],
    /// What is counted; `NAME` is that of the listener.
    counts: String,
}

/// What its client does.
enum Act {
    /// A call with this metadata; before it as many that pass.
    Call(usize, &'static [(&'static str, &'static str)]),
    /// The same while another one goes on.
    Beside(&'static [(&'static str, &'static str)]),
    /// A handshake with a certificate of this name, or none, in which this server is expected.
    Tls(&'static str, &'static str),
    /// One in which another authority is trusted.
    Distrust,
    /// One with an ALPN that nobody speaks.
    Alpn,
    /// Bytes from an address of this host, and a GET.
    From(&'static str, &'static [u8]),
    /// One byte, and then nothing.
    Stall,
}

const BEARER: &str = "auth: { bearer: { tokens: [{ token: t0ken-a, tenant: a }, \
    { token: t0ken-b, tenant: b }] } }, tenant: { allow: [a] }";
const TENANTS: &str = "tenant: { allow: [a] }";
const A: (&str, &str) = ("authorization", "Bearer t0ken-a");
const B: (&str, &str) = ("authorization", "Bearer t0ken-b");
const GUESS: (&str, &str) = ("authorization", "Bearer s3cret-guess");
const ORG_A: (&str, &str) = ("x-scope-orgid", "a");
const ORG_B: (&str, &str) = ("x-scope-orgid", "b");

fn call(what: &'static str, keys: &str, act: Act, sees: &'static str, reason: &'static str) -> Row {
    let counts = format!(r#"upbeat_denied_total{{listener="NAME",reason="{reason}"}}"#);
    Row { what, keys: keys.to_owned(), act, sees, logs: ["call denied", reason], counts }
}

fn connection(
    what: &'static str,
    keys: &str,
    act: Act,
    sees: &'static str,
    (reason, why): (&'static str, &'static str),
) -> Row {
    let counts =
        format!(r#"upbeat_connections_refused_total{{listener="NAME",reason="{reason}"}}"#);
    Row { what, keys: keys.to_owned(), act, sees, logs: [reason, why], counts }
}

fn certificates(mtls: &str) -> Vec<Row> {
    let tls = |what, act, sees, why| connection(what, mtls, act, sees, why);
    vec![
        tls(
            "no certificate",
            Act::Tls("", "localhost"),
            "CertificateRequired",
            ("tls_no_certificate", "peer sent no certificates"),
        ),
        tls(
            "certificate of a wrong CA",
            Act::Tls("wrong", "localhost"),
            "UnknownCA",
            ("tls_unknown_ca", "UnknownIssuer"),
        ),
        tls(
            "expired certificate",
            Act::Tls("late", "localhost"),
            "CertificateExpired",
            ("tls_expired", "expired"),
        ),
        tls(
            "revoked certificate",
            Act::Tls("gone", "localhost"),
            "CertificateRevoked",
            ("tls_revoked", "Revoked"),
        ),
        tls(
            "server's SAN not what the client wants",
            Act::Tls("good", "other.test"),
            "not valid for name",
            ("tls_alert", "received fatal alert"),
        ),
        tls(
            "server's CA not whom the client trusts",
            Act::Distrust,
            "UnknownIssuer",
            ("tls_alert", "received fatal alert: UnknownCA"),
        ),
        tls(
            "no protocol in common",
            Act::Alpn,
            "NoApplicationProtocol",
            ("tls_nothing_common", "peer doesn't support any known protocol"),
        ),
        tls(
            "no TLS where it is spoken",
            Act::From("127.0.0.1", b""),
            "connection ",
            ("tls_plain", "no TLS"),
        ),
        tls(
            "handshake that stalls",
            Act::Stall,
            "connection closed",
            ("tls_timeout", "not done in time"),
        ),
    ]
}

fn callers() -> Vec<Row> {
    let told = "limits_per: { tenant: { calls_per_second: 1, burst: 2 } }";
    let many = "limits_per: { address: { max_in_flight: 1 } }";
    vec![
        call("no token", BEARER, Act::Call(0, &[ORG_A]), "16 no credentials", "no_credentials"),
        call(
            "bad token",
            BEARER,
            Act::Call(0, &[GUESS]),
            "16 credentials that are not known",
            "bad_credentials",
        ),
        call(
            "`authorization` twice",
            BEARER,
            Act::Call(0, &[A, A]),
            "16 more than one authorization",
            "many_credentials",
        ),
        call(
            "token of a tenant that is not allowed",
            BEARER,
            Act::Call(0, &[B]),
            "7 not for this tenant",
            "other_tenant",
        ),
        call(
            "tenant that is not allowed",
            TENANTS,
            Act::Call(0, &[ORG_B]),
            "7 not for this tenant",
            "other_tenant",
        ),
        call("no tenant", TENANTS, Act::Call(0, &[]), "16 no x-scope-orgid", "no_tenant"),
        call(
            "`x-scope-orgid` twice",
            TENANTS,
            Act::Call(0, &[ORG_A, ORG_B]),
            "7 more than one x-scope-orgid",
            "many_tenants",
        ),
        call(
            "calls too fast",
            told,
            Act::Call(2, &[ORG_A]),
            "8 too many calls of this tenant, RetryInfo ",
            "tenant_rate",
        ),
        call(
            "bytes too fast",
            "limits_per: { address: { bytes_per_second: 1, bytes_burst: 1 } }",
            Act::Call(1, &[ORG_A]),
            "8 too many bytes of this address, RetryInfo ",
            "address_bytes",
        ),
        call(
            "too many in flight",
            many,
            Act::Beside(&[ORG_A]),
            "8 too many calls of this address at a time, RetryInfo ",
            "address_in_flight",
        ),
    ]
}

fn addresses() -> Vec<Row> {
    let allow = "allow: [127.0.1.0/24]";
    let proxied = "proxy_protocol: required, proxy_protocol_from: [127.0.9.0/24]";
    let header = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n";
    let gone = "connection ";
    vec![
        connection(
            "address outside `allow`",
            allow,
            Act::From("127.0.0.8", b""),
            gone,
            ("address", "not an allowed address"),
        ),
        connection(
            "PROXY header of a peer that is not believed",
            proxied,
            Act::From("127.0.0.8", header),
            gone,
            ("proxy_protocol", "not a balancer of proxy_protocol_from"),
        ),
        connection(
            "believed peer without a PROXY header",
            proxied,
            Act::From("127.0.9.1", b""),
            gone,
            ("proxy_protocol", "no PROXY header"),
        ),
        connection(
            "PROXY header for an address outside `allow`",
            &format!("{proxied}, {allow}"),
            Act::From("127.0.9.1", header),
            gone,
            ("address", "not an allowed address"),
        ),
    ]
}

fn rows(mtls: &str) -> Vec<Row> {
    let mut rows = certificates(mtls);
    rows.push(Row {
        what: "upstream's SAN not what is configured",
        keys: "upstream: wrong".to_owned(),
        act: Act::Call(0, &[ORG_A]),
        sees: "14 ",
        logs: ["endpoint health changed", "not valid for name"],
        counts: r#"upbeat_probes_total{upstream="wrong",endpoint="WRONG",result="failed"}"#.into(),
    });
    rows.extend(callers());
    rows.extend(addresses());
    rows
}

#[tokio::test]
async fn everything_that_is_turned_away_is_told_its_client_the_log_and_the_metrics_alone() {
    let world = World::start(rows).await;
    let mut table = vec![["", "the client sees", "the log says", "counted"].map(str::to_owned)];
    for (index, row) in world.rows.iter().enumerate() {
        let counts = world.counted(index).await;
        let seen = world.act(index).await;
        assert!(seen.contains(row.sees), "{}: {seen}", row.what);
        let line = world.line(index).await;
        let metric = world.counts_on(index, counts).await;
        table.push([row.what.to_owned(), seen, line, metric]);
    }
    let widths = [0, 1, 2].map(|at| table.iter().map(|row| row[at].len()).max().unwrap());
    for [what, seen, line, metric] in &table {
        let [a, b, c] = widths;
        println!("{what:a$} | {seen:b$} | {line:c$} | {metric}");
    }
    println!("endpoints had no connection and no call of any of these {} rows", table.len() - 1);
    let passed = world.rows.iter().map(|row| match row.act {
        Act::Call(before, _) => before,
        Act::Beside(_) => 1,
        _ => 0,
    });
    let passed = passed.sum();
    world.end(passed).await;
}

#[tokio::test]
async fn the_log_says_the_first_of_a_kind_and_counts_the_others() {
    let rows = |_: &str| {
        let guess = Act::Call(0, &[GUESS]);
        vec![call("bad token", BEARER, guess, "16 ", "bad_credentials")]
    };
    let world = World::start(rows).await;
    for _ in 0..30 {
        world.act(0).await;
    }
    assert_eq!(world.counted(0).await, 30.0);
    assert_eq!(world.lines_of("call denied").len(), 1);
    world.end(0).await;
}

#[tokio::test]
async fn a_client_of_ipv4_is_told_as_one_on_a_socket_of_ipv6() {
    let file = format!("{}/refusals-mapped-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let keys = "name: a, address: '[::]:0', allow: ['192.0.2.1'], upstream: u";
    let upstream = "{ endpoints: ['127.0.0.1:1'], probe: { checks: [{ tcp: {} }] } }";
    let more = "admin: { address: '127.0.0.1:0' }\nlog: { format: json }";
    let text = format!("listeners: [{{ {keys} }}]\nupstreams: {{ u: {upstream} }}\n{more}\n");
    std::fs::write(&file, text).unwrap();
    let mut proxy = Running::start(&["run", "--config", &file]);
    let address = proxy.logged("listening").await["address"].as_str().unwrap().to_owned();
    let port = address.rsplit(':').next().unwrap();
    _ = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    assert_eq!(proxy.logged("connection refused").await["client"], "127.0.0.1");
    std::fs::remove_file(file).unwrap();
}

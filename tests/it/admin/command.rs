//! Commands that ask an admin server which does not answer everyone.

use std::{fs, net::SocketAddr};

use super::access::{directory, tls, yaml};
use crate::fixture::{
    certs::Authority,
    program::{Ended, command, upbeat},
    proxy::Proxy,
    refusing,
};

/// Runs a command that has a token in its environment.
async fn with_token(token: &str, arguments: &[&str]) -> Ended {
    let output = command(arguments).env("UPBEAT_ADMIN_TOKEN", token).output().await.unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn said(ended: &Ended) -> (Option<i32>, &str) {
    (ended.code, &ended.stderr)
}

fn status(admin: SocketAddr) -> [String; 3] {
    ["status".to_owned(), "--admin".to_owned(), admin.to_string()]
}

#[tokio::test]
async fn status_and_check_show_a_token_from_the_environment_or_a_file() {
    let directory = directory("command");
    let path = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let config = yaml(refusing(), "tokens: [t0ken]");
    let config_file = path("upbeat.yaml", &config);
    let (good, wrong) = (path("good", "t0ken\n"), path("wrong", "other\n"));
    let (empty, lines) = (path("empty", "\n"), path("lines", "t0ken\nother\n"));
    let proxy = Proxy::start(&config).await;
    let admin = proxy.admin().to_string();
    let against = ["check", "--config", &config_file, "--against-running", "--admin", &admin];
    for (arguments, shows) in [
        (&["status", "--admin", &admin][..], "SERVICE"),
        (&["status", "--admin", &admin, "--simulate", "down=otlp"], "LISTENER"),
        (&against, "nothing would change\n"),
    ] {
        let from_file = upbeat(&[arguments, &["--token-file", &good]].concat()).await;
        assert_eq!(said(&from_file), (Some(0), ""));
        let from_environment = with_token("t0ken", arguments).await;
        assert_eq!(said(&from_environment), (Some(0), ""));
        assert!(from_file.stdout.contains(shows), "{}", from_file.stdout);
        assert!(from_environment.stdout.contains(shows), "{}", from_environment.stdout);

        let words = format!(
            "upbeat: {admin} answered 401 Unauthorized: \
             --token-file FILE, or the token in UPBEAT_ADMIN_TOKEN\n"
        );
        assert_eq!(said(&upbeat(arguments).await), (Some(1), &*words));
        // The file is the one that was typed.
        let both = with_token("t0ken", &[arguments, &["--token-file", &wrong]].concat()).await;
        assert_eq!(said(&both), (Some(1), &*words));
    }
    for (file, words) in [
        (&empty, "upbeat: the file of the token is empty\n"),
        (&lines, "upbeat: a token is one line of visible ASCII\n"),
    ] {
        let ended = upbeat(&["status", "--admin", &admin, "--token-file", file]).await;
        assert_eq!(said(&ended), (Some(1), words));
    }
    let alone = upbeat(&["check", "--config", &config_file, "--token-file", &good]).await;
    assert_eq!(alone.code, Some(2), "{}", alone.stderr);
    proxy.stop().await;
}

#[tokio::test]
async fn status_and_probe_show_a_certificate() {
    let ca = Authority::new("admin-command", "ca");
    let (server, own) = (ca.pair("localhost"), ca.issue("client", 2, false));
    let client_ca = format!("client_ca_file: {:?}", ca.file());
    let proxy = Proxy::start(&yaml(refusing(), &tls(&server, &client_ca))).await;
    let [file, cert, key] =
        [&ca.file(), &own.cert, &own.key].map(|it| it.to_str().unwrap().to_owned());
    let trust = ["--tls", "--ca", &file, "--server-name", "localhost"];
    let show = ["--cert", &cert, "--key", &key];
    let status = status(proxy.admin());
    let status: Vec<&str> = status.iter().map(String::as_str).collect();

    let ended = upbeat(&[&status[..], &trust, &show].concat()).await;
    assert_eq!(said(&ended), (Some(0), ""));
    assert!(ended.stdout.contains("SERVICE"), "{}", ended.stdout);
    let admin = proxy.admin().to_string();
    let live = [&["probe", &admin, "--http", "/livez"][..], &trust, &show].concat();
    assert_eq!(said(&upbeat(&live).await), (Some(0), ""));

    let none = upbeat(&[&status[..], &trust].concat()).await;
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains(&admin), "{}", none.stderr);
    let cleartext = upbeat(&status).await;
    assert_eq!(cleartext.code, Some(1));
    let words = format!("upbeat: {admin} does not answer; does it speak TLS (--tls)?");
    assert!(cleartext.stderr.starts_with(&words), "{}", cleartext.stderr);
    let name = upbeat(&[&status[..], &["--tls", "--ca", &file], &show].concat()).await;
    assert_eq!(name.code, Some(1));
    let words = format!("upbeat: {admin}: no TLS connection: ");
    assert!(name.stderr.starts_with(&words), "{}", name.stderr);
    for half in [&["--tls", "--cert", &cert][..], &["--tls", "--key", &key], &["--ca", &file]] {
        assert_eq!(upbeat(&[&status[..], half].concat()).await.code, Some(2), "{half:?}");
    }
    proxy.stop().await;
}

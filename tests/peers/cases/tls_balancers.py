"""Load balancers that speak TLS to the proxy: GCP's way to a backend of HTTP2 is one."""

from pathlib import Path
from typing import Any

import fronts
from backends import Backend, channel, export
from cases.balancers import code_of, envoy_states, haproxy, takes_out_and_back
from certificates import Authority, Pair, secured
from suite import CHECK, TRACES, World, case, configuration, equal

# GCP checks a backend of HTTP2 by ALPN h2, and does not look at its certificate.
BLIND: dict[str, Any] = {}


def transport(validation: dict[str, Any], own: Pair | None = None) -> dict[str, Any]:
    """How Envoy speaks TLS: an option of a cluster."""
    context: dict[str, Any] = {"alpn_protocols": ["h2"], "validation_context": validation}
    if own:
        names = {"certificate_chain": own.cert, "private_key": own.key}
        context["tls_certificates"] = [
            {name: {"filename": str(file)} for name, file in names.items()}
        ]
    name = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    typed = {"@type": name, "sni": "localhost", "common_tls_context": context}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": typed}}


def checked(authority: Authority) -> dict[str, Any]:
    """A validation of certificates as it should be."""
    name = {"san_type": "DNS", "matcher": {"exact": "localhost"}}
    trusted = {"filename": str(authority.file)}
    return {"trusted_ca": trusted, "match_typed_subject_alt_names": [name]}


@case("Envoy, checking over TLS as GCP does, by GET over HTTP/2 and by gRPC, takes the proxy out")
def envoy_blind(world: World) -> None:
    # Of nobody that anybody trusts, and its time is over.
    shown = Authority(world).pair("nobody.test", expired=True)
    get = {"path": "/healthz", "codec_client_type": "HTTP2"}
    checks: dict[str, dict[str, Any]] = {
        "http2": {"http_health_check": get},
        "http2 by its own path": {"http_health_check": {**get, "path": CHECK}},
        "grpc": {"grpc_health_check": {}},
        "a service": {"grpc_health_check": {"service_name": TRACES}},
    }
    takes_out_and_back(
        world,
        lambda world, proxy: envoy_states(world, proxy, checks, **transport(BLIND)),
        lambda whole: secured(whole, shown),
    )


@case("Envoy, checking over mTLS and looking at the certificate, takes the proxy out and back")
def envoy_mutual(world: World) -> None:
    ca = Authority(world)
    checks: dict[str, dict[str, Any]] = {
        "http2": {"http_health_check": {"path": "/healthz", "codec_client_type": "HTTP2"}},
        "grpc": {"grpc_health_check": {}},
    }
    mutual = transport(checked(ca), ca.pair("envoy"))
    takes_out_and_back(
        world,
        lambda world, proxy: envoy_states(world, proxy, checks, **mutual),
        lambda whole: secured(whole, ca.pair("localhost"), client_ca_file=str(ca.file)),
    )


@case("HAProxy, checking over TLS by GET over HTTP/1.1 and 2, takes the proxy out and back")
def haproxy_checks(world: World) -> None:
    ca = Authority(world)
    for protocol in ("http/1.1", "h2"):
        options = f"{haproxy_tls(world, ca)} alpn {protocol} check-alpn {protocol}"
        takes_out_and_back(
            world,
            lambda world, proxy, options=options: haproxy(world, proxy, options),
            lambda whole: secured(whole, ca.pair("localhost"), client_ca_file=str(ca.file)),
        )


def haproxy_tls(world: World, ca: Authority) -> str:
    """How HAProxy speaks mTLS: options of a server."""
    key, cert = ca.pair("haproxy").read()
    both = world.file("haproxy.pem", cert + key)
    name = "sni str(localhost) check-sni localhost verifyhost localhost"
    return f"ssl verify required ca-file {ca.file} crt {both} {name}"


@case("exports pass through Envoy, HAProxy, nginx and Caddy that speak mTLS to the proxy")
def in_front(world: World) -> None:
    ca = Authority(world)
    backend = Backend(world)
    own, shown = ca.pair("balancer"), ca.pair("localhost")
    whole = secured(configuration([backend.address]), shown, client_ca_file=str(ca.file))
    proxy = world.proxy(whole).wait_until("SERVING")
    addresses = [proxy["otlp"]]
    caddy_tls = {
        "server_name": "localhost",
        "ca": {"provider": "file", "pem_files": [str(ca.file)]},
        "client_certificate_file": str(own.cert),
        "client_certificate_key_file": str(own.key),
    }
    # With less panic it answers by itself when the proxy says NOT_SERVING.
    envoy = {"panic": 100, **transport(checked(ca), own)}
    addressed = {
        "Envoy": fronts.envoy_front(world, addresses, {"grpc_health_check": {}}, **envoy),
        "HAProxy": fronts.haproxy(
            world, addresses, "", f"{haproxy_tls(world, ca)} alpn h2"
        ),
        "nginx": fronts.nginx(world, addresses, nginx_tls(ca.file, own)),
        "Caddy": fronts.caddy(world, addresses, checked=False, tls=caddy_tls),
    }
    clients = {name: channel(world.stack, it.address) for name, it in addressed.items()}
    for name, client in clients.items():
        backend.spans.clear()
        for number in range(100):
            export(client, span=f"{name} {number}")
        equal(backend.spans, [f"{name} {number}" for number in range(100)])
    backend.stop()
    proxy.wait_until("NOT_SERVING", TRACES)
    for name, client in clients.items():
        equal(code_of(client, name), "UNAVAILABLE: no healthy endpoint in upstream otlp", name)


def nginx_tls(trusted: Path, own: Pair) -> str:
    return f"""
            grpc_ssl_verify on;
            grpc_ssl_trusted_certificate {trusted};
            grpc_ssl_server_name on;
            grpc_ssl_name localhost;
            grpc_ssl_certificate {own.cert};
            grpc_ssl_certificate_key {own.key};
"""

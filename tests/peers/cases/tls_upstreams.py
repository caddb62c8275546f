"""Backends of grpcio's that speak TLS: what they show and what they want of the proxy."""

from pathlib import Path
from typing import Any

from backends import Backend, channel, export, export_code, unused_port
from certificates import SPIFFE, Authority
from suite import BIN, Proxy, World, case, configuration, contains, equal, eventually


def calling(world: World, address: str, tls: dict[str, Any]) -> Proxy:
    """A proxy that speaks TLS to a backend, and probes it by `otlp` and `grpc` under TLS."""
    whole = configuration([address])
    for upstream in whole["upstreams"].values():
        upstream["tls"] = tls
    return world.proxy(whole)


def passes(world: World, backend: Backend, tls: dict[str, Any]) -> None:
    proxy = calling(world, backend.address, tls).wait_until("SERVING")
    backend.spans.clear()
    for listener in ("otlp", "tempo"):
        export(channel(world.stack, proxy[listener]), span=listener)
    equal(backend.spans, ["otlp", "tempo"])


def fails(world: World, address: str, tls: dict[str, Any], words: str) -> None:
    """Never SERVING, for a reason with these words; calls are told so."""
    proxy = calling(world, address, tls)
    for upstream in ("otlp", "tempo"):
        eventually(
            f"{words} in {proxy.reason(upstream)}",
            lambda upstream=upstream: words in proxy.reason(upstream),
        )
    equal(export_code(channel(world.stack, proxy["otlp"]), call="refused"), "UNAVAILABLE")
    equal(proxy.serving(), "NOT_SERVING")


@case("a grpcio server with TLS is called and probed where its certificate is checked and fits")
def server(world: World) -> None:
    ca, other = Authority(world), Authority(world, "other")
    trust = {"ca_file": str(ca.file)}
    by_address = Backend(world, credentials=ca.server(ca.pair("127.0.0.1")))
    by_name = Backend(world, credentials=ca.server(ca.pair("tempo.test")))
    by_uri = Backend(world, credentials=ca.server(ca.pair(SPIFFE)))
    late = Backend(world, credentials=ca.server(ca.pair("127.0.0.1", expired=True)))
    wrong = f"{SPIFFE}/other"
    passes(world, by_address, trust)
    passes(world, by_name, {**trust, "server_name": "tempo.test"})
    passes(world, by_uri, {**trust, "expect_san": [SPIFFE]})
    fails(world, by_address.address, {"ca_file": str(other.file)}, "UnknownIssuer")
    fails(world, by_address.address, {}, "UnknownIssuer")
    fails(world, by_name.address, trust, "certificate not valid for name")
    fails(world, by_name.address, {**trust, "server_name": "other.test"}, "not valid for name")
    fails(world, by_uri.address, {**trust, "expect_san": [wrong]}, "NotValidForName")
    fails(world, late.address, trust, "expired")
    for backend in (by_address, by_name, by_uri, late):
        equal("refused" in backend.calls, False, "a call to who is not trusted was sent")


@case("a grpcio server that wants certificates is called and probed with the right one alone")
def mutual(world: World) -> None:
    ca, other = Authority(world), Authority(world, "other")
    trust = {"ca_file": str(ca.file)}
    backend = Backend(world, credentials=ca.server(ca.pair("127.0.0.1"), clients=True))
    for own in (ca.pair("upbeat"), ca.pair(SPIFFE)):
        passes(world, backend, {**trust, **own.files()})
    # It does not say why it closes.
    for own in (None, other.pair("upbeat"), ca.pair("upbeat", expired=True)):
        files = own.files() if own else {}
        fails(world, backend.address, {**trust, **files}, "connection lost")
    equal("refused" in backend.calls, False, "a call was sent")


@case("a grpc-go server that wants certificates is called and probed with the right one alone")
def go(world: World) -> None:
    ca, other = Authority(world), Authority(world, "other")
    own, trust = ca.pair("127.0.0.1"), {"ca_file": str(ca.file)}
    address, journal = f"127.0.0.1:{unused_port()}", world.file("journal", "")
    files = (own.cert, own.key, ca.file)
    world.start(BIN / "grpc-go", "serve", address.split(":")[1], journal, "0", *files)
    proxy = calling(world, address, {**trust, **ca.pair(SPIFFE).files()}).wait_until("SERVING")
    export(channel(world.stack, proxy["otlp"]), call="passed")
    for own, alert in (
        (None, "CertificateRequired"),
        (other.pair("upbeat"), "UnknownCA"),
        (ca.pair("upbeat", expired=True), "CertificateExpired"),
    ):
        files = own.files() if own else {}
        fails(world, address, {**trust, **files}, f"received fatal alert: {alert}")
    equal(journal.read_text().split(), ["+passed", "-passed"])


@case("upbeat probe asks a grpcio server with TLS, and says why where its certificate does not fit")
def probe(world: World) -> None:
    ca, other = Authority(world), Authority(world, "other")
    backend = Backend(world, credentials=ca.server(ca.pair("tempo.test")))

    def asks(trusted: Path, name: str) -> tuple[int, str]:
        options = ("--tls", "--ca", str(trusted), "--server-name", name)
        done = world.upbeat("probe", backend.address, *options)
        return done.code, done.out + done.err

    equal(asks(ca.file, "tempo.test"), (0, "SERVING\n"))
    for arguments, words in (
        ((other.file, "tempo.test"), "UnknownIssuer"),
        ((ca.file, "other.test"), "not valid for name"),
    ):
        code, text = asks(*arguments)
        equal(code, 2, text)
        contains(text, words)

"""Clients under TLS, with certificates of their own and without: each calls through the proxy where
it shows the right one and trusts the proxy's, else it is refused before a backend is touched."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple
from unittest import mock

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from backends import Backend, channel, export, protoset
from certificates import SPIFFE, Authority, Pair, secured
from suite import (
    BIN,
    TRACES,
    Process,
    World,
    case,
    configuration,
    contains,
    equal,
)


class Call(NamedTuple):
    """One of one client, on a connection of its own."""

    # By which the backend knows it.
    name: str
    address: str
    trusted: Authority
    own: Pair | None = None
    # What the proxy's certificate must be for.
    server: str = "localhost"


class Said(NamedTuple):
    passed: bool
    text: str


# Begins a call; what is returned waits for its end.
Start = Callable[[World, Call], Callable[[], Said]]
# The calls that must fail.
UNTRUSTED, MISNAMED, ANONYMOUS, FOREIGN, EXPIRED = FAILING = (
    "the proxy's certificate is of another authority",
    "the proxy's certificate has another name",
    "no certificate",
    "a certificate of another authority",
    "a certificate whose time is over",
)
REFUSED = (ANONYMOUS, FOREIGN, EXPIRED)


def proves(world: World, start: Start, says: dict[str, str], forwards: bool = True) -> None:
    """Holds a client to it, and to the words that it has for each call that fails."""
    ca, other = Authority(world), Authority(world, "other")
    backend = Backend(world)
    shown = ca.pair("localhost", "127.0.0.1")
    plain = world.proxy(secured(configuration([backend.address]), shown))
    wants = {"client_ca_file": str(ca.file)}
    mutual = world.proxy(secured(configuration([backend.address]), shown, **wants))
    plain, mtls = (proxy.wait_until("SERVING")["otlp"] for proxy in (plain, mutual))
    passing = [
        Call("TLS", plain, ca),
        Call("mTLS", mtls, ca, ca.pair("collector")),
        Call("mTLS by a SPIFFE ID", mtls, ca, ca.pair(SPIFFE)),
        Call("a certificate that nobody asks for", plain, ca, other.pair("collector")),
    ]
    failing = [
        Call(UNTRUSTED, plain, other),
        Call(MISNAMED, plain, ca, server="other.test"),
        Call(ANONYMOUS, mtls, ca),
        Call(FOREIGN, mtls, ca, other.pair("collector")),
        Call(EXPIRED, mtls, ca, ca.pair("collector", expired=True)),
    ]
    failing = [call for call in failing if call.name in says]
    # All at once, for some take a second to give up.
    for call, end in [(call, start(world, call)) for call in (*passing, *failing)]:
        passed, text = end()
        equal(passed, call in passing, f"{call.name}: {text}")
        contains(text, says.get(call.name, ""))
    called = {call.name for call in passing} if forwards else set()
    equal(set(backend.calls), called, "calls that the backend saw")


def ended(process: Process, passed: Callable[[int, str], bool]) -> Callable[[], Said]:
    def end() -> Said:
        code = process.wait()
        text = process.text()
        return Said(passed(code, text), f"{text}, exit code {code}")

    return end


def own_files(call: Call, cert: str, key: str) -> tuple:
    return (cert, call.own.cert, key, call.own.key) if call.own else ()


@case("grpcurl calls under TLS and mTLS, and says why where a certificate does not fit")
def grpcurl(world: World) -> None:
    shape = protoset(world)

    def start(world: World, call: Call) -> Callable[[], Said]:
        process = world.start(
            *(BIN / "grpcurl", "-cacert", call.trusted.file, *own_files(call, "-cert", "-key")),
            *("-authority", call.server, "-max-time", "10", "-protoset", shape, "-d", "{}"),
            *("-H", f"x-call: {call.name}", call.address, f"{TRACES}/Export"),
        )
        return ended(process, lambda code, _: code == 0)

    said = {
        UNTRUSTED: "certificate signed by unknown authority",
        MISNAMED: "certificate is valid for localhost, not other.test",
        ANONYMOUS: "remote error: tls: certificate required",
        # Go keeps back a certificate that is of none of the authorities that it is told of.
        FOREIGN: "remote error: tls: certificate required",
        EXPIRED: "remote error: tls: expired certificate",
    }
    proves(world, start, said)


@case("ghz calls under TLS and mTLS, and where a certificate does not fit all of its calls get 14")
def ghz(world: World) -> None:
    shape = protoset(world)

    def start(world: World, call: Call) -> Callable[[], Said]:
        process = world.start(
            *(BIN / "ghz", "--cacert", call.trusted.file, *own_files(call, "--cert", "--key")),
            *("--cname", call.server, "--protoset", shape, "--call", f"{TRACES}/Export"),
            *("-m", f'{{"x-call": "{call.name}"}}', "-d", "{}", "-n", "20", "-c", "2"),
            call.address,
        )
        return ended(process, lambda _, text: "[OK]   20 responses" in text)

    authentication = "authentication handshake failed: tls: failed to verify certificate"
    said = {UNTRUSTED: authentication, MISNAMED: authentication}
    # Whether it reads the alert before it writes is chance.
    proves(world, start, said | dict.fromkeys(REFUSED, "[Unavailable]   20 responses"))


@case("telemetrygen exports under TLS and mTLS, and says why where a certificate does not fit")
def telemetrygen(world: World) -> None:
    def start(world: World, call: Call) -> Callable[[], Said]:
        own = own_files(call, "--client-cert", "--client-key")
        process = world.start(
            *(BIN / "telemetrygen", "traces", "--ca-cert", call.trusted.file, *own),
            *(("--mtls",) if own else ()),
            *("--otlp-endpoint", call.address, "--otlp-header", f'x-call="{call.name}"'),
            *("--traces", "1", "--rate", "0", "--timeout", "2s"),
        )
        # Its exit code is 0 in any case.
        return ended(process, lambda _, text: "traces export:" not in text)

    said = {
        UNTRUSTED: "certificate signed by unknown authority",
        ANONYMOUS: "remote error: tls: certificate required",
        FOREIGN: "remote error: tls: certificate required",
        EXPIRED: "remote error: tls: expired certificate",
    }
    proves(world, start, said)


@case("grpc_health_probe -tls checks under TLS and mTLS; its exit code is 2 without the right one")
def grpc_health_probe(world: World) -> None:
    def start(world: World, call: Call) -> Callable[[], Said]:
        process = world.start(
            *(BIN / "grpc-health-probe", "-addr", call.address, "-connect-timeout", "2s"),
            *("-tls", "-tls-ca-cert", call.trusted.file, "-tls-server-name", call.server),
            *own_files(call, "-tls-client-cert", "-tls-client-key"),
        )
        return ended(process, lambda code, text: code == 0 and "status: SERVING" in text)

    words = "timeout: failed to connect service"
    said = dict.fromkeys(FAILING, words)
    proves(world, start, said, forwards=False)


@case("curl calls by HTTP/2 under TLS 1.2 and 1.3, with a certificate and without")
def curl(world: World) -> None:
    frame = world.file("frame", bytes(5))

    def by(version: str) -> Start:
        def start(world: World, call: Call) -> Callable[[], Said]:
            host, port = call.address.split(":")
            process = world.start(
                *("curl", "-sS", "--http2", "--tlsv1.2", "--tls-max", version),
                *("--cacert", call.trusted.file, *own_files(call, "--cert", "--key")),
                *("--connect-to", f"::{host}:{port}", "-w", " %{http_version} %{http_code}"),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                *("-H", f"x-call: {call.name}", "--data-binary", f"@{frame}"),
                f"https://{call.server}:{port}/{TRACES}/Export",
            )
            return ended(process, lambda code, text: code == 0 and text.endswith(" 2 200"))

        return start

    said = {UNTRUSTED: "exit code 60", MISNAMED: "exit code 60"}
    said |= {ANONYMOUS: "alert certificate required", FOREIGN: "alert unknown ca"}
    proves(world, by("1.3"), {**said, EXPIRED: "alert certificate expired"})
    # What it makes of the alert within a handshake.
    proves(world, by("1.2"), {**said, EXPIRED: "SSL certificate verification failed"})


@case("grpcio calls under TLS and mTLS; where a certificate does not fit it says UNAVAILABLE")
def grpcio(world: World) -> None:
    def start(_world: World, call: Call) -> Callable[[], Said]:
        def end() -> Said:
            with ExitStack() as stack:
                credentials = call.trusted.client(call.own)
                try:
                    on = channel(stack, call.address, credentials, call.server)
                    export(on, call=call.name)
                except grpc.RpcError as error:
                    return Said(False, f"{error.code().name}: {error.details()}")
            return Said(True, "")

        return end

    said = {
        UNTRUSTED: "UNAVAILABLE: failed to connect to all addresses; last error: UNKNOWN: ipv4:",
        MISNAMED: "UNAVAILABLE: failed to connect to all addresses; last error: UNKNOWN: ipv4:",
    }
    proves(world, start, said | dict.fromkeys(REFUSED, "UNAVAILABLE: failed to connect"))


@case("the OpenTelemetry SDK exports with the certificates that its environment names")
def sdk(world: World) -> None:
    pool = world.stack.enter_context(ThreadPoolExecutor(8))
    span = TracerProvider().get_tracer("peers").start_span("span")
    span.end()

    def start(_world: World, call: Call) -> Callable[[], Said]:
        named = {"OTEL_EXPORTER_OTLP_CERTIFICATE": call.trusted.file}
        if call.own:
            named["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = call.own.cert
            named["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = call.own.key
        named["OTEL_EXPORTER_OTLP_HEADERS"] = f"x-call={call.name}"
        named["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"https://{call.address}"
        # Within this time it tries again.
        named["OTEL_EXPORTER_OTLP_TIMEOUT"] = "2"
        with mock.patch.dict(os.environ, {name: str(it) for name, it in named.items()}):
            exporter = OTLPSpanExporter()
        exporting = pool.submit(exporter.export, [span])
        return lambda: told(exporter, exporting.result())

    def told(exporter: SpanExporter, result: SpanExportResult) -> Said:
        exporter.shutdown()
        return Said(result is SpanExportResult.SUCCESS, result.name)

    proves(world, start, dict.fromkeys((UNTRUSTED, *REFUSED), "FAILURE"))

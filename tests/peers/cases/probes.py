"""Each kind of probe against real servers, and what is said of those that fail."""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc

import backends
from backends import NOT_SERVING, SERVING, Backend, pages
from suite import Proxy, World, case, configuration, contains, equal, eventually


def probed(world: World, address: str, **check: Any) -> Proxy:
    """A proxy that probes one endpoint, at `upstreams.otlp`, by one check."""
    sections = configuration([address])
    sections["upstreams"] = {"otlp": sections["upstreams"]["otlp"]}
    sections["upstreams"]["otlp"]["probe"]["checks"] = [check]
    sections["listeners"] = [sections["listeners"][0]]
    sections["health"] = {}
    return world.proxy(sections)


def fails(proxy: Proxy, *words: str) -> None:
    """Becomes NOT_SERVING for a reason with these words, which `upbeat status` shows."""
    proxy.wait_until("NOT_SERVING")
    eventually(f"{words} in {proxy.reason()!r}", lambda: all(it in proxy.reason() for it in words))


def shown(world: World, proxy: Proxy) -> str:
    done = world.upbeat("status", "--admin", proxy.admin)
    equal(done.code, 0, done.err)
    return done.out


@case("tcp probe: healthy while a server listens, unhealthy when it is gone, healthy again")
def tcp(world: World) -> None:
    backend = Backend(world)
    proxy = probed(world, backend.address, tcp={}).wait_until("SERVING")
    backend.stop()
    fails(proxy, "tcp", "connection refused")
    contains(shown(world, proxy), "NOT_SERVING", f"otlp/{backend.address}", "connection refused")
    backend.start()
    proxy.wait_until("SERVING")


@case("http probe: healthy by 200 on its path and port, unhealthy by 503, whose words are shown")
def http(world: World) -> None:
    backend, server = Backend(world), pages(world)
    check = {"port": server.server_port, "path": "/ready?verbose"}
    proxy = probed(world, backend.address, http=check).wait_until("SERVING")
    equal(set(server.paths), {"/ready?verbose"})
    for status, words in ((503, b"ingester not ready"), (302, b""), (204, b"")):
        server.answer = (status, words)
        fails(proxy, "http", str(status), words.decode())
        contains(shown(world, proxy), str(status), words.decode())
        server.answer = (200, b"ready")
        proxy.wait_until("SERVING")


@case("grpc probe: follows grpcio's own health service, for the whole and for one service")
def grpc_health(world: World) -> None:
    servicer = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(4))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    world.stack.callback(lambda: server.stop(0).wait())
    for service in ("", "tempopb.Pusher"):
        servicer.set(service, SERVING)
        proxy = probed(world, address, grpc={"service": service}).wait_until("SERVING")
        servicer.set(service, NOT_SERVING)
        fails(proxy, "grpc: NOT_SERVING")
        servicer.set(service, SERVING)
        proxy.wait_until("SERVING")
    proxy = probed(world, address, grpc={"service": "misspelt"})
    fails(proxy, "set upstreams.otlp.probe.checks[0].grpc.service")


@case("grpc probe: 2 'no org id' is shown by upbeat status with the key to set, which cures it")
def tenant(world: World) -> None:
    backend = Backend(world, tenant=True)
    proxy = probed(world, backend.address, grpc={})
    key = "upstreams.otlp.probe.checks[0].grpc.metadata.x-scope-orgid"
    fails(proxy, "no org id", key)
    contains(shown(world, proxy), "no org id", f"set {key}")
    cured = {"metadata": {"x-scope-orgid": "health"}}
    probed(world, backend.address, grpc=cured).wait_until("SERVING")
    equal(world.upbeat("probe", backend.address).code, 3)
    equal(world.upbeat("probe", backend.address, "--metadata", "x-scope-orgid=health").code, 0)


@case("otlp probe: healthy by an empty Export, which adds no span; 12 is shown with the key to set")
def otlp(world: World) -> None:
    receiver = Backend(world, services=("traces",))
    proxy = probed(world, receiver.address, otlp={}).wait_until("SERVING")
    equal(receiver.spans, [])
    receiver.stop()
    fails(proxy, "otlp", "connection refused")
    receiver.start()
    proxy.wait_until("SERVING")
    other = Backend(world, services=("health",))
    fails(probed(world, other.address, otlp={}), "set upstreams.otlp.probe.checks[0].otlp.port")
    fails(probed(world, receiver.address, grpc={}), "no health service there")
    # The check that fits, on the other's port.
    port = int(receiver.address.rsplit(":", 1)[1])
    probed(world, other.address, otlp={"port": port}).wait_until("SERVING")


@case("a server that hangs fails every probe but tcp, and is healthy when it goes on")
def hanging(world: World) -> None:
    lone = world.start(sys.executable, Path(backends.__file__).parent / "lone_backend.py")
    address = eventually("the backend listens", lambda: lone.text().strip())
    proxies = {kind: probed(world, address, **{kind: {}}) for kind in ("otlp", "grpc", "tcp")}
    for proxy in proxies.values():
        proxy.wait_until("SERVING")
    lone.signal(signal.SIGSTOP)
    try:
        for kind in ("otlp", "grpc"):
            fails(proxies[kind], f"{kind}: no answer within 250ms")
        equal(proxies["tcp"].serving(), "SERVING")
    finally:
        lone.signal(signal.SIGCONT)
    for proxy in proxies.values():
        proxy.wait_until("SERVING")


@case("upbeat probe reads real servers: grpcio's health, an OTLP receiver, a web server")
def upbeat_probe(world: World) -> None:
    backend, server = Backend(world), pages(world)
    web = f"127.0.0.1:{server.server_port}"
    for code, *arguments in (
        (0, backend.address),
        (0, backend.address, "--otlp"),
        (0, web, "--http", "/ready"),
        (3, web),
        (3, backend.address, "--http", "/ready"),
    ):
        equal(world.upbeat("probe", *arguments).code, code, " ".join(arguments))
    backend.health = NOT_SERVING
    server.answer = (503, b"not ready")
    equal(world.upbeat("probe", backend.address).code, 4)
    equal(world.upbeat("probe", web, "--http", "/ready").code, 4)

"""Load balancers in front of the proxy: they follow its health, and carry calls."""

import csv
import signal
import socket
from collections.abc import Callable
from typing import Any

import grpc

from backends import Backend, channel, export
from fronts import (
    ask,
    cluster,
    envoy_front,
    haproxy_front,
    nginx_front,
    run_envoy,
    run_haproxy,
)
from suite import CHECK, TRACES, Proxy, World, case, configuration, equal, eventually

# What a balancer makes of each address of the proxy that it checks: "healthy", "unhealthy", or
# words of its own for what is between.
States = Callable[[], set[str]]


def takes_out_and_back(world: World, start: Callable[[World, Proxy], States]) -> None:
    """Holds a balancer to the backend's life, and to the end of the proxy's."""
    backend = Backend(world)
    drain = {"delay": "5s", "timeout": "5s"}
    proxy = world.proxy(configuration([backend.address], drain=drain)).wait_until("SERVING")
    states = start(world, proxy)
    sees(states, "healthy")
    backend.stop()
    sees(states, "unhealthy")
    backend.start()
    sees(states, "healthy")
    proxy.signal(signal.SIGTERM)
    sees(states, "unhealthy")
    equal("not accepting" in proxy.text(), False, "the drain's delay is over")
    # The rest of the delay is of no interest.
    proxy.expected_exit = None


def sees(states: States, wanted: str) -> None:
    eventually(f"all that is checked is {wanted}", lambda: states() == {wanted})


def haproxy(world: World, proxy: Proxy, check: str) -> States:
    """HAProxy, its servers the proxy's listeners, checked with the server options `check`."""
    control = world.directory / "haproxy.sock"
    often = "check inter 100ms fall 2 rise 2"
    servers = [f"server {name} {at} {often} {check}" for name, at in proxy.addresses.items()]
    lines = "\n    ".join(servers)
    process = run_haproxy(
        world,
        f"""
global
    stats socket {control}
backend upbeat
    option httpchk GET {CHECK}
    {lines}
""",
    )
    eventually("HAProxy runs", lambda: control.exists() or not process.is_running())
    words = {("UP", "L7OK"): "healthy", ("DOWN", "L7STS"): "unhealthy"}

    def states() -> set[str]:
        with socket.socket(socket.AF_UNIX) as stats:
            stats.settimeout(5)
            stats.connect(str(control))
            stats.sendall(b"show stat\n")
            rows = csv.DictReader(stats.makefile().read().splitlines())
        rows = [row for row in rows if row["svname"] in proxy.addresses]
        seen = [(row["status"], row["check_status"]) for row in rows]
        equal(len(seen), len(proxy.addresses), "checked servers")
        return {words.get(it, str(it)) for it in seen}

    return states


@case("HAProxy, checking by GET over HTTP/1.1, takes the proxy out and back")
def haproxy_http1(world: World) -> None:
    takes_out_and_back(world, lambda world, proxy: haproxy(world, proxy, ""))


@case("HAProxy, checking by GET over HTTP/2, takes the proxy out and back")
def haproxy_http2(world: World) -> None:
    takes_out_and_back(world, lambda world, proxy: haproxy(world, proxy, "proto h2"))


def envoy_states(world: World, proxy: Proxy, checks: dict[str, dict[str, Any]]) -> States:
    """Envoy with one cluster for each check, each of all of the proxy's listeners."""
    addresses = list(proxy.addresses.values())
    admin = run_envoy(world, [cluster(name, addresses, it) for name, it in checks.items()])

    def states() -> set[str]:
        seen = []
        for it in ask(admin, "clusters").get("cluster_statuses", []):
            for host in it["host_statuses"]:
                failed = host["health_status"].get("failed_active_health_check", False)
                seen.append("unhealthy" if failed else "healthy")
        equal(len(seen), len(checks) * len(addresses), "checked hosts")
        return set(seen)

    return states


@case("Envoy, checking by grpc_health_check, takes the proxy out and back")
def envoy_grpc(world: World) -> None:
    checks = {
        "whole": {"grpc_health_check": {}},
        "service": {"grpc_health_check": {"service_name": TRACES}},
    }
    takes_out_and_back(world, lambda world, proxy: envoy_states(world, proxy, checks))


@case("Envoy, checking by http_health_check over HTTP/1.1 and 2, takes the proxy out and back")
def envoy_http(world: World) -> None:
    checks = {
        version: {"http_health_check": {"path": path, "codec_client_type": version}}
        for version, path in (("HTTP1", CHECK), ("HTTP2", "/readyz"))
    }
    takes_out_and_back(world, lambda world, proxy: envoy_states(world, proxy, checks))


@case("exports pass through HAProxy, Envoy and nginx in front of the proxy, and so do refusals")
def in_front(world: World) -> None:
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
    starts = (haproxy_front, envoy_front, nginx_front)
    clients = {it.__name__: channel(world.stack, it(world, proxy)) for it in starts}
    for name, client in clients.items():
        eventually(f"{name} carries an export", lambda: code_of(client, name) == "OK", within=5)
        backend.spans.clear()
        for number in range(100):
            export(client, span=f"{name} {number}")
        equal(backend.spans, [f"{name} {number}" for number in range(100)])
    backend.stop()
    proxy.wait_until("NOT_SERVING", TRACES)
    for name, client in clients.items():
        equal(code_of(client, name), "UNAVAILABLE: no healthy endpoint in upstream otlp", name)


def code_of(client: Any, span: str) -> str:
    try:
        export(client, span=span)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"

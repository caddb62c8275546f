"""Load balancers in front of the proxy: they follow its health, and carry calls."""

import signal
from collections.abc import Callable
from typing import Any

import grpc

from backends import Backend, channel, export
import fronts
from fronts import HEALTHY, UNHEALTHY, cluster, envoy_hosts, haproxy_servers, run_envoy, run_haproxy
from suite import CHECK, TRACES, Proxy, World, case, configuration, equal, eventually

# What a balancer makes of all the addresses of the proxy that it checks.
States = Callable[[], set[str]]


def takes_out_and_back(
    world: World,
    start: Callable[[World, Proxy], States],
    prepared: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Holds a balancer to the backend's life, and to the end of the proxy's, whose configuration is
    `prepared`."""
    backend = Backend(world)
    drain = {"delay": "5s", "timeout": "5s"}
    whole = prepared(configuration([backend.address], drain=drain))
    proxy = world.proxy(whole).wait_until("SERVING")
    states = start(world, proxy)
    sees(states, HEALTHY)
    backend.stop()
    sees(states, UNHEALTHY)
    backend.start()
    sees(states, HEALTHY)
    proxy.signal(signal.SIGTERM)
    sees(states, UNHEALTHY)
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
    words = {("UP", "L7OK"): HEALTHY, ("DOWN", "L7STS"): UNHEALTHY}

    def states() -> set[str]:
        seen = haproxy_servers(control)
        equal(seen.keys(), proxy.addresses.keys(), "checked servers")
        return {words.get(it, str(it)) for it in seen.values()}

    return states


@case("HAProxy, checking by GET over HTTP/1.1, takes the proxy out and back")
def haproxy_http1(world: World) -> None:
    takes_out_and_back(world, lambda world, proxy: haproxy(world, proxy, ""))


@case("HAProxy, checking by GET over HTTP/2, takes the proxy out and back")
def haproxy_http2(world: World) -> None:
    takes_out_and_back(world, lambda world, proxy: haproxy(world, proxy, "proto h2"))


def envoy_states(
    world: World, proxy: Proxy, checks: dict[str, dict[str, Any]], **options: Any
) -> States:
    """Envoy with one cluster for each check, each of all of the proxy's listeners."""
    addresses = list(proxy.addresses.values())
    clusters = [{**cluster(name, addresses, it), **options} for name, it in checks.items()]
    admin = run_envoy(world, clusters)

    def states() -> set[str]:
        seen = envoy_hosts(admin)
        equal(len(seen), len(checks) * len(addresses), "checked hosts")
        return set(seen.values())

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


@case("exports pass through HAProxy, Envoy, nginx and Caddy in front, and so do refusals")
def in_front(world: World) -> None:
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
    addresses = [proxy["otlp"]]
    starts = {
        "HAProxy": lambda: fronts.haproxy(world, addresses),
        # With less panic it answers by itself when the proxy says NOT_SERVING, for it is the only
        # one. Caddy does so whenever it checks.
        "Envoy": lambda: fronts.envoy_front(world, addresses, {"grpc_health_check": {}}, panic=100),
        "nginx": lambda: fronts.nginx(world, addresses),
        "Caddy": lambda: fronts.caddy(world, addresses, checked=False),
    }
    clients = {name: channel(world.stack, start().address) for name, start in starts.items()}
    for name, client in clients.items():
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

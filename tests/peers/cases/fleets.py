"""Balancers over several proxies: who dies is passed over, and used again when it is back."""

import math
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import fronts
from backends import Backend, Load, unused_port
from fronts import HEALTHY, UNHEALTHY, Front
from suite import (
    FOLLOWED,
    TRACES,
    Followed,
    Proxy,
    World,
    case,
    configuration,
    equal,
    eventually,
    seconds_until,
)

# So many exports that a balancer, whose proxies take turns, uses all of them.
ROUND = 20


def proxy_of(world: World, *backends: Backend, port: int = 0, **sections: Any) -> Proxy:
    """A proxy with its probes every 500 ms, of which two decide."""
    whole = configuration([it.address for it in backends], **sections)
    for upstream in whole["upstreams"].values():
        often = {"interval": "500ms", "timeout": "400ms"}
        upstream["probe"] |= {**often, "healthy_threshold": 2, "unhealthy_threshold": 2}
    whole["listeners"][0]["address"] = f"127.0.0.1:{port}"
    return world.proxy(whole).wait_until("SERVING")


def follow(
    who: str,
    last: Backend,
    is_in: Callable[[str], bool],
    meanwhile: Callable[[], None] = lambda: None,
) -> str:
    """Ends the last backend and brings it back; notes how soon `is_in` the other state is true."""
    since = time.monotonic()
    last.stop()
    removed = seconds_until(f"{who} sees the death", lambda: is_in(UNHEALTHY), since)
    meanwhile()
    last.start()
    back = seconds_until(f"{who} sees the return", lambda: is_in(HEALTHY))
    FOLLOWED.append(Followed(who, removed, back))
    return f"{removed:.2f} s, and {back:.2f} s"


def passes_over(world: World, who: str, start: Callable[[World, list[str]], Front]) -> str:
    """Holds a balancer over two proxies to the life of the one's two backends."""
    first, last, other = Backend(world), Backend(world), Backend(world)
    proxy, spare = proxy_of(world, first, last), proxy_of(world, other)
    front = start(world, [proxy["otlp"], spare["otlp"]])

    def received() -> tuple[bool, bool]:
        """Whether one and the other have calls, after a round of which all passed."""
        for backend in (first, last, other):
            backend.calls.clear()
        equal(Counter(front.exports(ROUND)), {"OK": ROUND})
        return bool(first.calls or last.calls), bool(other.calls)

    def is_in(state: str) -> bool:
        return front.states() == {proxy["otlp"]: state, spare["otlp"]: HEALTHY}

    eventually("all are healthy", lambda: is_in(HEALTHY))
    eventually("both carry", lambda: received() == (True, True))
    first.stop()
    eventually("it is known", lambda: proxy.reason())
    time.sleep(3 * fronts.INTERVAL)
    equal(is_in(HEALTHY), True, "one backend is enough")

    def spared() -> None:
        equal(received(), (False, True), "the other carries it all")

    seconds = follow(who, last, is_in, spared)
    eventually("both carry again", lambda: received() == (True, True))
    return seconds


def envoy(check: dict[str, Any]) -> Callable[[World, list[str]], Front]:
    return lambda world, addresses: fronts.envoy_front(world, addresses, check)


@case("Envoy, checking by GET over HTTP/1.1, passes over a proxy without backends till they return")
def envoy_http1(world: World) -> str:
    check = {"http_health_check": {"path": "/healthz", "codec_client_type": "HTTP1"}}
    return passes_over(world, "Envoy, GET over HTTP/1.1", envoy(check))


@case("Envoy, checking by GET over HTTP/2, passes over a proxy without backends till they return")
def envoy_http2(world: World) -> str:
    check = {"http_health_check": {"path": "/healthz", "codec_client_type": "HTTP2"}}
    return passes_over(world, "Envoy, GET over HTTP/2", envoy(check))


@case("Envoy, checking a service by gRPC, passes over a proxy without backends till they return")
def envoy_grpc(world: World) -> str:
    check = {"grpc_health_check": {"service_name": TRACES}}
    return passes_over(world, "Envoy, gRPC with a service name", envoy(check))


@case("HAProxy, checking by GET over HTTP/2, passes over a proxy without backends till they return")
def haproxy(world: World) -> str:
    return passes_over(world, "HAProxy, httpchk GET over HTTP/2", haproxy_front)


def haproxy_front(world: World, addresses: list[str]) -> Front:
    check = "option httpchk\n    http-check send meth GET uri /healthz"
    return fronts.haproxy(world, addresses, check)


@case("Caddy, checking by GET over HTTP/2, passes over a proxy without backends till they return")
def caddy(world: World) -> str:
    return passes_over(world, "Caddy, health_uri over HTTP/2", fronts.caddy)


@case("nginx, which checks nobody, carries calls; who is without backends stays, who ends does not")
def nginx(world: World) -> str:
    backend, other = Backend(world), Backend(world)
    port = unused_port()
    drain = {"delay": "1s", "timeout": "5s"}
    proxy, spare = proxy_of(world, backend, port=port, drain=drain), proxy_of(world, other)
    front = fronts.nginx(world, [proxy["otlp"], spare["otlp"]])
    equal(Counter(front.exports(ROUND)), {"OK": ROUND})
    equal((bool(backend.calls), bool(other.calls)), (True, True), "both carry")
    backend.stop()
    proxy.wait_until("NOT_SERVING")
    # It does not read grpc-status, and every reply of gRPC's has HTTP's 200.
    equal(Counter(front.exports(ROUND)), {"OK": ROUND / 2, "UNAVAILABLE": ROUND / 2})
    FOLLOWED.append(Followed("nginx, which checks nobody", math.inf, 0))
    backend.start()
    proxy.wait_until("SERVING")
    with Load(front.address, threads=2) as load:
        proxy.signal(signal.SIGTERM)
        equal(proxy.wait(), 0, "exit code")
        load.more()
        proxy = proxy_of(world, backend, port=port)
        backend.calls.clear()
        eventually("it carries again", lambda: backend.calls)
    equal(load.failed, [], "failed calls")
    return f"{len(load.passed)} calls"


def rolling_restart(world: World, start: Callable[[World, list[str]], Front]) -> str:
    """Restarts three proxies one after the other, under load that must not notice."""
    backends = Backend(world), Backend(world)
    ports = [unused_port() for _ in range(3)]
    drain = {"delay": "2s", "timeout": "5s"}
    proxies = [proxy_of(world, *backends, port=it, drain=drain) for it in ports]
    addresses = [it["otlp"] for it in proxies]
    front = start(world, addresses)
    eventually("all are healthy", lambda: set(front.states().values()) == {HEALTHY})
    timeline = []
    with Load(front.address) as load:
        for port, proxy in zip(ports, proxies, strict=True):
            address = proxy["otlp"]
            signalled = time.monotonic()
            proxy.signal(signal.SIGTERM)
            known = seconds_until(
                "health is NOT_SERVING", lambda: proxy.serving() == "NOT_SERVING", signalled
            )
            removed = seconds_until(
                "it is taken out", lambda: front.states()[address] == UNHEALTHY, signalled
            )
            equal("not accepting" in proxy.text(), False, "the drain's delay is over")
            over = seconds_until("GOAWAY", lambda: "not accepting" in proxy.text(), signalled)
            equal(proxy.wait(), 0, "exit code")
            timeline.append((known, removed, over, time.monotonic() - signalled))
            proxy_of(world, *backends, port=port, drain={"delay": "0s", "timeout": "5s"})
            eventually("it is taken back", lambda: front.states()[address] == HEALTHY)
            load.more()
    equal(load.failed, [], "failed calls")
    received = [call for backend in backends for call in backend.calls]
    equal(sorted(received), sorted(load.passed), "calls, each received once")
    worst = [max(times) for times in zip(*timeline, strict=True)]
    names = ("NOT_SERVING", "taken out", "GOAWAY", "gone")
    shown = ", ".join(f"{name} {it:.2f} s" for name, it in zip(names, worst, strict=True))
    return f"{len(load.passed)} calls; from SIGTERM to {shown}"


@case("Envoy over three proxies, restarted one after the other under load: no call fails")
def envoy_rolling_restart(world: World) -> str:
    return rolling_restart(world, envoy({"grpc_health_check": {"service_name": TRACES}}))


@case("HAProxy over three proxies, restarted one after the other under load: no call fails")
def haproxy_rolling_restart(world: World) -> str:
    return rolling_restart(world, haproxy_front)


@case("Caddy over three proxies, restarted one after the other under load: no call fails")
def caddy_rolling_restart(world: World) -> str:
    return rolling_restart(world, fronts.caddy)

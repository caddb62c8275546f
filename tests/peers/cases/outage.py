"""What is seen from outside while distributors die and come back."""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

import backends
from backends import NOT_SERVING, SERVING, Backend, Load, channel, export_code, protoset
from cases.answers import LISTENERS, grpcurl
from suite import (
    BIN,
    CHECK,
    TRACES,
    Proxy,
    World,
    case,
    command,
    configuration,
    contains,
    equal,
    eventually,
)


def http_status(address: str) -> str:
    """Of GET, by curl over HTTP/2."""
    options = ("-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge")
    return command("curl", *options, f"http://{address}{CHECK}").out


@case("the demo's distributors fail: NOT_SERVING, 503, Export 14; all comes back by itself")
def demo(world: World) -> None:
    proxy = world.demo().wait_until("SERVING")
    lines = proxy.text().splitlines()
    typed = next(line for line in lines if "curl" in line and line.endswith("/fail/all"))
    client = channel(world.stack, proxy["otlp"])
    for listener in LISTENERS:
        contains(grpcurl(proxy[listener], "Check").out, '"SERVING"')
        equal(http_status(proxy[listener]), "200")
    equal(export_code(client), "OK")

    # As the demo tells to type it.
    equal(command(*typed.split()).code, 0, typed)
    proxy.wait_until("NOT_SERVING").wait_until("NOT_SERVING", TRACES)
    proxy.wait_until("NOT_SERVING", "tempo")
    for listener in LISTENERS:
        contains(grpcurl(proxy[listener], "Check").out, '"NOT_SERVING"')
        equal(http_status(proxy[listener]), "503")
    equal(export_code(client), "UNAVAILABLE")

    eventually("SERVING again", lambda: proxy.serving() == "SERVING", within=30)
    for listener in LISTENERS:
        contains(grpcurl(proxy[listener], "Check").out, '"SERVING"')
        equal(http_status(proxy[listener]), "200")
    # On the same connection as before.
    equal(export_code(client), "OK")


@case("a Watch of grpcio sees SERVING, NOT_SERVING as the backend dies, SERVING when it is back")
def watch(world: World) -> None:
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
    for service in ("", TRACES):
        stub = health_pb2_grpc.HealthStub(channel(world.stack, proxy["tempo"]))
        stream = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=30)
        equal(next(stream).status, SERVING)
        backend.stop()
        equal(next(stream).status, NOT_SERVING)
        backend.start()
        equal(next(stream).status, SERVING)
        stream.cancel()


@case("a backend that is stopped gracefully under load, while another stays, loses no call")
def graceful_stop(world: World) -> str:
    staying, leaving = Backend(world, takes=0.02), Backend(world, takes=0.02)
    proxy = world.proxy(configuration([staying.address, leaving.address]))
    await_both(proxy)
    with Load(proxy["otlp"]) as load:
        for _ in range(3):
            leaving.stop(grace=10)
            load.more(100)
            leaving.start()
            await_both(proxy)
            load.more(100)
    equal(load.failed, [], "failed calls")
    taken = staying.calls + leaving.calls
    equal(sorted(load.passed), sorted(taken), "calls, each received once")
    return f"{len(load.passed)} calls"


@case("a backend that is killed under load fails only the calls that it had, by 14")
def killed(world: World) -> str:
    staying = Backend(world, takes=0.02)
    dying = world.start(sys.executable, Path(backends.__file__).parent / "lone_backend.py")
    address = eventually("the other backend listens", lambda: dying.text().strip())
    proxy = world.proxy(configuration([staying.address, address]))
    await_both(proxy)
    with Load(proxy["otlp"]) as load:
        dying.kill()
        eventually("the board knows", lambda: "refused" in proxy.reason("otlp", 1))
        load.more(200)
    equal(set(load.codes()) <= {"UNAVAILABLE"}, True, f"only 14 in {load.codes()}")
    # Each thread has one call at a time, so no more than one each was in flight.
    equal(len(load.failed) <= 8, True, f"at most 8 calls lost: {load.failed}")
    return f"{len(load.failed)} of {len(load.passed) + len(load.failed)} calls lost"


@case("ghz finds no failed call while a backend says NOT_SERVING, stops, comes back, and so on")
def ghz(world: World) -> str:
    staying, leaving = Backend(world), Backend(world)
    sections = configuration([staying.address, leaving.address])
    sections["upstreams"]["otlp"]["probe"]["checks"].append({"grpc": {}})
    proxy = world.proxy(sections)
    await_both(proxy)
    output = world.directory / "ghz.json"
    load = world.start(
        *(BIN / "ghz", "--insecure", "--protoset", protoset(world), "--call", f"{TRACES}/Export"),
        *("-d", "{}", "-z", "6s", "--duration-stop", "wait", "-c", "16", "--connections", "4"),
        *("-O", "json", "-o", output, proxy["otlp"]),
    )
    restarts = 0
    while load.is_running():
        leaving.health = NOT_SERVING
        eventually("it has no calls", lambda: idle_and_unhealthy(proxy, 1))
        leaving.stop(grace=5)
        leaving.health = SERVING
        leaving.start()
        await_both(proxy)
        restarts += 1
    equal(load.wait(), 0, load.text())
    report = json.loads(output.read_text())
    equal(list(report["statusCodeDistribution"]), ["OK"], str(report.get("errorDistribution")))
    return f"{report['count']} calls, {report['rps']:.0f}/s, {restarts} restarts"


@case("a call is not lost on a connection that a stopping backend never took")
def untaken(world: World) -> None:
    backend = Backend(world)
    sections = configuration([backend.address])
    upstream = sections["upstreams"]["otlp"]
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        # The kernel completes the connection; nobody ever reads from it.
        upstream["endpoints"].append(f"127.0.0.1:{deaf.getsockname()[1]}")
        upstream["load_balancing"] = "round_robin"
        upstream["probe"]["checks"] = [{"tcp": {}}]
        proxy = world.proxy(sections)
        await_both(proxy)
        with ThreadPoolExecutor(4) as threads:
            client = channel(world.stack, proxy["otlp"])
            codes = [threads.submit(export_code, client) for _ in range(4)]
            eventually("the other half passed", lambda: sum(code.done() for code in codes) >= 2)
            deaf.close()
            equal([code.result() for code in codes], ["OK"] * 4)


def idle_and_unhealthy(proxy: Proxy, number: int) -> bool:
    upstreams = proxy.status()["upstreams"]
    endpoints = next(it["endpoints"] for it in upstreams if it["upstream"] == "otlp")
    return (endpoints[number]["health"], endpoints[number]["in_flight"]) == ("unhealthy", 0)


def await_both(proxy: Proxy) -> None:
    """Until both endpoints of the upstream otlp are healthy."""

    def healthy() -> bool:
        upstreams = proxy.status()["upstreams"]
        return next(it["healthy"] for it in upstreams if it["upstream"] == "otlp") == 2

    eventually("both endpoints are healthy", healthy)

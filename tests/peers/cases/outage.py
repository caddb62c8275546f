"""What is seen from outside while distributors die and come back."""

import json
import sys
import urllib.request
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

import backends
from backends import NOT_SERVING, SERVING, Backend, Load, channel, export_code, protoset
from cases.answers import LISTENERS, grpcurl
from suite import (
    BIN,
    CHECK,
    TRACES,
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


@case("the demo's distributors fail when asked: NOT_SERVING, 503, Export 14; all comes back by itself")
def demo(world: World) -> None:
    proxy = world.demo().wait_until("SERVING")
    line = next(line for line in proxy.text().splitlines() if "/fail/all" in line and "curl" in line)
    control = line.split("http://")[1].removesuffix("/fail/all")
    client = channel(world.stack, proxy["otlp"])
    for listener in LISTENERS:
        contains(grpcurl(proxy[listener], "Check").out, '"SERVING"')
        equal(http_status(proxy[listener]), "200")
    equal(export_code(client), "OK")

    request = urllib.request.Request(f"http://{control}/fail/all", method="POST")
    urllib.request.urlopen(request, timeout=5).close()
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


@case("a Watch of grpcio sees SERVING, NOT_SERVING when the backend dies, and SERVING when it is back")
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
    # Longer than it takes to stop, so that there are always calls to lose.
    staying, leaving = Backend(world, takes=0.02), Backend(world, takes=0.02)
    proxy = world.proxy(configuration([staying.address, leaving.address])).wait_until("SERVING")
    eventually("both are healthy", lambda: not proxy.reason() and not proxy.reason("otlp", 1))
    with Load(proxy["otlp"]) as load:
        for _ in range(3):
            leaving.stop(grace=10)
            load.more(100)
            leaving.start()
            eventually("it is healthy again", lambda: not proxy.reason("otlp", 1))
            load.more(100)
    equal(load.failed, [], "failed calls")
    equal(sorted(load.passed), sorted(staying.calls + leaving.calls), "calls, each received once")
    return f"{len(load.passed)} calls"


@case("a backend that is killed under load fails only the calls that it had, by 14")
def killed(world: World) -> str:
    staying = Backend(world, takes=0.02)
    dying = world.start(sys.executable, Path(backends.__file__).parent / "lone_backend.py")
    address = eventually("the other backend listens", lambda: dying.text().strip())
    proxy = world.proxy(configuration([staying.address, address])).wait_until("SERVING")
    eventually("both are healthy", lambda: not proxy.reason("otlp", 0) and not proxy.reason("otlp", 1))
    with Load(proxy["otlp"]) as load:
        dying.kill()
        eventually("the board knows", lambda: "refused" in proxy.reason("otlp", 1))
        load.more(200)
    equal(set(load.codes()) <= {"UNAVAILABLE"}, True, f"only 14 in {load.codes()}")
    # Each thread has one call at a time, so no more than one each was in flight.
    equal(len(load.failed) <= 8, True, f"at most 8 calls lost: {load.failed}")
    return f"{len(load.failed)} of {len(load.passed) + len(load.failed)} calls lost"


@case("ghz finds no failed call while one of two backends goes and comes back")
def ghz(world: World) -> str:
    staying, leaving = Backend(world), Backend(world)
    proxy = world.proxy(configuration([staying.address, leaving.address])).wait_until("SERVING")
    output = world.directory / "ghz.json"
    load = world.start(
        *(BIN / "ghz", "--insecure", "--protoset", protoset(world), "--call", f"{TRACES}/Export"),
        *("-d", "{}", "-n", "6000", "-c", "16", "--connections", "4", "-O", "json", "-o", output),
        proxy["otlp"],
    )
    while load.is_running():
        leaving.stop(grace=5)
        leaving.start()
        eventually("it is healthy again", lambda: not proxy.reason("otlp", 1))
    equal(load.wait(), 0, load.text())
    report = json.loads(output.read_text())
    equal(report["statusCodeDistribution"], {"OK": 6000}, str(report.get("errorDistribution")))
    return f"{report['rps']:.0f} calls/s"

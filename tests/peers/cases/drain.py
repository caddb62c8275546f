"""The end of the proxy's process, seen by those who use it."""

import json
import queue
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backends import NOT_SERVING, SERVING, Backend, Load, channel, export, export_code, protoset
from cases.answers import curl, grpcurl
from suite import BIN, TRACES, World, case, configuration, contains, equal, eventually


@case("on SIGTERM and SIGINT a Watch of grpcio sees NOT_SERVING, and then its stream ends")
def watch(world: World) -> None:
    backend = Backend(world)
    for number in (signal.SIGTERM, signal.SIGINT):
        proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
        stub = health_pb2_grpc.HealthStub(channel(world.stack, proxy["health"]))
        stream = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        equal(next(stream).status, SERVING)
        proxy.signal(number)
        equal(next(stream).status, NOT_SERVING)
        try:
            raise AssertionError(f"another message: {next(stream)}")
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.UNAVAILABLE)
        equal(proxy.wait(), 0, "exit code")


@case("during the drain's delay health is NOT_SERVING, in every dialect, and calls are taken")
def delay(world: World) -> None:
    backend = Backend(world)
    drain = {"delay": "3s", "timeout": "5s"}
    proxy = world.proxy(configuration([backend.address], drain=drain)).wait_until("SERVING")
    proxy.signal(signal.SIGTERM)
    proxy.wait_until("NOT_SERVING")
    for listener in ("otlp", "tempo", "health"):
        contains(grpcurl(proxy[listener], "Check").out, "NOT_SERVING")
        for version in ("--http1.1", "--http2-prior-knowledge"):
            equal(curl(version, "GET", f"http://{proxy[listener]}/readyz")[0], 503)
            equal(curl(version, "GET", f"http://{proxy[listener]}/livez")[0], 200)
    equal(export_code(channel(world.stack, proxy["otlp"])), "OK")
    equal(proxy.is_running(), True, "the delay is not over")
    equal(proxy.wait(), 0, "exit code")


@case("SIGTERM under load of ghz, which stops within the delay: no call fails, exit code 0")
def ghz(world: World) -> str:
    backend = Backend(world)
    drain = {"delay": "4s", "timeout": "5s"}
    proxy = world.proxy(configuration([backend.address], drain=drain)).wait_until("SERVING")
    output = world.directory / "ghz.json"
    load = world.start(
        *(BIN / "ghz", "--insecure", "--protoset", protoset(world), "--call", f"{TRACES}/Export"),
        *("-d", "{}", "-z", "3s", "--duration-stop", "wait", "-c", "16", "--connections", "4"),
        *("-m", '{"x-call": "{{.UUID}}"}', "-O", "json", "-o", output, proxy["otlp"]),
    )
    eventually("load is under way", lambda: len(backend.calls) > 200)
    proxy.signal(signal.SIGTERM)
    equal(load.wait(), 0, load.text())
    equal(proxy.is_running(), True, "the delay is not over")
    report = json.loads(output.read_text())
    equal(list(report["statusCodeDistribution"]), ["OK"], str(report.get("errorDistribution")))
    equal(len(backend.calls), report["count"], "calls, each received once")
    equal(proxy.wait(), 0, "exit code")
    return f"{report['count']} calls"


@case("SIGTERM under load that never stops: no call that was accepted fails, exit code 0")
def endless_load(world: World) -> str:
    backend = Backend(world, takes=0.02)
    delay = 1.0
    drain = {"delay": f"{delay}s", "timeout": "5s"}
    proxy = world.proxy(configuration([backend.address], drain=drain)).wait_until("SERVING")
    with Load(proxy["otlp"]) as load:
        signalled = time.monotonic()
        proxy.signal(signal.SIGTERM)
        equal(proxy.wait(), 0, "exit code")
    # What came too late is told so at once, and no backend ever saw it.
    equal(set(load.codes()), {"UNAVAILABLE"})
    early = [it for it in load.failed if it.began < signalled + delay - 0.05]
    equal(early, [], "calls that failed within the delay")
    equal([it for it in load.failed if it.call in backend.calls], [], "accepted calls that failed")
    equal(sorted(load.passed), sorted(backend.calls), "calls, each received once")
    return f"{len(load.passed)} calls"


@case("calls in flight outlive SIGTERM: a slow one ends well, a stream goes on to its end")
def in_flight(world: World) -> None:
    backend = Backend(world, takes=1.5)
    proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
    slow = channel(world.stack, proxy["otlp"])
    finished = world.stack.enter_context(ThreadPoolExecutor(1)).submit(export, slow, call="slow")
    sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    chat = channel(world.stack, proxy["tempo"]).stream_stream("/peers.Echo/Chat")
    replies = chat(iter(sent.get, None), timeout=20)
    sent.put(b"before")
    equal(next(replies), b"erofeb")
    eventually("the backend has the slow call", lambda: "slow" in backend.calls)
    proxy.signal(signal.SIGTERM)
    eventually("it accepts no more", lambda: "not accepting" in proxy.text())
    sent.put(b"after")
    equal(next(replies), b"retfa")
    finished.result()
    sent.put(None)
    equal(list(replies), [], "after the end")
    equal(proxy.wait(), 0, "exit code")


@case("a call that outlives the drain's timeout is cut, and exit code 1 says so")
def cut(world: World) -> None:
    backend = Backend(world)
    drain = {"delay": "0s", "timeout": "500ms"}
    proxy = world.proxy(configuration([backend.address], drain=drain)).wait_until("SERVING")
    proxy.expected_exit = 1
    call = channel(world.stack, proxy["otlp"]).unary_unary("/peers.Echo/Unary")
    hanging = call.future(b"hang", timeout=20)
    eventually("the backend has the call", lambda: (backend.remaining or 0) > 15)
    proxy.signal(signal.SIGTERM)
    equal(hanging.exception().code(), grpc.StatusCode.UNAVAILABLE)
    equal(proxy.wait(), 1, "exit code")
    equal(backend.cancelled.wait(5), True, "the backend sees the end")


@case("a second signal ends the drain at once")
def second_signal(world: World) -> None:
    backend = Backend(world)
    drain = {"delay": "50s", "timeout": "50s"}
    proxy = world.proxy(configuration([backend.address], drain=drain)).wait_until("SERVING")
    proxy.expected_exit = 1
    call = channel(world.stack, proxy["otlp"]).unary_unary("/peers.Echo/Unary")
    hanging = call.future(b"hang", timeout=20)
    eventually("the backend has the call", lambda: (backend.remaining or 0) > 15)
    proxy.signal(signal.SIGTERM)
    proxy.wait_until("NOT_SERVING")
    proxy.signal(signal.SIGTERM)
    equal(proxy.wait(within=5), 1, "exit code")
    equal(hanging.exception().code(), grpc.StatusCode.UNAVAILABLE)

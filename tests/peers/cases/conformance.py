"""h2spec: what RFC 9113 and RFC 7541 ask of a server."""

import socket
import xml.etree.ElementTree as xml
from typing import NamedTuple

from backends import Backend
from suite import BIN, World, case, command, configuration, contains, equal

# Most tests send a request and then a fault. Where the proxy has answered in full before the
# fault arrives, the stream is over, and what comes on it is ignored (RFC 9113, 8.1 and 5.1).
# h2spec counts that as a failure, so a test that failed must pass once in so many tries.
TRIES = 12


class Failure(NamedTuple):
    title: str
    actual: str


def h2spec(world: World, address: str, *sections: str) -> tuple[int, dict[str, Failure]]:
    """The number of tests, and those that failed."""
    host, port = address.split(":")
    report = world.directory / "h2spec.xml"
    command(
        *(BIN / "h2spec", *sections, "--host", host, "--port", port, "--path", "/healthz"),
        *("--strict", "--timeout", "1", "--junit-report", report),
        within=50,
    )
    tests, failures = 0, {}
    for suite in xml.parse(report).iter("testsuite"):
        for number, test in enumerate(suite.iter("testcase"), start=1):
            tests += 1
            failed = test.find("error")
            if failed is not None:
                name = f"{suite.get('package')}/{number}"
                failures[name] = Failure(test.get("classname", ""), failed.text or "")
    return tests, failures


def conforms(world: World, listener: str) -> str:
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
    tests, failures = h2spec(world, proxy[listener])
    equal(tests > 140, True, f"tests that ran: {tests}")
    for name in failures:
        passed = any(h2spec(world, proxy[listener], name) == (1, {}) for _ in range(TRIES))
        equal(passed, True, f"{name}: {failures[name]}, and so {TRIES} times more; passed")
    equal(proxy.serving(), "SERVING")
    return f"{tests} tests, {len(failures)} of them after more tries"


@case("h2spec passes on the listener that answers health only")
def health_listener(world: World) -> str:
    return conforms(world, "health")


@case("h2spec passes on the listener for traces")
def traffic_listener(world: World) -> str:
    return conforms(world, "otlp")


@case("what begins like neither HTTP/2 nor HTTP/1.1 gets no answer, and the connection ends at once")
def invalid_preface(world: World) -> None:
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
    for listener in ("otlp", "tempo", "health"):
        host, port = proxy[listener].split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"INVALID CONNECTION PREFACE\r\n\r\n")
            try:
                answer = connection.recv(4096)
            except ConnectionResetError:
                answer = b""
        equal(answer, b"")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"GET nowhere HTTP/1.1\r\nHost: a b\r\n\r\n")
            contains(connection.recv(4096).decode(), "HTTP/1.1 4")

"""Load balancers in front of the proxy: they take it out and back by its health, and carry calls."""

import csv
import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import envoy
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from backends import Backend, unused_port
from suite import CHECK, TRACES, Proxy, World, case, command, configuration, contains, equal, eventually


def takes_out_and_back(world: World, start: Callable[[World, Proxy], Callable[[], bool]]) -> None:
    """Holds a balancer to its backend's life. What `start` starts tells whether it sees the proxy
    as healthy; it is asked in each state for as long as it still sees the one before."""
    backend = Backend(world)
    drain = {"delay": "5s", "timeout": "5s"}
    proxy = world.proxy(configuration([backend.address], drain=drain)).wait_until("SERVING")
    is_healthy = start(world, proxy)
    eventually("healthy", is_healthy)
    backend.stop()
    eventually("unhealthy when the backend is gone", lambda: not is_healthy())
    equal(proxy.is_running(), True)
    backend.start()
    eventually("healthy again", is_healthy)
    proxy.signal(signal.SIGTERM)
    eventually("unhealthy when the proxy drains", lambda: not is_healthy())
    equal("not accepting" in proxy.text(), False, "within the drain's delay")
    equal(proxy.wait(), 0, "exit code")


def haproxy(world: World, proxy: Proxy, check: str) -> Callable[[], bool]:
    """HAProxy, which checks three listeners by `check` and is UP while all are."""
    control = world.directory / "haproxy.sock"
    servers = "".join(
        f"    server {name} {address} check inter 100ms fastinter 100ms downinter 100ms {check}\n"
        for name, address in proxy.addresses.items()
    )
    file = world.file(
        "haproxy.cfg",
        f"""
global
    stats socket {control}
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    timeout check 1s
backend upbeat
    option httpchk GET {CHECK}
    http-check expect status 200
{servers}""",
    )
    process = world.start("haproxy", "-db", "-f", file)

    def is_healthy() -> bool:
        with socket.socket(socket.AF_UNIX) as stats:
            stats.settimeout(5)
            stats.connect(str(control))
            stats.sendall(b"show stat\n")
            text = stats.makefile().read()
        rows = [row for row in csv.DictReader(text.splitlines()) if row["svname"] in proxy.addresses]
        states = {(row["status"], row["check_status"], row["check_code"]) for row in rows}
        # Until all three agree, it is as it was.
        known = {("UP", "L7OK", "200"): True, ("DOWN", "L7STS", "503"): False}
        agreed = eventually_one(lambda: states, known) if len(states) == 1 else None
        if agreed is None:
            return is_healthy.last
        is_healthy.last = agreed
        return agreed

    is_healthy.last = False
    eventually("HAProxy runs", lambda: control.exists() or not process.is_running())
    return is_healthy

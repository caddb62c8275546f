"""Rolling restarts of the backends under load: which calls they cost, and whose those are. With
UPBEAT_RESTARTS=whole nine of them for each form and each proxy, else three for Upbeat alone."""

import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import backends
import fronts
from backends import Failed, Load, unused_port
from suite import BIN, RESTARTED, Process, Restarted, World, case, equal, eventually

WHOLE = os.environ.get("UPBEAT_RESTARTS", "") == "whole"
RESTARTS = 9 if WHOLE else 3
# From where a backend listens again to the end of the next one, in seconds: nine restarts see about
# 32 000 calls.
PAUSE = 2
GRACE = 10
# What Upbeat says of calls that were sent whole.
SENT = {f"upstream connection lost: {end} by the endpoint" for end in ("closed", "reset")}
# Starts a proxy with its defaults in front of backends; its address.
Start = Callable[[World, list[str]], str]


class Form(NamedTuple):
    """How a backend is ended, and what it is."""

    name: str
    signal: signal.Signals
    program: tuple[str | Path, ...]


SCRIPT = Path(backends.__file__).parent / "restarted.py"
GRPCIO = (sys.executable, "-B", SCRIPT)
FORMS = (
    Form("graceful", signal.SIGTERM, GRPCIO),
    Form("abrupt", signal.SIGKILL, GRPCIO),
    # What Tempo's receiver does where shutdown_delay is 0: grpc-go's GracefulStop, at once.
    Form("unwarned", signal.SIGTERM, (BIN / "grpc-go", "serve")),
)


class Restartable:
    """A backend in a process of its own, with a journal that outlives it."""

    def __init__(self, world: World, form: Form):
        self.world, self.form = world, form
        self.port = unused_port()
        self.address = f"127.0.0.1:{self.port}"
        self.journal = world.file(f"{self.port}.journal", "")
        self.process = self.start()

    def start(self) -> Process:
        arguments = (*self.form.program, str(self.port), self.journal, str(GRACE))
        self.process = self.world.start(*arguments)
        eventually("the backend listens", self._listens)
        return self.process

    def stop(self) -> None:
        self.process.signal(self.form.signal)
        self.process.wait()

    def begun(self) -> set[str]:
        return {it[1:] for it in self.journal.read_text().split() if it.startswith("+")}

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def restart(world: World, who: str, form: Form, start: Start) -> tuple[Restarted, list[Failed]]:
    """Restarts three backends in turn; what that cost, and the failed calls that none had begun."""
    rolled = [Restartable(world, form) for _ in range(3)]
    address = start(world, [it.address for it in rolled])
    with Load(address) as load:
        for number in range(RESTARTS):
            time.sleep(PAUSE)
            rolled[number % 3].stop()
            rolled[number % 3].start()
        time.sleep(PAUSE)
    begun = set().union(*(it.begun() for it in rolled))
    lost = [it for it in load.failed if it.call not in begun]
    row = Restarted(
        who=who,
        form=form.name,
        calls=load.count(),
        lost=len(load.failed),
        begun=len(load.failed) - len(lost),
        p99=sorted(load.took)[load.count() * 99 // 100] * 1000,
        codes=", ".join(f"{count} {code}" for code, count in load.codes().items()),
    )
    RESTARTED.append(row)
    return row, lost


def upbeat(world: World, addresses: list[str]) -> str:
    sections = {
        "listeners": [{"name": "otlp", "address": "127.0.0.1:0", "upstream": "otlp"}],
        "upstreams": {"otlp": {"endpoints": addresses, "probe": {"checks": [{"otlp": {}}]}}},
        "admin": {"address": "127.0.0.1:0"},
    }
    proxy = world.proxy(sections).wait_until("SERVING")
    proxy.expected_exit = None
    world.stack.callback(proxy.kill)
    return proxy["otlp"]


def told(row: Restarted) -> str:
    return f"{row.calls} calls, {row.lost} lost of which {row.begun} were begun"


def loses_nothing(form: Form) -> Callable[[World], str]:
    """A case for Upbeat: what a backend lets end is not lost. What is killed takes with it, beside
    the calls that it had begun, those that it had been sent; there are at most as many as there
    are callers, and no proxy can know of them that nobody has read them."""

    def run(world: World) -> str:
        row, lost = restart(world, "Upbeat", form, upbeat)
        if form.signal == signal.SIGKILL:
            equal({it.details for it in lost} <= SENT, True, f"calls were sent: {lost}")
            equal(row.lost <= 8 * RESTARTS, True, "no caller loses two calls by one restart")
        else:
            equal(Counter((it.code, it.details) for it in lost), Counter(), "lost calls")
        return told(row)

    return run


for _form in FORMS:
    _words = f"rolling restarts, {_form.name}: Upbeat with its defaults loses no call"
    if _form.signal == signal.SIGKILL:
        _words += " but those that a backend had"
    case(_words, limit=120)(loses_nothing(_form))


def haproxy(world: World, addresses: list[str]) -> str:
    return fronts.haproxy(world, addresses, "option redispatch").address


def nginx(world: World, addresses: list[str]) -> str:
    return fronts.nginx(world, addresses).address


def envoy(world: World, addresses: list[str]) -> str:
    return fronts.envoy_front(world, addresses, None).address


def tuned_envoy(world: World, addresses: list[str]) -> str:
    """With what Envoy's documentation advises: retries on another host, ejection, checks."""
    other = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    retries = {
        "retry_on": "connect-failure,refused-stream,reset-before-request,unavailable,cancelled",
        "num_retries": 3,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"type.googleapis.com/{other}"},
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    ejects = {"consecutive_5xx": 3, "interval": "1s", "base_ejection_time": "1s"}
    check = {"tcp_health_check": {}}
    front = fronts.envoy_front(
        world, addresses, check, retries=retries, outlier_detection=ejects
    )
    return front.address


PEERS = {
    "HAProxy": haproxy,
    "nginx": nginx,
    "Envoy": envoy,
    "Envoy, tuned": tuned_envoy,
}


def costs(who: str, form: Form, start: Start) -> Callable[[World], str]:
    """A case that is held to nothing: what is lost is printed."""
    return lambda world: told(restart(world, who, form, start)[0])


if WHOLE:
    for _form in FORMS:
        for _who, _start in PEERS.items():
            case(f"rolling restarts, {_form.name}: {_who}", limit=120)(costs(_who, _form, _start))

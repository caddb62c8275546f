"""What cases are made of: the list of them, what they start and what they expect."""

import json
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
INSTALLED = HERE / ".installed"
BIN = INSTALLED / "bin"
HEALTH_PROTO = ("-import-path", str(HERE), "-proto", "health.proto")
TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
CHECK = "/grpc.health.v1.Health/Check"
# How long to wait for what must happen, in seconds. A case that passes waits for little of it.
DEADLINE = 20


class Case(NamedTuple):
    sentence: str
    function: Callable[["World"], str | None]
    # The longest that it may take, in seconds.
    limit: int


CASES: list[Case] = []


def case(sentence: str, limit: int = 60) -> Callable:
    """Adds a function to the cases. What it returns is printed beside its sentence."""

    def add(function: Callable[["World"], str | None]) -> Callable:
        CASES.append(Case(sentence, function, limit))
        return function

    return add


class Followed(NamedTuple):
    """How soon one who checks followed the life of the last backend, in seconds."""

    who: str
    removed: float
    back: float


# The runner prints them all at its end.
FOLLOWED: list[Followed] = []


class Restarted(NamedTuple):
    """What rolling restarts cost the calls through a proxy."""

    who: str
    form: str
    calls: int
    lost: int
    # Of those that were lost.
    begun: int
    # In milliseconds.
    p99: float
    codes: str


# The runner prints them all at its end.
RESTARTED: list[Restarted] = []


def equal(got: Any, wanted: Any, what: str = "") -> None:
    if got != wanted:
        raise AssertionError(f"{what or 'got'}: {got!r}, wanted {wanted!r}")


def contains(text: str, *words: str) -> None:
    for word in words:
        if word not in text:
            raise AssertionError(f"{word!r} is not in {text!r}")


def eventually(what: str, condition: Callable[[], Any], within: float = DEADLINE) -> Any:
    """The first true value of `condition`, asked for again and again."""
    end = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.02)


def seconds_until(what: str, condition: Callable[[], Any], since: float = 0) -> float:
    """How long it is, from now or from `since`, until `condition` is true."""
    since = since or time.monotonic()
    eventually(what, condition)
    return time.monotonic() - since


class Output(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


def command(*arguments: str | Path, within: float = DEADLINE, **options: Any) -> Output:
    """Runs a program to its end."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
        **{"stdin": subprocess.DEVNULL, **options},
    )
    return Output(done.returncode, done.stdout, done.stderr)


class Process:
    """A program that runs until it is stopped, its output in a file."""

    def __init__(self, arguments: list[str | Path], log: Path):
        self.log = log
        self.name = Path(arguments[0]).name
        with log.open("w") as output:
            self.child = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def is_running(self) -> bool:
        return self.child.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait(self, within: float = DEADLINE) -> int:
        """The exit code; negative where a signal ended it."""
        return self.child.wait(within)

    def kill(self) -> None:
        if self.is_running():
            self.child.kill()
            self.child.wait()


class Proxy(Process):
    """The proxy, started, with its addresses as it logged them."""

    def __init__(self, arguments: list[str | Path], log: Path, listeners: int):
        super().__init__(arguments, log)
        found = re.compile(r'(?:"listener":|listener=)"(\w+)",? ?"?address"?[=:]"?([\d.:]+)')
        admin = re.compile(r'admin listening"?,? ?"?address"?[=:]"?([\d.:]+)')
        self.expected_exit: int | None = 0

        def bound() -> bool:
            if not self.is_running():
                raise AssertionError(f"the proxy ended: {self.text()}")
            return len(found.findall(self.text())) == listeners and bool(admin.search(self.text()))

        eventually("the proxy listens", bound)
        self.addresses: dict[str, str] = dict(found.findall(self.text()))
        self.admin: str = admin.search(self.text())[1]

    def __getitem__(self, listener: str) -> str:
        return self.addresses[listener]

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.admin}/status", timeout=5) as response:
            return json.load(response)

    def serving(self, service: str = "") -> str:
        """What the board says of a service."""
        services = self.status()["services"]
        return next(it["status"] for it in services if it["service"] == service)

    def wait_until(self, status: str, service: str = "") -> "Proxy":
        what = f"{service!r} is {status}"
        eventually(what, lambda: self.serving(service) == status)
        return self

    def reason(self, upstream: str = "otlp", endpoint: int = 0) -> str:
        """Why an endpoint is not healthy."""
        upstreams = self.status()["upstreams"]
        found = next(it for it in upstreams if it["upstream"] == upstream)
        return found["endpoints"][endpoint]["reason"]

    def metric(self, name: str) -> float:
        """What /metrics says under a name and its labels; 0 where it says nothing."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(float(it.split()[-1]) for it in lines if it.startswith(f"{name} "))

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, failure: type[BaseException] | None, *_others: object) -> None:
        """Ends it by SIGTERM, and holds it to its exit code; where the case has failed already,
        by the short way."""
        if failure:
            return self.kill()
        if self.is_running():
            self.signal(signal.SIGTERM)
        code = self.wait()
        if self.expected_exit is not None:
            equal(code, self.expected_exit, "the proxy's exit code")


@dataclass
class World:
    """What one case starts. All of it is stopped after the case, in reverse order."""

    binary: Path
    stack: ExitStack

    def __post_init__(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="peers-")
        self.directory = Path(self.stack.enter_context(directory))
        self.started: list[Process] = []
        # What is printed after a failure, when the files are gone.
        self.kept = ""
        self.stack.callback(self._keep_logs)

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def start(self, *arguments: str | Path) -> Process:
        process = Process(list(arguments), self._log())
        self.started.append(process)
        self.stack.callback(process.kill)
        return process

    def proxy(self, configuration: dict[str, Any]) -> Proxy:
        """`upbeat run`. JSON is YAML too."""
        file = self.file(f"upbeat-{len(self.started)}.yaml", json.dumps(configuration))
        arguments = [self.binary, "run", "--config", file]
        return self._proxy(arguments, len(configuration["listeners"]))

    def demo(self) -> Proxy:
        ports = ("otlp", "tempo", "health", "admin", "control")
        options = [word for name in ports for word in (f"--{name}-port", "0")]
        return self._proxy([self.binary, "demo", *options], 3)

    def upbeat(self, *arguments: str) -> Output:
        return command(self.binary, *arguments)

    def logs(self) -> str:
        return self.kept

    def _proxy(self, arguments: list[str | Path], listeners: int) -> Proxy:
        log = self._log()
        try:
            proxy = Proxy(arguments, log, listeners)
        except BaseException:
            self.kept += log.read_text(errors="replace")
            raise
        self.started.append(proxy)
        self.stack.callback(proxy.kill)
        return self.stack.enter_context(proxy)

    def _log(self) -> Path:
        return self.directory / f"{len(self.started)}.log"

    def _keep_logs(self) -> None:
        for process in self.started:
            lines = process.text().splitlines()[-40:]
            self.kept += "\n".join([f"--- {process.name}:", *lines, ""])


def configuration(
    otlp: list[str], tempo: list[str] | None = None, **sections: Any
) -> dict[str, Any]:
    """Three listeners in front of two upstreams, probed so often that cases need not wait long.
    Without endpoints of its own, `tempo` has those of `otlp`."""
    often = {"interval": "300ms", "timeout": "250ms"}
    return {
        "listeners": [
            {"name": "otlp", "address": "127.0.0.1:0", "upstream": "otlp"},
            {"name": "tempo", "address": "127.0.0.1:0", "upstream": "tempo"},
            {"name": "health", "address": "127.0.0.1:0"},
        ],
        "upstreams": {
            "otlp": {"endpoints": otlp, "probe": {**often, "checks": [{"otlp": {}}]}},
            "tempo": {"endpoints": tempo or otlp, "probe": {**often, "checks": [{"grpc": {}}]}},
        },
        "health": {"services": {TRACES: {"all": ["otlp"]}, "tempo": {"all": ["tempo"]}}},
        "drain": {"delay": "0s", "timeout": "10s"},
        "admin": {"address": "127.0.0.1:0"},
        **sections,
    }

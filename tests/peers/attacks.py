"""Attacks several proxies by the rows of tests/attack that need no keys of Upbeat's, each started
anew for each row, in its plain configuration."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from backends import unused_port
from fronts import cluster, envoy_listener, run_envoy, run_haproxy
from suite import HERE, Process, World, command, eventually

ROOT = HERE.parent.parent
# Rows, and what their attack does, as the table has it.
ROWS = {
    "1": "Rapid Reset, 200 000 pairs",
    "2": "the same, 40 a second",
    "3": "MadeYouReset, four forms",
    "4": "CONTINUATION without end",
    "5": "a header block, a byte a second",
    "6": "HPACK bomb, its answers without a window",
    "7": "a MiB of header fields; 25 000 fields",
    "8": "100 000 PING",
    "9": "100 000 SETTINGS",
    "10": "a million PRIORITY, or unknown frames",
    "11": "a million WINDOW_UPDATE",
    "12": "empty DATA; empty HEADERS",
    "14": "100 answers without a window",
    "15": "answers read at a byte a second",
    "22": "2000 streams where 128 may be",
    "23": "a prefix that says 1 GiB",
    "25": "smuggling",
    "26": "paths that are no method's",
    "29": "5000 cancels a second",
    "31": "DATA frames of a byte",
    "A1": "768 answers of 300 KiB, unread",
    "A6": "128 calls and gone, three times a second",
}
# These take the time that the row says.
SLOW = ("5", "6", "14", "15", "A1")

# Starts a proxy at the first port, in front of the second one.
Start = Callable[[World, int, int], Process]


def envoy(world: World, port: int, backend: int) -> Process:
    upstream = cluster("upbeat", [f"127.0.0.1:{backend}"], {})
    del upstream["health_checks"]
    # A gRPC call may take as long as it likes.
    route = {"cluster": "upbeat", "timeout": "0s"}
    run_envoy(world, [upstream], [envoy_listener(route, port)])
    return world.started[-1]


def haproxy(world: World, port: int, backend: int) -> Process:
    sections = f"""
frontend calls
    bind 127.0.0.1:{port} proto h2
    default_backend backend
backend backend
    server backend 127.0.0.1:{backend} proto h2
"""
    return run_haproxy(world, sections)


def nghttpx(world: World, port: int, backend: int) -> Process:
    front, back = f"127.0.0.1,{port};no-tls", f"127.0.0.1,{backend};;proto=h2"
    single = ("--workers=1", "--single-process", "--log-level=ERROR", "--no-ocsp")
    return world.start("nghttpx", f"--frontend={front}", f"--backend={back}", *single)


PEERS: dict[str, Start] = {"Envoy": envoy, "HAProxy": haproxy, "nghttpx": nghttpx}


def attacker() -> Path:
    """The attacking program, built."""
    words = ("cargo", "test", "--locked", "--test", "attack", "--no-run")
    built = command(*words, "--message-format=json", within=1200, cwd=ROOT)
    lines = [json.loads(line) for line in built.out.splitlines() if line.startswith("{")]
    found = [it["executable"] for it in lines if it.get("executable") and "test" in it["target"]["kind"]]
    if not found:
        raise RuntimeError(built.err)
    return Path(found[-1])


def attack(world: World, program: Path, row: str, options: list[str | Path]) -> dict[str, Any]:
    """How one row went, as the program says."""
    report = world.directory / "report.json"
    slow = ["--slow"] if row in SLOW else []
    words = [program, "--strict", "--only", row, "--json", report, *slow, *options]
    subprocess.run(list(map(str, words)), stdout=subprocess.DEVNULL, check=False, timeout=600)
    return json.loads(report.read_text())[0]


def against_peer(program: Path, binary: Path, row: str, name: str) -> dict[str, Any]:
    with ExitStack() as stack:
        world = World(binary, stack)
        port, backend = unused_port(), unused_port()
        process = PEERS[name](world, port, backend)
        eventually(f"{name} listens", lambda: listens(port))
        options = ["--target", f"127.0.0.1:{port}", "--backend-port", str(backend)]
        return attack(world, program, row, [*options, "--pid", str(process.child.pid), "--peer", name])


def listens(port: int) -> bool:
    """Whether a socket listens there; nothing is connected to it."""
    ends = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(it.split()[1].endswith(f":{port:04X}") and it.split()[3] == "0A" for it in ends)


def against_upbeat(program: Path, binary: Path, row: str) -> dict[str, Any]:
    with ExitStack() as stack:
        return attack(World(binary, stack), program, row, ["--binary", binary])


def cell(outcome: dict[str, Any]) -> str:
    """`holds`, or what was over."""
    if outcome["failure"]:
        return f"failed: {outcome['failure']}"
    return "; ".join(words(it) for it in outcome["figures"] if not it["ok"]) or "holds"


def words(figure: dict[str, Any]) -> str:
    name, measured = figure["name"], figure["measured"]
    if measured.startswith("["):
        return f"{len(json.loads(measured))} {name}"
    return f"{name} {measured}".replace("inf s", "never").replace("inf", "all")


def main(arguments: list[str]) -> int:
    binary = Path(arguments[0]) if arguments else ROOT / "target/release/upbeat"
    rows = arguments[1:] or list(ROWS)
    if not binary.is_file():
        print(f"{binary}: no such file; build it with cargo build --release", file=sys.stderr)
        return 2
    program, binary = attacker(), binary.resolve()
    print(f"| attack | Upbeat | {' | '.join(PEERS)} |")
    print("|---" * (2 + len(PEERS)) + "|", flush=True)
    failed = False
    for row in rows:
        ours = against_upbeat(program, binary, row)
        cells = [cell(ours), *(cell(against_peer(program, binary, row, name)) for name in PEERS)]
        failed |= cells[0] != "holds"
        print(f"| {ROWS[row]} | {' | '.join(cells)} |", flush=True)
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))

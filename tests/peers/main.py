"""Runs the cases, one after the other, and says how each went."""

import logging
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from cases import (
    announced,
    answers,
    balancers,
    clients,
    conformance,
    drain,
    fleets,
    forwarding,
    guarded,
    handshakes,
    identities,
    outage,
    overload,
    probers,
    probes,
    proxied,
    reflection,
    restarts,
    scanner,
    tls_balancers,
    tls_clients,
    tls_upstreams,
    tokens,
)
from suite import CASES, FOLLOWED, HERE, RESTARTED, Case, World

MODULES = (
    answers,
    reflection,
    outage,
    overload,
    restarts,
    scanner,
    forwarding,
    handshakes,
    probes,
    proxied,
    announced,
    balancers,
    fleets,
    clients,
    tls_balancers,
    tls_clients,
    tls_upstreams,
    identities,
    tokens,
    guarded,
    probers,
    drain,
    conformance,
)


def main(arguments: list[str]) -> int:
    binary = Path(arguments[0]) if arguments else HERE.parent.parent / "target/release/upbeat"
    words = arguments[1:]
    # What libraries say of calls that are meant to fail.
    logging.disable(logging.CRITICAL)
    if not binary.is_file():
        print(f"{binary}: no such file; build it with cargo build --release", file=sys.stderr)
        return 2
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    chosen = [case for case in CASES if not words or any(word in case.sentence for word in words)]
    failed = 0
    began = time.monotonic()
    for case in chosen:
        failed += not run(case, binary.resolve())
    if FOLLOWED:
        print("seconds from the death of the last backend to removal, and from its return to use,")
        print("where the proxy probes every 0.5 s, balancers every 0.2 s, and two in a row decide:")
    for it in FOLLOWED:
        print(f"      {it.removed:5.2f}  {it.back:5.2f}  {it.who}")
    if RESTARTED:
        print("rolling restarts of three backends under eight callers: calls, those that were lost,")
        print("of these begun by a backend, and the 99th percentile in milliseconds:")
    for it in RESTARTED:
        numbers = f"{it.calls:6}  {it.lost:5}  {it.begun:5}  {it.p99:7.1f}"
        print(f"      {numbers}  {it.form:8}  {it.who}: {it.codes}")
    print(f"{len(chosen) - failed} passed, {failed} failed in {time.monotonic() - began:.0f} s")
    return 1 if failed or not chosen else 0


def run(case: Case, binary: Path) -> bool:
    """One case, in a world of its own that is gone after it, whether it passed or not."""
    began = time.monotonic()
    failure = note = None
    world = None
    signal.alarm(case.limit)
    try:
        with ExitStack() as stack:
            world = World(binary, stack)
            note = case.function(world)
    except Exception:
        failure = traceback.format_exc()
    finally:
        signal.alarm(0)
    took = time.monotonic() - began
    print(f"{'FAIL' if failure else 'pass'}  {took:5.1f} s  {case.sentence}", end="")
    print(f": {note}" if note else "", flush=True)
    if failure:
        print(failure, file=sys.stderr)
        print(world.logs() if world else "", file=sys.stderr, flush=True)
    return failure is None


def too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError("the case takes too long")


sys.exit(main(sys.argv[1:]))

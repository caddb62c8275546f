"""Runs the cases, one after the other, and says how each went."""

import logging
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from cases import (
    answers,
    balancers,
    clients,
    conformance,
    drain,
    fleets,
    forwarding,
    outage,
    probers,
    probes,
    reflection,
)
from suite import CASES, FOLLOWED, HERE, World

# The longest that one case may take, in seconds.
LIMIT = 60
MODULES = (
    answers,
    reflection,
    outage,
    forwarding,
    probes,
    balancers,
    fleets,
    clients,
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
        failed += not run(case.sentence, case.function, binary.resolve())
    if FOLLOWED:
        print("seconds from the death of the last backend to removal, and from its return to use,")
        print("where the proxy probes every 0.5 s, balancers every 0.2 s, and two in a row decide:")
    for it in FOLLOWED:
        print(f"      {it.removed:5.2f}  {it.back:5.2f}  {it.who}")
    print(f"{len(chosen) - failed} passed, {failed} failed in {time.monotonic() - began:.0f} s")
    return 1 if failed or not chosen else 0


def run(sentence: str, function: Callable[[World], str | None], binary: Path) -> bool:
    """One case, in a world of its own that is gone after it, whether it passed or not."""
    began = time.monotonic()
    failure = note = None
    world = None
    signal.alarm(LIMIT)
    try:
        with ExitStack() as stack:
            world = World(binary, stack)
            note = function(world)
    except Exception:
        failure = traceback.format_exc()
    finally:
        signal.alarm(0)
    took = time.monotonic() - began
    print(f"{'FAIL' if failure else 'pass'}  {took:5.1f} s  {sentence}", end="")
    print(f": {note}" if note else "", flush=True)
    if failure:
        print(failure, file=sys.stderr)
        print(world.logs() if world else "", file=sys.stderr, flush=True)
    return failure is None


def too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"the case takes more than {LIMIT} s")


sys.exit(main(sys.argv[1:]))

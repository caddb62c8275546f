"""One backend in a process of its own, to be killed: prints its address."""

import signal
from contextlib import ExitStack
from pathlib import Path

from backends import Backend
from suite import World

with ExitStack() as stack:
    backend = Backend(World(Path(), stack), takes=0.02)
    print(backend.address, flush=True)
    signal.pause()

"""More calls than a backend can serve."""

import json
from statistics import median
from typing import Any

from backends import Backend, protoset
from suite import BIN, TRACES, World, case, command, configuration, equal

# What the backend does at a time, by its threads, and how long each call takes it, in seconds.
AT_ONCE = 32
TAKES = 0.05
# Of one measurement, in seconds.
LASTS = 6
SPAN = {"resource_spans": [{"scope_spans": [{"spans": [{"name": "span"}]}]}]}


@case("an adaptive bound keeps calls short before a grpcio backend with more calls than threads")
def adaptive(world: World) -> str:
    backend = Backend(world, takes=TAKES)
    sections = configuration([backend.address])
    upstream = sections["upstreams"]["otlp"]
    # An Export would wait behind the others until it is too late, and the backend be called dead.
    upstream["probe"]["checks"] = [{"tcp": {}}]
    without, none = measure(world, sections)
    equal(none, 0, "calls turned away without a bound")
    upstream["admission"] = {"adaptive": True, "max_queue": 0}
    bounded, turned_away = measure(world, sections)
    times = [f"{median(it) * 1000:.0f} ms" for it in (without, bounded)]
    rates = [f"{len(it) / LASTS:.0f}/s" for it in (without, bounded)]
    words = f"{times[0]} at {rates[0]} without it, {times[1]} at {rates[1]} with it"
    equal(median(bounded) < median(without) / 2, True, f"half as long: {words}")
    equal(len(bounded) > len(without) * 0.6, True, f"as many: {words}")
    equal(turned_away > 0, True, "calls are turned away")
    return f"{words}, {turned_away} turned away"


def measure(world: World, sections: dict[str, Any]) -> tuple[list[float], int]:
    """What the calls took that went well, in seconds, and how many were turned away by 14."""
    proxy = world.proxy(sections).wait_until("SERVING", TRACES)
    output = world.directory / "ghz.json"
    options = ("--insecure", "--protoset", protoset(world), "--call", f"{TRACES}/Export")
    load = ("-d", json.dumps(SPAN), "-z", f"{LASTS}s", "--duration-stop", "wait")
    # More often than the backend can, from more callers than it has threads.
    load += ("-c", str(8 * AT_ONCE), "--connections", "8", "-r", str(int(2 * AT_ONCE / TAKES)))
    report = ("-O", "json", "-o", output)
    done = command(BIN / "ghz", *options, *load, *report, proxy["otlp"], within=LASTS + 20)
    equal(done.code, 0, done.err)
    calls = json.loads(output.read_text())["details"]
    equal({call["status"] for call in calls} - {"OK", "Unavailable"}, set(), "other statuses")
    taken = [call["latency"] / 1e9 for call in calls if call["status"] == "OK"]
    return taken, len(calls) - len(taken)

"""Health clients of gRPC's libraries: Check, Watch, and channels that watch by themselves."""

import json
import signal
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backends import Backend, channel
from cases.answers import down, up
from cases.fleets import passes_over
from fronts import HEALTHY, UNHEALTHY, Front, exports_by, grpc_go, grpc_js
from suite import TRACES, Process, Proxy, World, case, configuration, equal, eventually

UNKNOWN = "nobody.knows.It"


def checks(world: World, client: Any) -> None:
    """A client's Check while the proxy serves and while it does not; then its Watch."""
    serving, failing = up(world), down(world)
    wanted = (
        (serving, "", "SERVING"),
        (serving, TRACES, "SERVING"),
        (serving, UNKNOWN, "NOT_FOUND"),
        (failing, "", "NOT_SERVING"),
        (failing, "tempo", "NOT_SERVING"),
    )
    # All at once, for Node.js is slow to start.
    started = [
        (client(world, "check", proxy[listener], service), said)
        for proxy, service, said in wanted
        for listener in ("otlp", "tempo", "health")
    ]
    for check, said in started:
        code = check.wait()
        words = check.text().strip().upper().replace("NOTFOUND", "NOT_FOUND")
        equal((words, code), (said, int(said == "NOT_FOUND")))


def watches(world: World, client: Any) -> None:
    """A client's Watch through a backend's death and return, to the end of the proxy."""
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
    watched = [client(world, "watch", proxy["otlp"], service) for service in ("", TRACES)]
    unknown = client(world, "watch", proxy["otlp"], UNKNOWN)
    seen = ["SERVING"]
    says(watched, seen)
    for act, status in ((backend.stop, "NOT_SERVING"), (backend.start, "SERVING")):
        act()
        seen.append(status)
        says(watched, seen)
    says([unknown], ["SERVICE_UNKNOWN"])
    proxy.signal(signal.SIGTERM)
    says(watched, [*seen, "NOT_SERVING", "UNAVAILABLE"])
    equal([it.wait() for it in (*watched, unknown)], [1, 1, 1], "exit codes")


def says(clients: list[Process], wanted: list[str]) -> None:
    for client in clients:
        eventually(
            f"{wanted} in {client.text()!r}",
            lambda: client.text().upper().split() == wanted,
        )


@case("grpc-go's Check says SERVING, NOT_SERVING and NOT_FOUND")
def go_check(world: World) -> None:
    checks(world, grpc_go)


@case("grpc-go's Watch follows the backend, and is told of the drain")
def go_watch(world: World) -> None:
    watches(world, grpc_go)


@case("grpc-js's Check says SERVING, NOT_SERVING and NOT_FOUND")
def js_check(world: World) -> None:
    checks(world, grpc_js)


@case("grpc-js's Watch follows the backend, and is told of the drain")
def js_watch(world: World) -> None:
    watches(world, grpc_js)


@case("grpcio's Check says SERVING, NOT_SERVING and NOT_FOUND")
def python_check(world: World) -> None:
    serving, failing = up(world), down(world)

    def says(proxy: Proxy, service: str, wanted: str) -> None:
        for listener in ("otlp", "tempo", "health"):
            stub = health_pb2_grpc.HealthStub(channel(world.stack, proxy[listener]))
            try:
                reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
                said = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
            except grpc.RpcError as error:
                said = error.code().name
            equal(said, wanted, f"{listener} {service}")

    for service in ("", TRACES):
        says(serving, service, "SERVING")
        says(failing, service, "NOT_SERVING")
    says(serving, UNKNOWN, "NOT_FOUND")


@case("grpc-go's channel, told to check health by Watch, passes over a proxy without backends")
def go_channel(world: World) -> str:
    def start(world: World, addresses: list[str]) -> Front:
        follower = grpc_go(world, "follow", TRACES, *addresses)
        spreader = grpc_go(world, "spread", TRACES, *addresses)
        words = {"READY": HEALTHY, "TRANSIENT_FAILURE": UNHEALTHY}

        def states() -> dict[str, str]:
            lines = [line.split() for line in whole_lines(follower)]
            return {address: words.get(state, state) for address, state in lines}

        def exports(count: int) -> list[str]:
            # The next one has begun already.
            first = len(whole_lines(spreader)) + 1
            eventually("it exports", lambda: len(whole_lines(spreader)) >= first + count)
            return whole_lines(spreader)[first : first + count]

        return Front(states, exports)

    return passes_over(world, "grpc-go's channel, by Watch", start)


def whole_lines(process: Process) -> list[str]:
    return process.text().rpartition("\n")[0].splitlines()


@case("grpcio's channel, told to check health by Watch, passes over a proxy without backends")
def python_channel(world: World) -> str:
    def start(world: World, addresses: list[str]) -> Front:
        seen: dict[str, str] = {}
        words = {"READY": HEALTHY, "TRANSIENT_FAILURE": UNHEALTHY}
        for address in addresses:

            def note(state: grpc.ChannelConnectivity, address: str = address) -> None:
                seen[address] = words.get(state.name, state.name)

            checked_channel(world, [address]).subscribe(note, try_to_connect=True)
        return Front(lambda: dict(seen), exports_by(checked_channel(world, addresses)))

    return passes_over(world, "grpcio's channel, by Watch", start)


def checked_channel(world: World, addresses: list[str]) -> grpc.Channel:
    """A channel that spreads over the addresses whose service says SERVING."""
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": TRACES},
    }
    options = [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    target = f"ipv4:{','.join(addresses)}"
    return world.stack.enter_context(grpc.insecure_channel(target, options=options))

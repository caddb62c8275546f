"""Reflection, by grpcurl without a proto file."""

import json

from backends import Backend
from suite import BIN, HEALTH_PROTO, Output, World, case, command, configuration, contains, equal

HEALTH = {"reflection": True, "services": {"tempo": {"all": ["tempo"]}}}


def grpcurl(*arguments: str) -> Output:
    return command(BIN / "grpcurl", "-plaintext", "-max-time", "5", *arguments)


@case("grpcurl lists, describes and calls the health service by reflection, without a proto file")
def reflection(world: World) -> None:
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address], health=HEALTH)).wait_until("SERVING")
    services = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    for listener in ("otlp", "tempo", "health"):
        address = proxy[listener]
        equal(grpcurl(address, "list").out.split(), services)
        tempo = json.dumps({"service": "tempo"})
        done = grpcurl("-d", tempo, address, "grpc.health.v1.Health/Check")
        equal(json.loads(done.out or "0"), {"status": "SERVING"}, done.err)
        done = grpcurl(address, "grpc.health.v1.Health/List")
        equal(json.loads(done.out)["statuses"]["tempo"], {"status": "SERVING"}, done.err)
        done = grpcurl(address, "opentelemetry.proto.collector.trace.v1.TraceService/Export")
        contains(done.err, "does not expose service")


@case("grpcurl describes the health service by reflection as it does from its proto file")
def reflection_is_the_file(world: World) -> None:
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address], health=HEALTH)).wait_until("SERVING")
    for name in ("Health", "HealthCheckRequest", "HealthCheckResponse", "HealthListResponse"):
        name = f"grpc.health.v1.{name}"
        seen = grpcurl(proxy["otlp"], "describe", name)
        file = command(BIN / "grpcurl", *HEALTH_PROTO, "describe", name)
        words = [line for line in file.out.splitlines() if not line.strip().startswith("//")]
        equal([line for line in seen.out.splitlines() if line], [line for line in words if line])

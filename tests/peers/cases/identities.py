"""Clients that are known by their certificates: each calls for the tenant that its names say, and
for no other, whatever it says itself."""

from contextlib import ExitStack

import grpc

from backends import Backend, channel, export, protoset
from certificates import SPIFFE, Authority, Pair, secured
from suite import BIN, TRACES, Proxy, World, case, command, configuration, contains, equal

ORG = "x-scope-orgid"
# The first that fits counts.
IDENTITIES = [
    {"san": SPIFFE, "tenant": "mesh"},
    {"san": "agent.test", "tenant": "named"},
    {"san": "spiffe://cluster.local/ns/loki/*", "tenant": "below"},
]
# What a client says of its tenant.
SAID = ((), ("named",), ("mesh", "below"))
STRANGER = "a certificate that is not known here"


class Door:
    """A proxy whose `otlp` wants certificates, while at `tempo` they are optional."""

    def __init__(self, world: World):
        self.ca = Authority(world)
        self.backend = Backend(world)
        whole = configuration([self.backend.address])
        whole = secured(whole, self.ca.pair("localhost"), client_ca_file=str(self.ca.file))
        for listener in whole["listeners"][:2]:
            listener["auth"] = {"mtls": {"identities": IDENTITIES}}
        whole["listeners"][1]["tls"]["client_auth"] = "optional"
        # So that all that the backend notes are calls.
        for upstream in whole["upstreams"].values():
            upstream["probe"]["checks"] = [{"tcp": {}}]
        self.proxy: Proxy = world.proxy(whole).wait_until("SERVING")
        self.known = [
            (self.ca.pair(SPIFFE), "mesh"),
            (self.ca.pair("agent.test"), "named"),
            (self.ca.pair("spiffe://cluster.local/ns/loki/sa/canary"), "below"),
            (self.ca.pair("spiffe://cluster.local/ns/loki/sa/canary", "agent.test"), "named"),
            (self.ca.pair("other.test", SPIFFE), "mesh"),
        ]
        # Of the right authority, with names that are nearly right.
        self.unknown = [
            self.ca.pair(name)
            for name in ("other.test", "a.agent.test", f"{SPIFFE}/x", "spiffe://cluster.local")
        ]

    def heard(self, name: str) -> list[str | bytes]:
        """What the backend was told under a name by the last call; it forgets it."""
        metadata, self.backend.metadata = self.backend.metadata, []
        return [value for key, value in metadata if key == name]

    def untouched(self) -> None:
        equal(self.backend.metadata, [], "a call that the backend saw")


@case("grpcio calls for the tenant of its certificate alone; a stranger gets 7, nobody 16")
def grpcio(world: World) -> None:
    door = Door(world)

    def calls(on: grpc.Channel, said: tuple[str, ...]) -> str:
        method = on.unary_unary("/peers.Echo/Unary")
        try:
            method(b"", metadata=[(ORG, tenant) for tenant in said], timeout=5)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "OK"

    def connected(stack: ExitStack, listener: str, own: Pair | None) -> grpc.Channel:
        return channel(stack, door.proxy[listener], door.ca.client(own))

    with ExitStack() as stack:
        for listener in ("otlp", "tempo"):
            for own, tenant in door.known:
                on = connected(stack, listener, own)
                for said in SAID:
                    equal(calls(on, said), "OK")
                    equal(door.heard(ORG), [tenant], f"{tenant}, {said}")
            for own in door.unknown:
                on = connected(stack, listener, own)
                for said in SAID:
                    equal(calls(on, said), f"PERMISSION_DENIED: {STRANGER}")
                    door.untouched()
        on = connected(stack, "tempo", None)
        for said in SAID:
            equal(calls(on, said), "UNAUTHENTICATED: no credentials")
            door.untouched()
        # One that is shown must be good where none need be.
        foreign = Authority(world, "other").pair(SPIFFE)
        contains(calls(connected(stack, "tempo", foreign), ()), "UNAVAILABLE")
        door.untouched()
        # Many connections at a time, and each is its own.
        both = [(connected(stack, "otlp", own), tenant) for own, tenant in door.known]
        for _ in range(20):
            for on, tenant in both:
                export(on)
                equal(door.heard(ORG), [tenant])


@case("grpcurl calls for the tenant of its certificate alone; a stranger gets 7, nobody 16")
def grpcurl(world: World) -> None:
    door = Door(world)
    shape = protoset(world)

    def calls(listener: str, own: Pair | None, said: tuple[str, ...] = ("mesh", "named")) -> str:
        files = ("-cert", own.cert, "-key", own.key) if own else ()
        headers = [word for tenant in said for word in ("-H", f"{ORG}: {tenant}")]
        done = command(
            *(BIN / "grpcurl", "-cacert", door.ca.file, "-authority", "localhost", *files),
            *("-protoset", shape, "-max-time", "5", "-d", "{}", *headers),
            *(door.proxy[listener], f"{TRACES}/Export"),
        )
        return f"{done.code} {done.out}{done.err}"

    for own, tenant in door.known[:2]:
        for said in SAID:
            contains(calls("otlp", own, said), "0 {}")
            equal(door.heard(ORG), [tenant], f"{tenant}, {said}")
    contains(calls("tempo", door.known[0][0]), "0 {}")
    equal(door.heard(ORG), ["mesh"])
    for listener in ("otlp", "tempo"):
        said = calls(listener, door.unknown[0])
        contains(said, "Code: PermissionDenied", f"Message: {STRANGER}")
        door.untouched()
    contains(calls("tempo", None), "Code: Unauthenticated", "Message: no credentials")
    door.untouched()

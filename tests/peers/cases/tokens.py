"""Clients with tokens that an issuer has signed: PyJWT signs, a web server of Python's has the
keys, and each client calls for the tenant of its token, or tells why it may not."""

import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from backends import Backend, channel, pages, protoset, unused_port
from suite import (
    BIN,
    TRACES,
    Proxy,
    World,
    case,
    command,
    configuration,
    contains,
    equal,
    eventually,
)

ORG = "x-scope-orgid"
ISSUER = "https://issuer.test/"
EXPORTER = "opentelemetry.exporter.otlp.proto.grpc.exporter"
KINDS = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Signer:
    """An issuer's key."""

    def __init__(self, name: str, kind: str = "ES256"):
        self.name, self.kind = name, kind
        self.key = KINDS[kind]()

    def token(self, tenant: str = "team-a", **others: Any) -> str:
        """One that is good, with other claims in the place of its own."""
        good = {"iss": ISSUER, "aud": "upbeat", "tenant": tenant, "exp": time.time() + 60}
        return jwt.encode({**good, **others}, self.key, self.kind, {"kid": self.name})


def key_set(*signers: Signer) -> tuple[int, bytes]:
    """What the issuer answers."""
    keys = []
    for it in signers:
        algorithm = jwt.get_algorithm_by_name(it.kind)
        public = json.loads(algorithm.to_jwk(it.key.public_key()))
        keys.append({**public, "kid": it.name, "use": "sig", "alg": it.kind})
    return 200, json.dumps({"keys": keys}).encode()


class Door:
    """A proxy that takes tokens by the keys at a port of this machine, with `health` for that
    too."""

    def __init__(self, world: World, port: int, health: bool = False, **rules: Any):
        self.backend = Backend(world)
        whole = configuration([self.backend.address])
        url = f"http://127.0.0.1:{port}/keys"
        rules = {"jwks_url": url, "issuer": ISSUER, "audience": ["upbeat"], **rules}
        whole["listeners"][0]["auth"] = {"jwt": rules, "health": health}
        # So that all that the backend notes are calls.
        for upstream in whole["upstreams"].values():
            upstream["probe"]["checks"] = [{"tcp": {}}]
        self.proxy: Proxy = world.proxy(whole).wait_until("SERVING")
        self.address = self.proxy["otlp"]
        self.on = channel(world.stack, self.address)

    def heard(self) -> dict[str, list[str | bytes]]:
        """What the backend was told by the last call of who makes it; it forgets it."""
        metadata, self.backend.metadata = self.backend.metadata, []
        names = (ORG, "authorization")
        return {name: [value for key, value in metadata if key == name] for name in names}

    def calls(self, *tokens: str) -> str:
        """How a call by grpcio ends, which says another tenant of itself, twice."""
        metadata = [("authorization", f"Bearer {token}") for token in tokens]
        metadata += [(ORG, "team-x"), (ORG, "team-y")]
        try:
            self.on.unary_unary("/peers.Echo/Unary")(b"", metadata=metadata, timeout=5)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "OK"


class Bad(NamedTuple):
    token: str
    details: str


def bad(signer: Signer) -> dict[str, Bad]:
    """Tokens that must not pass where the key is `signer`'s."""
    forger = Signer(signer.name)
    scope = "a token of another issuer or for another audience"
    return {
        "expired": Bad(
            signer.token(exp=time.time() - 60), "a token that is not valid at this time"
        ),
        "wrong issuer": Bad(signer.token(iss="https://other.test/"), scope),
        "wrong audience": Bad(signer.token(aud="other"), scope),
        "wrong key": Bad(forger.token(), "a token that is not valid"),
    }


# A call with a token: whether it passed, and what the client tells.
Calls = Callable[[Door, str], tuple[bool, str]]


def proves(world: World, calls: Calls, says: Callable[[Bad], tuple[str, ...]]) -> None:
    """Holds a client to it: a good token passes, each bad one is told as `says` has it."""
    signers = [Signer(kind, kind) for kind in KINDS]
    server = pages(world, key_set(*signers))
    door = Door(world, server.server_port)
    eventually("the keys are there", lambda: door.calls(signers[0].token()) == "OK")
    for signer in signers:
        door.heard()
        passed, text = calls(door, signer.token(f"team-{signer.kind}"))
        equal(passed, True, text)
        equal(door.heard(), {ORG: [f"team-{signer.kind}"], "authorization": []})
    for name, it in bad(signers[0]).items():
        passed, text = calls(door, it.token)
        equal(passed, False, f"{name}: {text}")
        contains(text, *says(it))
    equal(door.backend.metadata, [], "a call that the backend saw")


@case("grpcio calls for the tenant of its token alone, and says UNAUTHENTICATED where it is bad")
def grpcio(world: World) -> None:
    def calls(door: Door, token: str) -> tuple[bool, str]:
        # More than one is none.
        contains(door.calls(token, token), "UNAUTHENTICATED: more than one authorization")
        said = door.calls(token)
        return said == "OK", said

    proves(world, calls, lambda it: (f"UNAUTHENTICATED: {it.details}",))


@case("grpcurl calls for the tenant of its token alone, and says Unauthenticated where it is bad")
def grpcurl(world: World) -> None:
    shape = protoset(world)

    def calls(door: Door, token: str) -> tuple[bool, str]:
        done = command(
            *(BIN / "grpcurl", "-plaintext", "-protoset", shape, "-max-time", "5", "-d", "{}"),
            *("-H", f"authorization: Bearer {token}", "-H", f"{ORG}: team-x"),
            *(door.address, f"{TRACES}/Export"),
        )
        return done.code == 0, done.out + done.err

    proves(world, calls, lambda it: ("Code: Unauthenticated", f"Message: {it.details}"))


@case("the OpenTelemetry SDK exports by the token in its environment; with a bad one it gives up")
def sdk(world: World) -> None:
    def calls(door: Door, token: str) -> tuple[bool, str]:
        with ExitStack() as stack:
            words = heeded(stack)
            passed = exports(door.address, token)
        # What 16 refuses it does not send again.
        equal(len(words), 0 if passed else 1, f"{words}")
        return passed, "".join(words)

    proves(world, calls, lambda it: (f"StatusCode.UNAUTHENTICATED, error details: {it.details}",))


def heeded(stack: ExitStack) -> list[str]:
    """What the exporter logs from now on."""
    words: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            words.append(record.getMessage())

    logger, keeper = logging.getLogger(EXPORTER), Keeper()
    logger.addHandler(keeper)
    stack.callback(logger.removeHandler, keeper)
    stack.enter_context(mock.patch.object(logger, "propagate", False))
    # It has one that says nothing twice.
    stack.enter_context(mock.patch.object(logger, "filters", []))
    before = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    stack.callback(logging.disable, before)
    return words


def exports(address: str, token: str, within: int = 5) -> bool:
    """One span, by an exporter that has all that it knows from its environment."""
    named = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{token},{ORG}=team-x",
        # Within this time it tries again.
        "OTEL_EXPORTER_OTLP_TIMEOUT": str(within),
    }
    with mock.patch.dict(os.environ, named):
        exporter = OTLPSpanExporter()
    result = exporter.export([span()])
    exporter.shutdown()
    return result is SpanExportResult.SUCCESS


def span() -> ReadableSpan:
    made = TracerProvider().get_tracer("peers").start_span("span")
    made.end()
    return made


@case("grpc_health_probe and curl ask for health without a token, but not where it needs one too")
def health(world: World) -> None:
    signer = Signer("1")
    server = pages(world, key_set(signer))
    door = Door(world, server.server_port)
    closed = Door(world, server.server_port, health=True)
    token = signer.token()
    for it in (door, closed):
        eventually("the keys are there", lambda it=it: it.calls(token) == "OK")

    def probe(door: Door, *options: str) -> tuple[int, str]:
        done = command(BIN / "grpc-health-probe", "-addr", door.address, *options)
        return done.code, done.out + done.err

    def get(door: Door, path: str, *options: str) -> str:
        done = command("curl", "-sSi", *options, f"http://{door.address}{path}")
        return done.out.lower()

    bearer = ("-rpc-header", f"authorization: Bearer {token}")
    for code, text in (probe(door), probe(closed, *bearer)):
        equal((code, "status: SERVING" in text), (0, True), text)
    code, text = probe(closed)
    equal(code, 3, text)
    contains(text, "code = Unauthenticated", "no credentials")
    for text in (get(door, "/healthz"), get(closed, "/healthz", "--oauth2-bearer", token)):
        contains(text, " 200 ok", "serving")
    contains(get(closed, "/healthz"), " 401 unauthorized", "www-authenticate: bearer realm=")
    contains(get(closed, "/livez"), " 200 ok")


@case("keys that an issuer changes: a token by a new one has it fetched, by an old one is refused")
def rotation(world: World) -> None:
    first, second, third = (Signer(name) for name in ("1", "2", "3"))
    old, new, unknown = first.token(), second.token(), third.token()
    server = pages(world, key_set(first))
    # One that asks where a token names another key, and one that asks all the time.
    door = Door(world, server.server_port)
    eventually("the keys are there", lambda: door.calls(old) == "OK")
    server.answer = key_set(first, second)
    equal(door.calls(new), NO_KEYS)
    eventually("the new key is there", lambda: door.calls(new) == "OK")
    equal((door.calls(old), door.calls(unknown)), ("OK", UNKNOWN))
    eager = Door(world, server.server_port, refresh_interval="200ms")
    eventually("the keys are there", lambda: eager.calls(old) == "OK")
    server.answer = key_set(second)
    eventually("the old key is gone", lambda: eager.calls(old) == UNKNOWN)
    eager.backend.metadata = []
    equal((eager.calls(old), eager.backend.metadata), (UNKNOWN, []))
    equal(eager.calls(new), "OK")


NO_KEYS = "UNAVAILABLE: the keys that tokens are checked by are not there yet"
UNKNOWN = "UNAUTHENTICATED: a token by a key that is not known"


@case("an issuer that is down at the start: calls get 14, exporters try again, and then all pass")
def down(world: World) -> str:
    signer, port = Signer("1"), unused_port()
    door = Door(world, port)
    equal(door.calls(signer.token()), NO_KEYS)
    equal(door.calls("no token"), "UNAUTHENTICATED: a token that is not valid")
    pool = world.stack.enter_context(ThreadPoolExecutor(1))
    exporting = pool.submit(exports, door.address, signer.token("team-sdk"), 20)
    refused = 'upbeat_denied_total{listener="otlp",reason="no_keys"}'
    eventually("the exporter was refused", lambda: door.proxy.metric(refused) >= 2)
    equal(door.backend.metadata, [], "a call that the backend saw")
    began = time.monotonic()
    pages(world, key_set(signer), port)
    eventually("calls pass", lambda: door.calls(signer.token()) == "OK")
    took = time.monotonic() - began
    equal(exporting.result(), True, "the exporter has sent its span")
    equal(door.backend.spans, ["span"])
    return f"{took:.1f} s after it is up"

"""What stands behind the proxy, and calls it from the front: servers and clients of grpcio."""

import http.server
import itertools
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import grpc
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from suite import TRACES, World, eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LARGE = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


class Backend:
    """A distributor: receives traces, tells its health, and echoes bytes in every call shape.
    `services` leaves some of that out; with `tenant` it wants to know the tenant, as Tempo does;
    with `credentials` it speaks TLS."""

    def __init__(
        self,
        world: World,
        services: tuple[str, ...] = ("traces", "health", "echo"),
        tenant: bool = False,
        takes: float = 0,
        credentials: grpc.ServerCredentials | None = None,
    ):
        self.services = services
        self.credentials = credentials
        self.tenant = tenant
        # How long an Export takes, in seconds.
        self.takes = takes
        self.health = SERVING
        self.spans: list[str] = []
        # The values of x-call, by which a test knows its calls.
        self.calls: list[str] = []
        self.metadata: list[tuple[str, str | bytes]] = []
        # Of the last Export that had spans: a probe has none.
        self.exported = self.metadata
        self.remaining: float | None = None
        self.cancelled = threading.Event()
        self.port = 0
        self.start()
        world.stack.callback(lambda: self.stop())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens, after a stop on the same port as before."""
        self.server = grpc.server(
            ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0), *LARGE]
        )
        self.server.add_generic_rpc_handlers([_Handler(self)])
        self.port = eventually("the backend's port is free", self._bind)
        self.server.start()

    def stop(self, grace: float = 0) -> None:
        """Ends it as grpcio does: no new calls, `grace` seconds for those that run."""
        self.server.stop(grace).wait()

    def _bind(self) -> int:
        address = f"127.0.0.1:{self.port}"
        try:
            if self.credentials:
                return self.server.add_secure_port(address, self.credentials)
            return self.server.add_insecure_port(address)
        except RuntimeError:
            return 0

    def export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        metadata = list(context.invocation_metadata())
        message = trace_service_pb2.ExportTraceServiceRequest.FromString(request)
        if message.resource_spans:
            self.exported = metadata
            time.sleep(self.takes)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(span.name for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse().SerializeToString()

    def check(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        tenants = [key for key, _ in context.invocation_metadata() if key == "x-scope-orgid"]
        if self.tenant and len(tenants) != 1:
            context.abort(grpc.StatusCode.UNKNOWN, "no org id")
        return health_pb2.HealthCheckResponse(status=self.health).SerializeToString()

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        if request == b"hang":
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(30)
        context.send_initial_metadata(INITIAL)
        context.set_trailing_metadata(TRAILING)
        if request == b"fail":
            context.set_trailing_metadata((*TRAILING, ("grpc-status-details-bin", DETAILS)))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, WORDS)
        return request

    def gather(self, requests: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
        return b"".join(requests)

    def split(self, request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        return (request[at : at + 1000] for at in range(0, len(request), 1000))

    def chat(self, requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        return (request[::-1] for request in requests)

    def _note(self, context: grpc.ServicerContext) -> None:
        self.metadata = list(context.invocation_metadata())
        self.remaining = context.time_remaining()
        self.calls += [value for key, value in self.metadata if key == "x-call"]


class _Handler(grpc.GenericRpcHandler):
    """The methods of a backend, all in bytes."""

    def __init__(self, backend: Backend):
        self.methods = {}
        if "traces" in backend.services:
            export = grpc.unary_unary_rpc_method_handler(backend.export)
            self.methods[f"/{TRACES}/Export"] = export
        if "health" in backend.services:
            check = grpc.unary_unary_rpc_method_handler(backend.check)
            self.methods["/grpc.health.v1.Health/Check"] = check
        if "echo" in backend.services:
            self.methods |= {
                "/peers.Echo/Unary": grpc.unary_unary_rpc_method_handler(backend.unary),
                "/peers.Echo/Gather": grpc.stream_unary_rpc_method_handler(backend.gather),
                "/peers.Echo/Split": grpc.unary_stream_rpc_method_handler(backend.split),
                "/peers.Echo/Chat": grpc.stream_stream_rpc_method_handler(backend.chat),
            }

    def service(self, handler_call_details):
        return self.methods.get(handler_call_details.method)


INITIAL = (("x-initial", "one"), ("x-initial", "two"), ("x-initial-bin", b"\x00\xff\x80"))
TRAILING = (("x-trailing", "one"), ("x-trailing", "two"), ("x-trailing-bin", b"\xff\x00"))
WORDS = "nicht möglich: 100 % belegt\n"
DETAILS = bytes(range(256))


def pages(world: World, answer: tuple[int, bytes] = (200, b"ready"), port: int = 0) -> "Pages":
    """A web server of Python's, whose answer to every GET may be set anew."""
    server = Pages(("127.0.0.1", port), _Page)
    server.answer = answer
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    world.stack.callback(thread.join)
    world.stack.callback(server.server_close)
    world.stack.callback(server.shutdown)
    return server


class Pages(http.server.ThreadingHTTPServer):
    daemon_threads = True
    answer: tuple[int, bytes]
    paths: list[str] = []


class _Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments) -> None:
        pass


def unused_port() -> int:
    """A port that nobody listens on, below those that the kernel gives to who asks for any: one of
    these may be somebody's before it is used."""
    for _ in range(100):
        port = random.randrange(18_000, 32_000)
        with socket.socket() as unused, suppress(OSError):
            unused.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no unused port")


def channel(
    stack: ExitStack,
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    name: str = "localhost",
) -> grpc.Channel:
    """A connection of its own, without retries that would hide a failure; with `credentials` under
    TLS, to a server whose certificate has `name`."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *LARGE]
    if not credentials:
        return stack.enter_context(grpc.insecure_channel(address, options=options))
    options.append(("grpc.ssl_target_name_override", name))
    return stack.enter_context(grpc.secure_channel(address, credentials, options=options))


def export(on: grpc.Channel, span: str = "span", call: str = "", timeout: float = 10) -> None:
    """Sends one span.

    Raises grpc.RpcError where the call fails."""
    request = trace_service_pb2.ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name=span)
    metadata = [("x-call", call)] if call else None
    method = on.unary_unary(f"/{TRACES}/Export")
    method(request.SerializeToString(), metadata=metadata, timeout=timeout)


def export_code(on: grpc.Channel, call: str = "") -> str:
    """How an Export ends, as the name of a gRPC code."""
    try:
        export(on, call=call)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def protoset(world: World) -> Path:
    """The shape of the trace service, for programs that must be told."""
    files = descriptor_pb2.FileDescriptorSet()

    def add(file) -> None:
        for dependency in file.dependencies:
            add(dependency)
        if file.name not in (known.name for known in files.file):
            file.CopyToProto(files.file.add())

    add(trace_service_pb2.DESCRIPTOR)
    return world.file("traces.protoset", files.SerializeToString())


class Failed(NamedTuple):
    """A call of `Load` that failed."""

    call: str
    code: str
    details: str
    began: float


class Load:
    """Exports from several threads, each on a connection of its own, one call after the other."""

    def __init__(self, address: str, threads: int = 8):
        self.passed: list[str] = []
        self.failed: list[Failed] = []
        # How long each call took, in seconds.
        self.took: list[float] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(address, number)) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Load":
        eventually("load is under way", lambda: len(self.passed) > 50 or self.failed)
        return self

    def __exit__(self, *_arguments) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, calls: int = 50) -> None:
        """Returns after so many further calls."""
        wanted = self.count() + calls
        eventually(f"{calls} more calls", lambda: self.count() >= wanted)

    def count(self) -> int:
        return len(self.passed) + len(self.failed)

    def codes(self) -> Counter[str]:
        return Counter(failed.code for failed in self.failed)

    def _run(self, address: str, number: int) -> None:
        with ExitStack() as stack:
            on = channel(stack, address)
            for count in itertools.count():
                if self._stop.is_set():
                    return
                call = f"{id(self)}-{number}-{count}"
                began = time.monotonic()
                try:
                    export(on, call=call)
                    self.passed.append(call)
                except grpc.RpcError as error:
                    code, details = error.code().name, error.details() or ""
                    self.failed.append(Failed(call, code, details, began))
                    # A client that is refused does not spin.
                    self._stop.wait(0.01)
                finally:
                    self.took.append(time.monotonic() - began)

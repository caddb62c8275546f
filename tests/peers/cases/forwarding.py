"""Calls through the proxy: all that was sent arrives, as it was sent, in both directions."""

import queue
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from backends import (
    DETAILS,
    INITIAL,
    TRAILING,
    WORDS,
    Backend,
    channel,
    protoset,
)
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

SPANS = 5000


def start(world: World) -> tuple[Backend, Proxy]:
    backend = Backend(world)
    return backend, world.proxy(configuration([backend.address])).wait_until("SERVING")


def tracing(address: str, compression: grpc.Compression) -> TracerProvider:
    """The OpenTelemetry SDK as an application sets it up."""
    exporter = OTLPSpanExporter(
        endpoint=f"http://{address}",
        insecure=True,
        headers=(("x-scope-orgid", "peers"),),
        compression=compression,
        timeout=30,
    )
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=SPANS))
    return provider


@case("the OpenTelemetry SDK exports plain and gzip, and every span arrives once")
def sdk(world: World) -> str:
    backend, proxy = start(world)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        backend.spans.clear()
        provider = tracing(proxy["otlp"], compression)
        tracer = provider.get_tracer("peers")
        names = [f"span {number}" for number in range(SPANS)]
        for name in names:
            tracer.start_span(name).end()
        equal(provider.force_flush(20_000), True, "flushed")
        provider.shutdown()
        equal(sorted(backend.spans), sorted(names), "spans")
        equal([value for key, value in backend.exported if key == "x-scope-orgid"], ["peers"])
    return f"2 × {SPANS} spans"


@case("spans that the OpenTelemetry SDK exports while no backend is up arrive when it is back")
def sdk_retries(world: World) -> None:
    backend, proxy = start(world)
    provider = tracing(proxy["otlp"], grpc.Compression.Gzip)
    tracer = provider.get_tracer("peers")
    tracer.start_span("before").end()
    equal(provider.force_flush(), True, "flushed")
    backend.stop()
    proxy.wait_until("NOT_SERVING")
    tracer.start_span("meanwhile").end()
    flushing = world.stack.enter_context(ThreadPoolExecutor(1)).submit(provider.force_flush, 20_000)
    eventually("an export was refused", lambda: refused(proxy))
    backend.start()
    equal(flushing.result(), True, "flushed")
    equal(backend.spans, ["before", "meanwhile"])
    provider.shutdown()


def refused(proxy: Proxy) -> bool:
    """Whether a call ended with 14, by the proxy's own count."""
    text = command("curl", "-sS", f"http://{proxy.admin}/metrics").out
    return any('code="UNAVAILABLE"' in line for line in text.splitlines())


@case("metadata passes unchanged both ways: duplicates in their order, binary values, trailers")
def metadata(world: World) -> None:
    backend, proxy = start(world)
    sent = [
        ("x-double", "one"),
        ("x-double", "two"),
        ("x-double", "one"),
        ("x-empty", ""),
        ("x-odd", "a, b;c=\"d\" %41 ~"),
        ("x-bytes-bin", bytes(range(256))),
        ("x-bytes-bin", b""),
        ("authorization", "Bearer secret"),
    ]
    for listener in ("otlp", "tempo"):
        call = channel(world.stack, proxy[listener]).unary_unary("/peers.Echo/Unary")
        reply, done = call.with_call(b"\x00\xff", metadata=sent, timeout=5)
        equal(reply, b"\x00\xff")
        names = {name for name, _ in sent}
        equal([(k, v) for k, v in backend.metadata if k in names], sent, "request metadata")
        added = {key for key, _ in backend.metadata} - names - {"user-agent"}
        equal(added, set(), "metadata that nobody sent")
        equal(tuple(tuple(it) for it in done.initial_metadata()), INITIAL, "initial metadata")
        equal(tuple(tuple(it) for it in done.trailing_metadata()), TRAILING, "trailing metadata")


@case("an error passes unchanged: code, words beyond ASCII, status details, trailing metadata")
def error(world: World) -> None:
    _, proxy = start(world)
    call = channel(world.stack, proxy["otlp"]).unary_unary("/peers.Echo/Unary")
    try:
        call(b"fail", timeout=5)
        raise AssertionError("the call passed")
    except grpc.RpcError as failure:
        equal(failure.code(), grpc.StatusCode.FAILED_PRECONDITION)
        equal(failure.details(), WORDS)
        trailing = tuple(tuple(it) for it in failure.trailing_metadata())
        equal(trailing, (*TRAILING, ("grpc-status-details-bin", DETAILS)))
    # The backend's own answer to a method that it does not have, trailers-only.
    try:
        channel(world.stack, proxy["otlp"]).unary_unary("/peers.Echo/Nothing")(b"", timeout=5)
        raise AssertionError("the call passed")
    except grpc.RpcError as failure:
        equal(failure.code(), grpc.StatusCode.UNIMPLEMENTED)
        equal(failure.details(), "Method not found!")


@case("messages of every size pass unchanged, plain and gzip, and too large ones get 8")
def sizes(world: World) -> None:
    _, proxy = start(world)
    for listener, limit in (("otlp", 4 << 20), ("tempo", 16 << 20)):
        call = channel(world.stack, proxy[listener]).unary_unary("/peers.Echo/Unary")
        for size in (0, 1, 16_383, 16_384, 16_385, 65_535, 1 << 20, limit):
            message = bytes(range(256)) * (size // 256 + 1)
            message = message[:size]
            for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
                reply = call(message, compression=compression, timeout=10)
                equal(reply == message, True, f"{size} bytes come back")
        try:
            call(bytes(limit + 1), timeout=10)
            raise AssertionError("the call passed")
        except grpc.RpcError as failure:
            equal(failure.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, failure.details())


@case("client, server and bidirectional streams pass every message in its order")
def streams(world: World) -> None:
    _, proxy = start(world)
    messages = [b"%d " % number * (number % 700) for number in range(1000)]
    whole = b"".join(messages)
    for listener in ("otlp", "tempo"):
        on = channel(world.stack, proxy[listener])
        gathered = on.stream_unary("/peers.Echo/Gather")(iter(messages), timeout=20)
        equal(gathered == whole, True, "what a client stream sent")
        split = list(on.unary_stream("/peers.Echo/Split")(whole, timeout=20))
        equal((b"".join(split) == whole, len(split)), (True, -(-len(whole) // 1000)))
        chatted = list(on.stream_stream("/peers.Echo/Chat")(iter(messages), timeout=20))
        equal(chatted == [message[::-1] for message in messages], True, "what a chat answered")


@case("a bidirectional stream answers each message before the next one is sent")
def ping_pong(world: World) -> None:
    _, proxy = start(world)
    sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    chat = channel(world.stack, proxy["otlp"]).stream_stream("/peers.Echo/Chat")
    replies = chat(iter(sent.get, None), timeout=20)
    for number in range(200):
        sent.put(b"%03d" % number)
        equal(next(replies), (b"%03d" % number)[::-1])
    sent.put(None)
    equal(list(replies), [], "after the end")


@case("a client's deadline reaches the backend, and so does its cancellation")
def deadline(world: World) -> None:
    backend, proxy = start(world)
    call = channel(world.stack, proxy["otlp"]).unary_unary("/peers.Echo/Unary")
    call(b"", timeout=7)
    # grpcio writes hundredths of a second, rounded up.
    equal(5 < (backend.remaining or 0) <= 7.01, True, f"{backend.remaining} s are left of 7")
    hanging = call.future(b"hang", timeout=25)
    eventually("the backend has the call", lambda: (backend.remaining or 0) > 20)
    hanging.cancel()
    equal(backend.cancelled.wait(5), True, "the backend sees the cancellation")


@case("grpcurl exports through the proxy, and HTTP/1.1 or another content type is told what to do")
def other_clients(world: World) -> None:
    backend, proxy = start(world)
    data = '{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "by grpcurl"}]}]}]}'
    shape = ("-plaintext", "-max-time", "5", "-protoset", protoset(world), "-d", data)
    done = command(BIN / "grpcurl", *shape, proxy["otlp"], f"{TRACES}/Export")
    equal((done.code, backend.spans), (0, ["by grpcurl"]), done.err)
    done = command(BIN / "grpcurl", *shape, proxy["health"], f"{TRACES}/Export")
    equal(done.code, 64 + 12, "on the listener that answers health only")
    url = f"http://{proxy['otlp']}/{TRACES}/Export"
    grpc_type = ("-H", "content-type: application/grpc")
    done = command("curl", "-sS", "-i", "--http1.1", *grpc_type, "-d", "", url)
    contains(done.out.lower(), "http/1.1 200", "grpc-status: 13")
    options = ("-o", "/dev/null", "-w", "%{http_code}", "-H", "content-type: text/plain", "-d", "")
    for version in ("--http1.1", "--http2-prior-knowledge"):
        equal(command("curl", "-sS", version, *options, url).out, "415")

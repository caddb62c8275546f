"""Health checks of every dialect, by the programs that people have."""

import json
import re

from backends import Backend, unused_port
from suite import (
    BIN,
    CHECK,
    HEALTH_PROTO,
    TRACES,
    Output,
    Proxy,
    World,
    case,
    command,
    configuration,
    contains,
    equal,
    eventually,
)

LISTENERS = ("otlp", "tempo", "health")
ALB = "ELB-HealthChecker/2.0"
VERSIONS = ("--http1.1", "--http2-prior-knowledge", "--http2")
PATHS = (CHECK, "/", "/healthz", "/readyz", "/ready")


def up(world: World, **sections) -> Proxy:
    """A proxy whose only backend is up."""
    backend = Backend(world)
    return world.proxy(configuration([backend.address], **sections)).wait_until("SERVING")


def down(world: World, **sections) -> Proxy:
    """A proxy whose only backend is down."""
    address = f"127.0.0.1:{unused_port()}"
    proxy = world.proxy(configuration([address], **sections))
    eventually("the endpoints are probed", lambda: proxy.reason() and proxy.reason("tempo"))
    return proxy


def grpcurl(address: str, method: str, service: str | None = None) -> Output:
    data = [] if service is None else ["-d", json.dumps({"service": service})]
    service_method = f"grpc.health.v1.Health/{method}"
    flags = ("-plaintext", "-max-time", "5", *HEALTH_PROTO)
    return command(BIN / "grpcurl", *flags, *data, address, service_method)


def curl(version: str, method: str, url: str, *options: str) -> tuple[int, str, str]:
    """Status, head and body of a reply."""
    verb = ("--head",) if method == "HEAD" else ("--request", method)
    done = command("curl", "-sS", "-i", "--max-time", "5", version, *verb, *options, url)
    equal(done.code, 0, f"curl {version} {method} {url}: {done.err}")
    text = done.out.replace("\r", "")
    # What comes before it with --http2 is the answer to the upgrade, if there is any.
    head, _, body = text.partition("\n\n")
    found = re.match(r"HTTP/(\S+) (\d+)", head)
    if not found:
        raise AssertionError(f"no HTTP: {text!r}")
    wanted = "2" if version == "--http2-prior-knowledge" else "1.1"
    equal(found[1], wanted, "HTTP version")
    return int(found[2]), head.lower(), body


@case("grpcurl Check says SERVING on every listener, for the whole and for a service")
def grpcurl_check(world: World) -> None:
    proxy = up(world)
    for listener in LISTENERS:
        for service in (None, "", TRACES, "tempo"):
            done = grpcurl(proxy[listener], "Check", service)
            equal((done.code, json.loads(done.out or "0")), (0, {"status": "SERVING"}), done.err)


@case("grpcurl Check of an unknown service is NOT_FOUND")
def grpcurl_unknown(world: World) -> None:
    proxy = up(world)
    for listener in LISTENERS:
        done = grpcurl(proxy[listener], "Check", "nobody.knows.It")
        # grpcurl exits with 64 and the code.
        equal(done.code, 64 + 5)
        contains(done.err, "Code: NotFound")


@case("grpcurl List names every service with its own status")
def grpcurl_list(world: World) -> None:
    backend = Backend(world)
    dead = [f"127.0.0.1:{unused_port()}"]
    proxy = world.proxy(configuration([backend.address], dead)).wait_until("SERVING", TRACES)
    wanted = {"": "NOT_SERVING", TRACES: "SERVING", "tempo": "NOT_SERVING"}
    for listener in LISTENERS:
        done = grpcurl(proxy[listener], "List")
        statuses = json.loads(done.out)["statuses"]
        equal({name: it["status"] for name, it in statuses.items()}, wanted)


@case("grpcurl Watch gets a message at once, for an unknown service SERVICE_UNKNOWN")
def grpcurl_watch(world: World) -> None:
    proxy = up(world)
    for service, status in ((TRACES, "SERVING"), ("nobody.knows.It", "SERVICE_UNKNOWN")):
        data = json.dumps({"service": service})
        watch = world.start(
            *(BIN / "grpcurl", "-plaintext", "-max-time", "20", *HEALTH_PROTO, "-d", data),
            *(proxy["otlp"], "grpc.health.v1.Health/Watch"),
        )
        eventually("a message", lambda: json.dumps(status) in watch.text())
        equal(watch.is_running(), True, "the stream is open")
        watch.kill()


@case("curl GET and HEAD say 200 on every listener and path, by HTTP/1.1, h2c and upgrade")
def curl_serving(world: World) -> str:
    proxy = up(world)
    requests = 0
    for listener in LISTENERS:
        for version in VERSIONS:
            for path in PATHS:
                url = f"http://{proxy[listener]}{path}"
                status, head, body = curl(version, "GET", url)
                equal((status, body.strip()), (200, "SERVING"), url)
                status, bodiless, body = curl(version, "HEAD", url)
                equal((status, body), (200, ""), url)
                contains(bodiless, "content-length: 7")
                requests += 2
    return f"{requests} requests"


@case("curl gets 503 on every path while the backend is down, and 200 from /livez all the same")
def curl_not_serving(world: World) -> None:
    proxy = down(world)
    for listener in LISTENERS:
        for version in VERSIONS:
            for path in PATHS:
                status, _, body = curl(version, "GET", f"http://{proxy[listener]}{path}")
                equal((status, body.strip()), (503, "NOT_SERVING"), path)
                equal(curl(version, "HEAD", f"http://{proxy[listener]}{path}")[0], 503, path)
            equal(curl(version, "GET", f"http://{proxy[listener]}/livez")[0], 200, "/livez")


@case("curl asks for one service by ?service=, and gets 404 for an unknown one")
def curl_service(world: World) -> None:
    backend = Backend(world)
    dead = [f"127.0.0.1:{unused_port()}"]
    proxy = world.proxy(configuration([backend.address], dead)).wait_until("SERVING", TRACES)
    wanted = {"": 503, TRACES: 200, "tempo": 503, "nobody": 404, TRACES.replace(".", "%2E"): 200}
    for listener in LISTENERS:
        for version in VERSIONS:
            for service, status in wanted.items():
                url = f"http://{proxy[listener]}{CHECK}?service={service}"
                equal(curl(version, "GET", url)[0], status, url)


@case("curl gets 405 for other methods, and 404 for a path that nobody has")
def curl_refused(world: World) -> None:
    proxy = up(world)
    for listener in LISTENERS:
        base = f"http://{proxy[listener]}"
        for version in ("--http1.1", "--http2-prior-knowledge"):
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                for path in (*PATHS, "/livez"):
                    status, head, _ = curl(version, method, base + path)
                    equal(status, 405, f"{method} {path}")
                    contains(head, "allow: get, head")
            equal(curl(version, "GET", f"{base}/favicon.ico")[0], 404)


@case("grpc-health-probe exits with 0, 4 and 2, plain and with -gzip")
def health_probe(world: World) -> None:
    serving, failing = up(world), down(world)
    nobody = f"127.0.0.1:{unused_port()}"
    for compression in ((), ("-gzip",)):
        for address, code in ((serving["otlp"], 0), (failing["tempo"], 4), (nobody, 2)):
            done = command(BIN / "grpc-health-probe", "-addr", address, *compression)
            equal(done.code, code, f"{done.err} {compression}")
        named = ("-addr", serving["health"], "-service")
        equal(command(BIN / "grpc-health-probe", *named, TRACES, *compression).code, 0)
        equal(command(BIN / "grpc-health-probe", *named, "nobody", *compression).code, 3)


@case("upbeat probe exits with 0 serving, 1 usage, 2 connect, 3 rpc, 4 not serving")
def upbeat_probe(world: World) -> None:
    serving, failing = up(world), down(world)
    nobody = f"127.0.0.1:{unused_port()}"
    for code, *arguments in (
        (0, serving["otlp"]),
        (0, serving["tempo"], "--service", TRACES),
        (0, serving["health"], "--http", "/readyz"),
        (0, serving["otlp"], "--otlp"),
        (1,),
        (1, serving["otlp"], "--no-such-option"),
        (1, serving["otlp"], "--otlp", "--http", "/"),
        (2, nobody),
        (2, nobody, "--http", "/"),
        (2, nobody, "--otlp"),
        (3, serving["otlp"], "--service", "nobody"),
        (3, serving["health"], "--otlp"),
        (3, failing["otlp"], "--otlp"),
        (4, failing["otlp"]),
        (4, failing["health"], "--service", "tempo"),
        (4, failing["health"], "--http", "/"),
    ):
        equal(world.upbeat("probe", *arguments).code, code, " ".join(arguments))


@case("an ALB's default check reads 12 while serving and 14 while not, whatever its body")
def alb(world: World) -> None:
    serving, failing = up(world), down(world)
    frame = world.file("frame", bytes(5))
    for proxy, code in ((serving, 12), (failing, 14)):
        for listener in LISTENERS:
            # Often, since head and body come in one read at one time and in two at another.
            for body in ("", f"@{frame}") * 20:
                reply = alb_reply(proxy[listener], "/AWS.ALB/healthcheck", body)
                equal(reply, (200, code), f"{listener} {body}")


@case("not_serving_as: status tells an ALB that reads grpc-status alone, on its listener alone")
def not_serving_as_status(world: World) -> None:
    frame = world.file("frame", bytes(5))
    for start, code in ((up, 0), (down, 14)):
        sections = configuration([])
        sections["listeners"][0]["health"] = {"not_serving_as": "status"}
        proxy = start(world, listeners=sections["listeners"])
        for body in ("", f"@{frame}"):
            equal(alb_reply(proxy["otlp"], CHECK, body, "curl"), (200, code))
            equal(alb_reply(proxy["tempo"], CHECK, body, "curl"), (200, 0))
    equal(grpcurl(proxy["otlp"], "Check").code, 64 + 14)
    contains(grpcurl(proxy["tempo"], "Check").out, "NOT_SERVING")


@case("an ALB's health checker is known by its user agent, and reads 14 where others read a message")
def alb_agent(world: World) -> None:
    frame = f"@{world.file('frame', bytes(5))}"
    for proxy, code in ((up(world), 0), (down(world), 14)):
        for listener in LISTENERS:
            address = proxy[listener]
            equal(alb_reply(address, CHECK, frame), (200, code))
            equal(alb_reply(address, CHECK, frame, "curl"), (200, 0))


def alb_reply(address: str, path: str, body: str, agent: str = ALB) -> tuple[int, int]:
    """What an ALB sees: the status and grpc-status, in the head or after the body."""
    return grpc_reply(address, path, body, agent)[:2]


def grpc_reply(address: str, path: str, body: str, agent: str) -> tuple[int, int, str]:
    """Status, grpc-status and all that came after the head, of a gRPC call as curl makes it."""
    headers = ("-A", agent, "-H", "content-type: application/grpc", "-H", "te: trailers")
    options = (*headers, "--output", "-", "--data-binary", body)
    status, head, rest = curl(
        "--http2-prior-knowledge", "POST", f"http://{address}{path}", *options
    )
    codes = re.findall(r"grpc-status: (\d+)", head + rest)
    equal(len(codes), 1, f"one grpc-status in {head!r} {rest!r}")
    return status, int(codes[0]), rest


@case("nghttp and h2load get every health check answered over few connections")
def h2load(world: World) -> str:
    proxy = up(world)
    frame = world.file("frame", bytes(5))
    done = command("nghttp", "-v", f"http://{proxy['otlp']}{CHECK}")
    contains(done.out, ":status: 200", "SERVING")
    grpc = ("-H", "content-type: application/grpc", "-H", "te: trailers", "-d", frame)
    for options in ((), grpc):
        url = f"http://{proxy['otlp']}{CHECK}"
        done = command("h2load", "-n", "10000", "-c", "4", "-m", "50", *options, url)
        contains(done.out, "10000 succeeded, 0 failed", "status codes: 10000 2xx")
    return "20000 checks"

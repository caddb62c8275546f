"""Every kind of prober: the program itself where it can be had, else one that sends what it sends
and judges as it judges. Each is held to the life of the last backend, and to the proxy's end."""

import http.client
import signal
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import fronts
from backends import Backend, channel
from cases.answers import alb_reply, curl, grpc_reply
from cases.fleets import follow, proxy_of
from fronts import HEALTHY, UNHEALTHY, Checker, cluster, envoy_hosts, run_envoy
from suite import (
    BIN,
    CHECK,
    Proxy,
    World,
    case,
    command,
    equal,
    eventually,
)

# True where one check of a proxy passes.
Judge = Callable[[World, Proxy], Callable[[], bool]]
DRAIN = {"delay": "10s", "timeout": "5s"}


def follows(world: World, who: str, judge: Judge) -> str:
    """Holds a prober to the backend's life: two judgements in a row decide."""
    backend = Backend(world)
    proxy = proxy_of(world, backend, drain=DRAIN)
    checker = Checker(world, judge(world, proxy))
    return follows_to_the_end(who, backend, proxy, checker.is_in)


def follows_to_the_end(
    who: str, backend: Backend, proxy: Proxy, is_in: Callable[[str], bool]
) -> str:
    eventually("it is healthy", lambda: is_in(HEALTHY))
    seconds = follow(who, backend, is_in)
    proxy.signal(signal.SIGTERM)
    eventually("it knows of the drain", lambda: is_in(UNHEALTHY))
    equal("not accepting" in proxy.text(), False, "the drain's delay is over")
    # The rest of the delay is of no interest.
    proxy.expected_exit = None
    proxy.kill()
    return seconds


def prober(who: str, row: str) -> Callable[[Judge], Judge]:
    """Adds a case for a prober: `row` says what it sends and when it is content."""

    def add(judge: Judge) -> Judge:
        case(f"{who}: {row}")(lambda world: follows(world, who, judge))
        return judge

    return add


def get(proxy: Proxy, path: str, **headers: str) -> int:
    """The status of a GET by HTTP/1.1, over a connection of its own."""
    connection = http.client.HTTPConnection(proxy["otlp"], timeout=5)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("GET", path, headers={"connection": "close", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


@prober("kubelet grpc", "h2c Check of no service; content with OK and SERVING")
def kubelet_grpc(_world: World, proxy: Proxy) -> Callable[[], bool]:
    # grpc-go with the kubelet's options, a connection for each check.
    return lambda: command(BIN / "grpc-go", "kubelet", proxy["otlp"]).code == 0


@prober("kubelet httpGet", "GET by HTTP/1.1; content with 200 to 399")
def kubelet_http(_world: World, proxy: Proxy) -> Callable[[], bool]:
    return lambda: 200 <= get(proxy, "/readyz", user_agent="kube-probe/1.34", accept="*/*") < 400


@case("Envoy grpc: a framed Check with grpc-timeout; content with one SERVING message")
def envoy_grpc(world: World) -> str:
    backend = Backend(world)
    proxy = proxy_of(world, backend, drain=DRAIN)
    check = {"grpc_health_check": {}, "interval": "0.2s", "no_traffic_interval": "0.2s"}
    admin = run_envoy(world, [cluster("upbeat", [proxy["otlp"]], check)])
    return follows_to_the_end(
        "Envoy grpc",
        backend,
        proxy,
        lambda state: envoy_hosts(admin) == {("upbeat", proxy["otlp"]): state},
    )


@prober("Traefik grpc", "Check of no service; content with OK and SERVING")
def traefik(_world: World, proxy: Proxy) -> Callable[[], bool]:
    return lambda: command(BIN / "grpc-go", "traefik", proxy["otlp"]).code == 0


@prober("NGINX Plus grpc", "a framed Check; content with OK and SERVING")
def nginx_plus(world: World, proxy: Proxy) -> Callable[[], bool]:
    frame = world.file("frame", bytes(5))

    def judge() -> bool:
        status, code, rest = grpc_reply(proxy["otlp"], CHECK, f"@{frame}", "nginx")
        return (status, code) == (200, 0) and SERVING_MESSAGE in rest

    return judge


@prober("NGINX Plus grpc_status=12", "the same; content with OK and SERVING, and with 12")
def nginx_plus_code(world: World, proxy: Proxy) -> Callable[[], bool]:
    serving = nginx_plus(world, proxy)
    frame = world.file("frame", bytes(5))
    call = (proxy["otlp"], CHECK, f"@{frame}", "nginx")
    return lambda: serving() or grpc_reply(*call)[:2] == (200, 12)


@case("HAProxy: `option httpchk`, GET over HTTP/2; content with 2xx and 3xx")
def haproxy(world: World) -> str:
    backend = Backend(world)
    proxy = proxy_of(world, backend, drain=DRAIN)
    front = fronts.haproxy(world, [proxy["otlp"]], "option httpchk GET /healthz")

    def is_in(state: str) -> bool:
        return front.states() == {proxy["otlp"]: state}

    return follows_to_the_end("HAProxy", backend, proxy, is_in)


@prober("Azure Load Balancer", "GET by HTTP/1.1; content with 200 alone")
def azure_lb(_world: World, proxy: Proxy) -> Callable[[], bool]:
    return lambda: get(proxy, "/healthz", user_agent="Load Balancer Agent") == 200


@prober("Azure Application Gateway v2", "GET by HTTP/1.1, by default of /; content with 200 to 399")
def azure_gateway(_world: World, proxy: Proxy) -> Callable[[], bool]:
    return lambda: 200 <= get(proxy, "/", host="127.0.0.1") < 400


@prober("Azure Application Gateway for Containers, grpc", "Check of no service")
def azure_containers_grpc(world: World, proxy: Proxy) -> Callable[[], bool]:
    return grpcio_check(world, proxy)


@prober("Azure Application Gateway for Containers, http", "GET /; content with 200 to 399")
def azure_containers_http(_world: World, proxy: Proxy) -> Callable[[], bool]:
    return lambda: 200 <= get(proxy, "/", user_agent="Microsoft-Azure-Application-LB/AGC") < 400


@prober("Cloudflare", "GET by HTTP/1.1, by default of /; content with 200 alone")
def cloudflare(_world: World, proxy: Proxy) -> Callable[[], bool]:
    agent = "Mozilla/5.0 (compatible; Cloudflare-Traffic-Manager/1.0)"
    return lambda: get(proxy, "/", user_agent=agent) == 200


@prober("grpc_health_probe", "Check, plain and by -gzip; exit code 0, or 4 for not serving")
def grpc_health_probe(_world: World, proxy: Proxy) -> Callable[[], bool]:
    def judge() -> bool:
        probe = (BIN / "grpc-health-probe", "-addr", proxy["otlp"])
        codes = {command(*probe, *compression).code for compression in ((), ("-gzip",))}
        equal(codes <= {0, 4}, True, f"{codes} are 0 or 4")
        return codes == {0}

    return judge


@prober("GCP grpc", "Check of no service, without metadata; content with SERVING and with 12")
def gcp_grpc(world: World, proxy: Proxy) -> Callable[[], bool]:
    return grpcio_check(world, proxy, content=("SERVING", "UNIMPLEMENTED"))


@prober("GCP http2", "GET by HTTP/2; content with 200 alone, and words in the first 1024 bytes")
def gcp_http2(_world: World, proxy: Proxy) -> Callable[[], bool]:
    url = f"http://{proxy['otlp']}/healthz"

    def judge() -> bool:
        status, _, body = curl("--http2-prior-knowledge", "GET", url, "-A", "GoogleHC/1.0")
        return status == 200 and "SERVING" in body[:1024]

    return judge


@prober("AWS NLB", "GET by HTTP/1.1; content with 200 to 399")
def aws_nlb(_world: World, proxy: Proxy) -> Callable[[], bool]:
    return lambda: 200 <= get(proxy, "/healthz", user_agent="ELB-HealthChecker/2.0") < 400


def alb(world: World, proxy: Proxy, path: str, code: int) -> Callable[[], bool]:
    """Judges by the code alone, never by the message; sends an empty body and a frame."""
    frame = world.file("frame", bytes(5))

    def judge() -> bool:
        replies = {alb_reply(proxy["otlp"], path, body) for body in ("", f"@{frame}")}
        return replies == {(200, code)}

    return judge


@prober("AWS ALB grpc", "/AWS.ALB/healthcheck; content with 12, both as by default")
def alb_default(world: World, proxy: Proxy) -> Callable[[], bool]:
    return alb(world, proxy, "/AWS.ALB/healthcheck", 12)


@prober("AWS ALB grpc, Check and '0'", "content with 0, since its user agent is told 14 else")
def alb_status(world: World, proxy: Proxy) -> Callable[[], bool]:
    return alb(world, proxy, CHECK, 0)


@case("AWS ALB grpc, Check and '0': a dead backend stays green where it is told a message")
def alb_message(world: World) -> None:
    # Why there is `not_serving_as_for`: the code says that the question was answered, and only the
    # message, which an ALB does not read, says what the answer is.
    backend = Backend(world)
    health = {"not_serving_as_for": {"ELB-HealthChecker": "message"}}
    proxy = proxy_of(world, backend, health=health)
    checker = Checker(world, alb(world, proxy, CHECK, 0))
    read = Checker(world, grpcio_check(world, proxy))
    eventually("both are content", lambda: checker.is_in(HEALTHY) and read.is_in(HEALTHY))
    backend.stop()
    eventually("who reads the message knows", lambda: read.is_in(UNHEALTHY))
    more = checker.checks + 5
    eventually("the ALB checks on", lambda: checker.checks >= more)
    equal(checker.is_in(HEALTHY), True, "green")


def grpcio_check(
    world: World, proxy: Proxy, content: tuple[str, ...] = ("SERVING",)
) -> Callable[[], bool]:
    """Check of no service; the status, or the code where there is none, has to be in `content`."""
    stub = health_pb2_grpc.HealthStub(channel(world.stack, proxy["otlp"]))

    def judge() -> bool:
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError as error:
            return error.code().name in content
        return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status) in content

    return judge


SERVING_MESSAGE = "\0\0\0\0\2\x08\x01"

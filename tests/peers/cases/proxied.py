"""The PROXY protocol, by those who send it: HAProxy, nginx and Envoy on the connection level."""

from collections.abc import Callable
from typing import Any

from backends import Backend, unused_port
from certificates import Authority
from fronts import ask, haproxy_servers, run_envoy, run_haproxy
from suite import Output, Proxy, World, case, command, configuration, equal, eventually

# A client's own address, and one that may not come in.
CLIENT, STRANGER = "127.0.0.2", "127.0.0.3"
# Starts a balancer in front of a listener; its address.
Start = Callable[[World, str], str]


def listening(world: World, **more: Any) -> tuple[Backend, Proxy]:
    """A proxy that is told by balancers on this host who its clients are, and tells backends."""
    backend = Backend(world)
    whole = configuration([backend.address])
    keys = {"proxy_protocol": "required", "proxy_protocol_from": ["127.0.0.1/32"]}
    # The balancer too, for its own checks.
    keys |= {"allow": [f"{CLIENT}/32", "127.0.0.1/32"], "x_forwarded_for": True}
    whole["listeners"][0] |= {**keys, **more}
    # So that all that the backend notes are calls.
    whole["upstreams"]["otlp"]["probe"]["checks"] = [{"tcp": {}}]
    return backend, world.proxy(whole).wait_until("SERVING")


def calls(world: World, address: str, source: str = CLIENT) -> Output:
    """A call from a source address, by a client that says that it is another."""
    frame = world.file("frame", bytes(5))
    return command(
        *("curl", "-sS", "--http2-prior-knowledge", "--max-time", "5", "--interface", source),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        *("-H", "x-forwarded-for: 192.0.2.1", "--data-binary", f"@{frame}", "-D", "-"),
        *("-o", "/dev/null", f"http://{address}/peers.Echo/Unary"),
    )


def tells(world: World, start: Start, **more: Any) -> None:
    """Holds a balancer to it: the client's address passes, and decides who comes in."""
    backend, proxy = listening(world, **more)
    address = start(world, proxy["otlp"])
    eventually("the balancer carries", lambda: calls(world, address).code == 0)
    backend.metadata = []
    for _ in range(10):
        done = calls(world, address)
        equal((done.code, "grpc-status: 0" in done.out), (0, True), done.err + done.out)
        said = [value for name, value in backend.metadata if name == "x-forwarded-for"]
        equal(said, [CLIENT], "x-forwarded-for")
    backend.metadata = []
    equal(calls(world, address, STRANGER).code != 0, True, "the stranger is refused")
    # Nobody but the balancer is heard, and from it nothing without a header.
    for source in (CLIENT, STRANGER, "127.0.0.1"):
        done = calls(world, proxy["otlp"], source)
        equal(done.code != 0, True, f"{source} without a header: {done.out}")
    equal(backend.metadata, [], "calls that the backend saw")


def haproxy(world: World, listener: str, options: str) -> str:
    """HAProxy, which checks by a header of its own, and GET."""
    address = f"127.0.0.1:{unused_port()}"
    control = world.directory / f"haproxy-{address}.sock"
    run_haproxy(
        world,
        f"""
global
    stats socket {control}
listen traces
    mode tcp
    retries 0
    option httpchk GET /healthz
    bind {address}
    server upbeat {listener} {options} check inter 100ms fall 1 rise 1
""",
    )
    eventually("it runs", control.exists)
    passes = {"upbeat": ("UP", "L7OK")}
    eventually("its check passes", lambda: haproxy_servers(control) == passes)
    return address


@case("HAProxy, by send-proxy and send-proxy-v2, says who the client is; nobody else can")
def haproxy_sends(world: World) -> None:
    for options in ("send-proxy", "send-proxy-v2"):
        tells(world, lambda world, at, options=options: haproxy(world, at, options))


@case("HAProxy, by send-proxy-v2 and then TLS, says who the client is; nobody else can")
def haproxy_tls(world: World) -> None:
    ca = Authority(world)
    options = f"send-proxy-v2 ssl verify required ca-file {ca.file} sni str(localhost)"
    tls = ca.pair("localhost").files()
    tells(world, lambda world, at: haproxy(world, at, f"{options} check-alpn http/1.1"), tls=tls)


@case("nginx's stream module, by proxy_protocol, says who the client is; nobody else can")
def nginx(world: World) -> None:
    def start(world: World, listener: str) -> str:
        address = f"127.0.0.1:{unused_port()}"
        here = world.directory
        file = world.file(
            "nginx.conf",
            f"""
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid {here}/nginx.pid;
error_log {here}/nginx.log;
events {{}}
stream {{
    server {{
        listen {address};
        proxy_pass {listener};
        proxy_protocol on;
    }}
}}
""",
        )
        world.start("/usr/sbin/nginx", "-e", here / "nginx.log", "-c", file)
        return address

    tells(world, start)


@case("Envoy, by both versions of the PROXY protocol, says who the client is; nobody else can")
def envoy(world: World) -> None:
    for version in ("V1", "V2"):
        tells(world, lambda world, at, version=version: envoy_front(world, at, version))


def envoy_front(world: World, listener: str, version: str) -> str:
    types = "type.googleapis.com/envoy.extensions"
    sockets = f"{types}.transport_sockets"
    raw = {"@type": f"{sockets}.raw_buffer.v3.RawBuffer"}
    header = {
        "@type": f"{sockets}.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "config": {"version": version},
        "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config": raw},
    }
    host, port = listener.split(":")
    place = {"socket_address": {"address": host, "port_value": int(port)}}
    endpoints = [{"endpoint": {"address": place}}]
    cluster = {
        "name": "upbeat",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "upbeat", "endpoints": [{"lb_endpoints": endpoints}]},
        "transport_socket": {
            "name": "envoy.transport_sockets.upstream_proxy_protocol",
            "typed_config": header,
        },
    }
    relay = {
        "@type": f"{types}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "traces",
        "cluster": "upbeat",
    }
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": relay}]
    anywhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    front = {"name": "traces", "address": anywhere, "filter_chains": [{"filters": filters}]}
    admin = run_envoy(world, [cluster], [front])

    def address() -> str:
        listeners = ask(admin, "listeners").get("listener_statuses", [])
        if not listeners:
            return ""
        return f"127.0.0.1:{listeners[0]['local_address']['socket_address']['port_value']}"

    return eventually("Envoy listens", address)

"""The PROXY protocol to endpoints: HAProxy, nginx and Envoy behind the proxy, which tell their own
backend whom it connected for."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

from backends import Backend, channel, unused_port
from cases import proxied
from certificates import Authority
from fronts import ask, cluster, run_envoy, run_haproxy
from suite import Proxy, World, case, command, configuration, equal, eventually

VERSIONS = ("v1", "v2")
SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.3")
ADDRESS, PORT = "x-src-address", "x-src-port"
# Starts one that takes no connection without a header, in front of a backend; its address.
Start = Callable[[World, str], str]


def tells(world: World, start: Start, **more: Any) -> None:
    """Holds them to it in both versions: each client connection is known by its own port."""
    backend = Backend(world)
    behind = start(world, backend.address)
    for version in VERSIONS:
        whole = configuration([behind])
        for upstream in whole["upstreams"].values():
            upstream |= {"proxy_protocol": version, **more}
            # Which a backend does not note as a call.
            upstream["probe"]["checks"] = [{"grpc": {}}]
        with world.proxy(whole) as proxy:
            proxy.wait_until("SERVING")
            by_curl(world, proxy["otlp"], backend)
            by_grpcio(proxy, backend)
    # Nobody else is heard without one.
    backend.metadata = []
    with ExitStack() as stack:
        direct = channel(stack, behind)
        try:
            call(direct)
        except grpc.RpcError:
            pass
        else:
            raise AssertionError("a call without a header passed")
    equal(backend.metadata, [], "a call without a header that the backend saw")


def heard(backend: Backend) -> tuple[str, int]:
    """Of whom the backend was told by its last call, and of nobody else; it forgets it."""
    metadata, backend.metadata = backend.metadata, []
    said = [[value for key, value in metadata if key == name] for name in (ADDRESS, PORT)]
    equal([len(values) for values in said], [1, 1], f"{metadata}")
    return said[0][0], int(said[1][0])


def by_curl(world: World, address: str, backend: Backend) -> None:
    """One that says which address and port it has had, and tries to say others."""
    frame = world.file("frame", bytes(5))
    ports = []
    for source in SOURCES:
        done = command(
            *("curl", "-sS", "--http2-prior-knowledge", "--max-time", "5", "--interface", source),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            *("-H", f"{ADDRESS}: 192.0.2.1", "-H", f"{PORT}: 1", "--data-binary", f"@{frame}"),
            *("-o", "/dev/null", "-w", "%{local_ip} %{local_port}"),
            f"http://{address}/peers.Echo/Unary",
        )
        equal(done.code, 0, done.err)
        equal("{} {}".format(*heard(backend)), done.out, "the client's own address and port")
        ports.append(done.out)
    equal(len(set(ports)), len(SOURCES), f"ports of their own: {ports}")


def by_grpcio(proxy: Proxy, backend: Backend) -> None:
    """Several clients at a time, whose calls are mixed."""
    with ExitStack() as stack:
        clients = [channel(stack, proxy["otlp"]) for _ in range(4)]
        places = []
        for client in clients:
            call(client)
            places.append(heard(backend))
        equal(len(set(places)), len(clients), f"ports of their own: {places}")
        for _ in range(10):
            for client, place in zip(clients, places, strict=True):
                call(client)
                equal(heard(backend), place, "whom a connection is for")
        connected = local_places(proxy["otlp"])
        equal(set(places) - connected, set(), f"places of clients, of {connected}")


def call(client: grpc.Channel) -> None:
    client.unary_unary("/peers.Echo/Unary")(b"", timeout=5)


def local_places(listener: str) -> set[tuple[str, int]]:
    """Whence connections to a listener come, by the kernel's own list."""
    # Grpcio's are of the other family, with such addresses too.
    files = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for file in files for line in file.splitlines()[1:]]
    return {place(row[1]) for row in rows if "{}:{}".format(*place(row[2])) == listener}


def place(text: str) -> tuple[str, int]:
    """An IPv4 address and a port, as the kernel writes them."""
    address, port = text.split(":")
    return socket.inet_ntoa(bytes.fromhex(address)[-4:][::-1]), int(port, 16)


def haproxy(world: World, backend: str, options: str = "proto h2") -> str:
    address = f"127.0.0.1:{unused_port()}"
    process = run_haproxy(
        world,
        f"""
listen traces
    bind {address} accept-proxy {options}
    http-request set-header {PORT} %[src_port]
    option forwardfor header {ADDRESS}
    http-request del-header {ADDRESS}
    server backend {backend} proto h2
""",
    )
    eventually("it listens", lambda: listens(address) or not process.is_running())
    return address


def listens(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@case("HAProxy behind, by accept-proxy, tells each client's address and port, in v1 and v2")
def haproxy_accepts(world: World) -> None:
    tells(world, haproxy)


@case("HAProxy behind, by accept-proxy and then TLS, tells each client's address and port")
def haproxy_tls(world: World) -> None:
    ca = Authority(world)
    key, cert = ca.pair("localhost").read()
    both = world.file("haproxy.pem", cert + key)
    tls = {"ca_file": str(ca.file), "server_name": "localhost"}
    tells(world, lambda world, at: haproxy(world, at, f"ssl crt {both} alpn h2"), tls=tls)


@case("HAProxy before and behind, by send-proxy-v2 and accept-proxy: the client's address passes")
def through(world: World) -> None:
    backend = Backend(world)
    whole = configuration([haproxy(world, backend.address)])
    whole["listeners"][0] |= {"proxy_protocol": "required", "proxy_protocol_from": ["127.0.0.1"]}
    for upstream in whole["upstreams"].values():
        # What comes in by the other version.
        upstream["proxy_protocol"] = "v1"
        upstream["probe"]["checks"] = [{"grpc": {}}]
    proxy = world.proxy(whole).wait_until("SERVING")
    by_curl(world, proxied.haproxy(world, proxy["otlp"], "send-proxy-v2"), backend)


@case("nginx behind, by listen proxy_protocol, tells each client's address and port, in v1 and v2")
def nginx_accepts(world: World) -> None:
    def start(world: World, backend: str) -> str:
        address = f"127.0.0.1:{unused_port()}"
        here = world.directory
        temporary = "\n".join(
            f"    {kind}_temp_path {here}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file = world.file(
            "nginx.conf",
            f"""
daemon off;
master_process off;
pid {here}/nginx.pid;
error_log {here}/nginx.log;
events {{}}
http {{
    access_log off;
{temporary}
    server {{
        listen {address} proxy_protocol http2;
        location / {{
            grpc_pass grpc://{backend};
            grpc_set_header {ADDRESS} $proxy_protocol_addr;
            grpc_set_header {PORT} $proxy_protocol_port;
        }}
    }}
}}
""",
        )
        process = world.start("/usr/sbin/nginx", "-e", here / "nginx.log", "-c", file)
        eventually("it listens", lambda: listens(address) or not process.is_running())
        return address

    tells(world, start)


@case("Envoy behind, by its proxy_protocol filter, tells each client's address and port")
def envoy_accepts(world: World) -> None:
    tells(world, envoy)


def envoy(world: World, backend: str) -> str:
    types = "type.googleapis.com/envoy.extensions.filters"
    router = {"@type": f"{types}.http.router.v3.Router"}
    set_to = {
        ADDRESS: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        PORT: "%DOWNSTREAM_REMOTE_PORT%",
    }
    headers = [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in set_to.items()
    ]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "traces",
        "codec_type": "HTTP2",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {
            "request_headers_to_add": headers,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    announced = {"@type": f"{types}.listener.proxy_protocol.v3.ProxyProtocol"}
    listener = {
        "name": "traces",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "listener_filters": [
            {"name": "envoy.filters.listener.proxy_protocol", "typed_config": announced}
        ],
        "filter_chains": [{"filters": filters}],
    }
    behind = cluster("backend", [backend], {})
    del behind["health_checks"]
    admin = run_envoy(world, [behind], [listener])

    def address() -> str:
        listeners = ask(admin, "listeners").get("listener_statuses", [])
        if not listeners:
            return ""
        return f"127.0.0.1:{listeners[0]['local_address']['socket_address']['port_value']}"

    return eventually("Envoy listens", address)

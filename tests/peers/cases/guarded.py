"""The admin server behind tokens and certificates: who asks it by curl, and Prometheus, which
scrapes it."""

import json
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from backends import Backend, unused_port
from certificates import Authority, Pair
from suite import Output, Proxy, World, case, command, configuration, contains, equal, eventually

TOKEN = "a-token-of-prometheus-and-no-one-else"
GUARDED = ("/metrics", "/status", "/config", "/simulate?down=otlp", "/nowhere")
OPEN = ("/livez", "/readyz")
REALM = "bearer realm="


class Answer(NamedTuple):
    status: int
    challenge: str
    text: str


def guarded(world: World, **keys: Any) -> Proxy:
    """A proxy whose admin server asks who asks it, once it is SERVING."""
    backend = Backend(world)
    whole = configuration([backend.address], reload={"interval": "50ms"})
    whole["admin"] |= keys
    proxy = world.proxy(whole)
    health = f"http://{proxy['health']}/healthz"
    eventually("SERVING", lambda: command("curl", "-sSf", health).code == 0)
    return proxy


def asks(proxy: Proxy, path: str, *options: str | Path, tls: bool = False) -> Answer:
    """A GET by curl that is answered."""
    done = curl(proxy, path, *options, tls=tls)
    equal(done.code, 0, f"{path}: {done.err}")
    head, _, text = done.out.partition("\n\n")
    found = re.search(r"^www-authenticate: *(.*)$", head, re.I | re.M)
    return Answer(int(head.split()[1]), found[1] if found else "", text)


def curl(proxy: Proxy, path: str, *options: str | Path, tls: bool = False) -> Output:
    host, port = proxy.admin.split(":")
    url = f"https://localhost:{port}{path}" if tls else f"http://{proxy.admin}{path}"
    to = ("--connect-to", f"::{host}:{port}")
    return command("curl", "-sSi", "--max-time", "5", *to, *options, url)


def admits(proxy: Proxy, *options: str | Path, tls: bool = False) -> None:
    for path in (*GUARDED, *OPEN):
        answer = asks(proxy, path, *options, tls=tls)
        equal((answer.status, answer.challenge), (404 if path == "/nowhere" else 200, ""), path)
    contains(asks(proxy, "/status", *options, tls=tls).text, "SERVING")


def refuses(proxy: Proxy, *options: str | Path, tls: bool = False) -> None:
    """But for the life of it, which anybody may ask for."""
    for path in GUARDED:
        answer = asks(proxy, path, *options, tls=tls)
        equal((answer.status, answer.text), (401, ""), path)
        contains(answer.challenge.lower(), REALM)
    equal([asks(proxy, path, *options, tls=tls).text for path in OPEN], ["LIVE\n", "SERVING\n"])


@case("curl asks the admin server by a token, and without a good one for nothing but life")
def tokens(world: World) -> None:
    file = world.file("tokens", "a-token-from-a-file\n")
    proxy = guarded(world, tokens=[TOKEN], token_file=str(file))
    admits(proxy, "--oauth2-bearer", TOKEN)
    admits(proxy, "--oauth2-bearer", "a-token-from-a-file")
    refuses(proxy)
    refuses(proxy, "--oauth2-bearer", TOKEN[:-1])
    refuses(proxy, "--user", f"admin:{TOKEN}")
    twice = ("-H", f"authorization: Bearer {TOKEN}")
    refuses(proxy, *twice, *twice)
    # Changed as a Secret is.
    world.file("tokens.new", "another-token-from-the-file\n").rename(file)
    new, old = ("--oauth2-bearer", "another-token-from-the-file"), "a-token-from-a-file"
    eventually("it counts", lambda: asks(proxy, "/status", *new).status == 200)
    refuses(proxy, "--oauth2-bearer", old)
    admits(proxy, "--oauth2-bearer", TOKEN)


@case("curl asks the admin server by a certificate, or a token in its place where it is optional")
def certificates(world: World) -> None:
    ca, other = Authority(world), Authority(world, "other")
    trusted = ("--cacert", ca.file)
    mutual = {**ca.pair("localhost").files(), "client_ca_file": str(ca.file)}

    def by(own: Pair) -> tuple[str | Path, ...]:
        return (*trusted, "--cert", own.cert, "--key", own.key)

    required = guarded(world, tls=mutual)
    admits(required, *by(ca.pair("prometheus")), tls=True)
    for options, alert in (
        (trusted, "alert certificate required"),
        (by(other.pair("prometheus")), "alert unknown ca"),
        (by(ca.pair("prometheus", expired=True)), "alert certificate expired"),
    ):
        for path in (*GUARDED, *OPEN):
            done = curl(required, path, *options, tls=True)
            equal((done.code != 0, done.out), (True, ""), path)
            contains(done.err, alert)
    optional = guarded(world, tls={**mutual, "client_auth": "optional"}, tokens=[TOKEN])
    admits(optional, *by(ca.pair("prometheus")), tls=True)
    admits(optional, *trusted, "--oauth2-bearer", TOKEN, tls=True)
    refuses(optional, *trusted, tls=True)
    refuses(optional, *trusted, "--oauth2-bearer", "another", tls=True)


@case("Prometheus scrapes the admin server by a token, and by a certificate; else it is told 401")
def prometheus(world: World) -> str:
    ca = Authority(world)
    own = ca.pair("prometheus")
    tls = {**ca.pair("localhost").files(), "client_ca_file": str(ca.file)}
    plain = guarded(world, tokens=[TOKEN])
    optional = guarded(world, tls={**tls, "client_auth": "optional"}, tokens=[TOKEN])
    required = guarded(world, tls=tls)
    trusting = {"ca_file": str(ca.file), "server_name": "localhost"}
    certain = {**trusting, "cert_file": str(own.cert), "key_file": str(own.key)}
    good = {"authorization": {"credentials_file": str(world.file("good", TOKEN))}}
    bad = {"authorization": {"credentials_file": str(world.file("bad", "another"))}}
    jobs = {
        "token": (plain, good),
        "token under TLS": (optional, {**good, "tls_config": trusting}),
        "optional certificate": (optional, {"tls_config": certain}),
        "certificate": (required, {"tls_config": certain}),
        "no token": (plain, {}),
        "bad token": (plain, bad),
        "nothing under TLS": (optional, {"tls_config": trusting}),
        "no certificate": (required, {"tls_config": trusting}),
    }
    address = scraping(world, jobs)
    passing = list(jobs)[:4]
    errors: dict[str, str] = {}

    def scraped() -> bool:
        targets = asked(address, "targets")["activeTargets"]
        seen = {it["scrapePool"]: (it["health"], it["lastError"]) for it in targets}
        errors.update({name: error for name, (_, error) in seen.items()})
        unknown = any(health == "unknown" for health, _ in seen.values())
        return len(seen) == len(jobs) and not unknown

    eventually("it has asked them all", scraped)
    for name in passing:
        equal(errors[name], "", name)
    for name in ("no token", "bad token", "nothing under TLS"):
        contains(errors[name], "server returned HTTP status 401 Unauthorized")
    contains(errors["no certificate"], "tls: certificate required")
    # What it has scraped is what is there; a call was denied at those with such jobs alone.
    for sought, jobs_with in (
        ("upbeat_endpoint_healthy", passing),
        ("upbeat_probes_total", passing),
        ('upbeat_denied_total{listener="admin"}', passing[:3]),
    ):
        query = f"sum by (job) ({sought}) > 0"

        def found(query: str = query) -> list[str]:
            results = asked(address, "query", query=query)["result"]
            return sorted(it["metric"]["job"] for it in results)

        wanted = sorted(jobs_with)
        eventually(f"{sought} of {wanted}", lambda found=found, wanted=wanted: found() == wanted)
    return f"{len(passing)} jobs up, {len(jobs) - len(passing)} refused"


def scraping(world: World, jobs: dict[str, tuple[Proxy, dict[str, Any]]]) -> str:
    """Prometheus with these jobs; its address once it is ready."""
    scrapes = [
        {
            "job_name": name,
            "scheme": "https" if "tls_config" in keys else "http",
            "static_configs": [{"targets": [proxy.admin]}],
            **keys,
        }
        for name, (proxy, keys) in jobs.items()
    ]
    often = {"scrape_interval": "300ms", "scrape_timeout": "300ms"}
    file = world.file("prometheus.yaml", json.dumps({"global": often, "scrape_configs": scrapes}))
    address = f"127.0.0.1:{unused_port()}"
    world.start(
        *("prometheus", f"--config.file={file}", f"--web.listen-address={address}"),
        f"--storage.tsdb.path={world.directory / 'prometheus'}",
    )
    ready = f"http://{address}/-/ready"
    eventually("Prometheus is ready", lambda: command("curl", "-sf", ready).code == 0)
    return address


def asked(address: str, what: str, **query: str) -> dict[str, Any]:
    """What Prometheus says by its API."""
    url = f"http://{address}/api/v1/{what}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=5) as response:
        return json.load(response)["data"]


@case("promtool reads the metrics, and finds no fault but that OpenMetrics leaves _total out")
def promtool(world: World) -> None:
    proxy = guarded(world, tokens=[TOKEN])
    refuses(proxy)
    text = asks(proxy, "/metrics", "--oauth2-bearer", TOKEN).text
    contains(text, "upbeat_denied_total", "upbeat_endpoint_healthy", "\n# EOF\n")
    done = command("promtool", "check", "metrics", input=text, stdin=None)
    # It reads the older format, where the name of a counter has it in its help too.
    known = re.compile(r"upbeat_\w+_total no help text")
    found = [it for it in done.err.splitlines() if not known.fullmatch(it)]
    equal((found, done.out), ([], ""), "what it finds")

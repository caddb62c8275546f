"""Handshakes, by `openssl s_client`: versions, ALPN, names, resumption, stapling, and what there is
not."""

import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

from backends import Backend
from certificates import Authority, Pair, secured
from suite import Output, Proxy, World, case, command, configuration, contains, equal, eventually

GET = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
VERSIONS = ("-tls1_2", "-tls1_3")


class Server:
    """A proxy with TLS, and the program that connects to it."""

    def __init__(self, world: World, *shown: Pair, ca: Authority, **more: str):
        self.world, self.ca = world, ca
        backend = Backend(world)
        soon = {"limits": {"handshake_timeout": "1s"}, "reload": {"interval": "50ms"}}
        whole = configuration([backend.address], **soon)
        certificates = [pair.files() for pair in shown[1:]]
        whole = secured(whole, shown[0], certificates=certificates, **more)
        self.proxy: Proxy = world.proxy(whole).wait_until("SERVING")

    @property
    def place(self) -> tuple[str, int]:
        host, port = self.proxy["otlp"].split(":")
        return host, int(port)

    def arguments(self, *options: str | Path) -> list[str | Path]:
        address = self.proxy["otlp"]
        return ["openssl", "s_client", "-connect", address, "-CAfile", self.ca.file, *options]

    def connects(self, *options: str | Path, says: str = "") -> Output:
        """To its end: that of its input, or where it `says` something that of the connection."""
        more = ("-ign_eof",) if says else ()
        return command(*self.arguments(*options, *more), input=says, stdin=None)


def one(world: World) -> Server:
    ca = Authority(world)
    return Server(world, ca.pair("localhost"), ca=ca)


def line(done: Output, beginning: str) -> str:
    found = [it for it in done.out.splitlines() if it.startswith(beginning)]
    return found[0] if found else f"no {beginning!r} in {done.out}"


@case("openssl s_client: TLS 1.2 and 1.3 are spoken, older ones refused, and so are weak ciphers")
def versions(world: World) -> None:
    server = one(world)
    # So that it is not the client that refuses.
    weak = ("-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    for version in ("-tls1", "-tls1_1"):
        done = server.connects(version, *weak)
        contains(done.err, "alert")
        equal((done.code, line(done, "New, ")), (1, "New, (NONE), Cipher is (NONE)"), version)
    for version, named in zip(VERSIONS, ("TLSv1.2", "TLSv1.3"), strict=True):
        done = server.connects(version, says=GET)
        contains(line(done, "New, "), named)
        contains(done.out, "Verification: OK", "HTTP/1.1 200 OK", "SERVING")
    for ciphers in ("AES128-SHA256", "ECDHE-ECDSA-AES128-SHA256", "AES256-GCM-SHA384", "NULL"):
        done = server.connects("-tls1_2", "-cipher", f"{ciphers}:@SECLEVEL=0")
        equal(done.code, 1, ciphers)
        contains(done.err, "alert handshake failure")


@case("openssl s_client: ALPN picks h2 or http/1.1, and nothing in common ends the handshake")
def alpn(world: World) -> None:
    server = one(world)
    for version in VERSIONS:
        for offered, picked in (
            ("h2", "h2"),
            ("http/1.1", "http/1.1"),
            ("http/1.1,h2", "h2"),
            ("spdy/3,h2", "h2"),
        ):
            done = server.connects(version, "-alpn", offered)
            equal(line(done, "ALPN"), f"ALPN protocol: {picked}", offered)
        done = server.connects(version, says=GET)
        equal(line(done, "No ALPN"), "No ALPN negotiated")
        contains(done.out, "HTTP/1.1 200 OK")
        done = server.connects(version, "-alpn", "spdy/3")
        equal(done.code, 1)
        contains(done.err, "alert no application protocol")


@case("openssl s_client: the name that is asked for picks the certificate, of RSA too")
def names(world: World) -> None:
    ca = Authority(world)
    shown = (ca.pair("localhost"), ca.pair("*.tempo.test"), ca.pair("otel.test", by_rsa=True))
    server = Server(world, *shown, ca=ca)
    for version in VERSIONS:
        for asked, name in (
            (("-servername", "localhost"), "localhost"),
            (("-servername", "eu.tempo.test"), "*.tempo.test"),
            (("-servername", "otel.test"), "otel.test"),
            (("-servername", "a.eu.tempo.test"), "localhost"),
            (("-servername", "other.test"), "localhost"),
            (("-noservername",), "localhost"),
        ):
            done = server.connects(version, *asked)
            contains(line(done, "subject="), f"CN = {name}")
            equal("Verification: OK" in done.out, True, done.err)


@case("openssl s_client: sessions are resumed, but not where clients show certificates")
def resumption(world: World) -> None:
    ca = Authority(world)
    own = ca.pair("collector")
    own_files = ("-cert", own.cert, "-key", own.key)
    free = Server(world, ca.pair("localhost"), ca=ca)
    wants = Server(world, ca.pair("localhost"), ca=ca, client_ca_file=str(ca.file))
    asks = {"client_ca_file": str(ca.file), "client_auth": "optional"}
    asks = Server(world, ca.pair("localhost"), ca=ca, **asks)
    for version in VERSIONS:
        for server, files, again in (
            (free, (), True),
            (wants, own_files, False),
            (asks, own_files, False),
            (asks, (), False),
        ):
            kept = world.directory / "session"
            kept.unlink(missing_ok=True)
            # What is said makes it read on, to where tickets are.
            done = server.connects(version, *files, "-sess_out", kept, says=GET)
            contains(done.out, "New, TLS", "HTTP/1.1 200 OK")
            equal(kept.exists(), again, "a session to be resumed")
            if again:
                done = server.connects(version, *files, "-sess_in", kept, says=GET)
                contains(done.out, "Reused, TLS", "HTTP/1.1 200 OK")
    done = free.connects("-tls1_2", "-reconnect")
    equal(len(re.findall("^New, ", done.out, re.M)), 1)
    equal(len(re.findall("^Reused, ", done.out, re.M)), 5)
    done = wants.connects("-tls1_2", "-reconnect", *own_files)
    equal(len(re.findall("^New, ", done.out, re.M)), 6)


@case("openssl s_client: no early data, no compression, no renegotiation")
def nothing_more(world: World) -> None:
    server = one(world)
    kept = world.directory / "session"
    done = server.connects("-tls1_3", "-sess_out", kept, says=GET)
    contains(done.out, "Max Early Data: 0")
    early = world.file("early", GET)
    done = server.connects("-tls1_3", "-sess_in", kept, "-early_data", early, says=GET)
    contains(done.out, "Reused, TLS", "Early data was not sent", "HTTP/1.1 200 OK")
    for version in VERSIONS:
        equal(line(server.connects(version, "-comp"), "Compression"), "Compression: NONE")
    done = command(*server.arguments("-tls1_2"), input="R\n", stdin=None)
    contains(done.err, "RENEGOTIATING")
    # It is not answered, and then closed as who says nothing.
    equal(done.code, 1, "renegotiation fails")
    equal(server.proxy.serving(), "SERVING")


@case("openssl s_client -status and curl --cert-status: what `openssl ocsp` says is stapled")
def stapling(world: World) -> None:
    ca = Authority(world)
    shown, other = ca.pair("localhost"), ca.pair("other.test")
    # Curl looks for the issuer in what it is shown.
    shown.cert.write_bytes(shown.cert.read_bytes() + ca.file.read_bytes())
    response = ca.says_of(shown)
    server = Server(world, shown, other, ca=ca, ocsp_file=str(response))
    port = server.place[1]

    def says(version: str, name: str, *more: str) -> str:
        return server.connects(version, "-servername", name, *more, says=GET).out

    def curl(name: str) -> int:
        to = ("--connect-to", f"::127.0.0.1:{port}", "--cacert", ca.file)
        return command("curl", "-sS", "--cert-status", *to, f"https://{name}:{port}/healthz").code

    for version in VERSIONS:
        good = says(version, "localhost", "-status")
        contains(good, "OCSP Response Status: successful", "Cert Status: good", "Verification: OK")
        contains(good, "HTTP/1.1 200 OK")
        contains(says(version, "other.test", "-status"), "OCSP response: no response sent")
        # Who does not ask for it is not sent it.
        equal("OCSP" in says(version, "localhost"), False, "a response that nobody asked for")
    equal((curl("localhost"), curl("other.test")), (0, 91), "curl's exit codes")
    ca.says_of(shown, revoked=True).rename(response)
    eventually("it is told anew", lambda: "revoked" in says("-tls1_3", "localhost", "-status"))
    contains(says("-tls1_2", "localhost", "-status"), "Cert Status: revoked")
    equal(curl("localhost"), 91, "curl's exit code")


@case("openssl s_client: new keys in the middle of a connection, and calls go on")
def key_update(world: World) -> None:
    server = one(world)
    client = world.stack.enter_context(
        subprocess.Popen(
            [str(it) for it in server.arguments("-tls1_3")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    )
    world.stack.callback(client.kill)
    # `K` has the server change its keys too, `k` has not. Each must be the first of what it reads.
    for word in ("K\n", "k\n", "K\n"):
        client.stdin.write(word.encode())
        client.stdin.flush()
        until(client, b"KEYUPDATE")
    client.stdin.write(GET.encode())
    client.stdin.flush()
    contains(until(client, b"SERVING"), "HTTP/1.1 200 OK")
    equal(client.wait(10), 0)


def until(client: subprocess.Popen, word: bytes) -> str:
    """What it says from now on, up to a line with this word."""
    text = b""
    while word not in text:
        read = client.stdout.readline()
        equal(bool(read), True, f"{word} in {text}")
        text += read
    return text.decode(errors="replace")


@case("handshakes that stall are closed in time, and so is who says nothing after one")
def stalls(world: World) -> str:
    server = one(world)
    context = ssl.create_default_context(cafile=server.ca.file)
    sent, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(sent, hello, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    whole = hello.read()
    since = time.monotonic()
    stalled = {}
    for name, said in (
        ("silent", b""),
        ("a byte", whole[:1]),
        ("half of a hello", whole[: len(whole) // 2]),
        ("a hello", whole),
    ):
        stalled[name] = world.stack.enter_context(socket.create_connection(server.place, 10))
        stalled[name].sendall(said)
    silent = socket.create_connection(server.place, 10)
    stalled["after"] = world.stack.enter_context(
        context.wrap_socket(silent, server_hostname="localhost")
    )
    # Meanwhile others are served.
    equal(server.connects("-tls1_3", says=GET).code, 0)
    equal(time.monotonic() - since < 0.9, True, "in time")
    for name, connection in stalled.items():
        while ends(connection):
            pass
        took = time.monotonic() - since
        equal(took < 3, True, f"{name}: {took:.1f} s")
    return f"the last one after {time.monotonic() - since:.1f} s"


def ends(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except (ConnectionResetError, ssl.SSLEOFError):
        return b""

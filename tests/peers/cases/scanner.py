"""sslyze: what a scanner makes of a listener's TLS as it is by default, and with client
certificates. Its report is kept beside the programs, in .installed/reports."""

import json
from pathlib import Path
from typing import Any

from backends import Backend
from certificates import Authority, secured
from suite import INSTALLED, World, case, configuration, contains, equal

REPORTS = INSTALLED / "reports"
OLD = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
# Forward secret, and encrypted and authenticated in one.
STRONG = ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
# What else it finds.
WANTED = {
    ("tls_compression", "supports_compression"): False,
    ("tls_1_3_early_data", "supports_early_data"): False,
    ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection"): False,
    ("tls_fallback_scsv", "supports_fallback_scsv"): True,
    ("heartbleed", "is_vulnerable_to_heartbleed"): False,
    ("robot", "robot_result"): "NOT_VULNERABLE_RSA_NOT_SUPPORTED",
    ("session_renegotiation", "client_renegotiations_success_count"): 0,
    ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos"): False,
    ("tls_extended_master_secret", "supports_ems_extension"): True,
    ("elliptic_curves", "supported_curves"): {"X25519", "secp256r1", "secp384r1"},
}


@case("sslyze finds nothing against a listener's TLS, and it fits Mozilla's intermediate profile")
def sslyze(world: World) -> str:
    ca = Authority(world)
    backend = Backend(world)
    whole = secured(configuration([backend.address]), ca.pair("localhost"))
    otlp, tempo, health = whole["listeners"]
    tempo["tls"] = ca.pair("localhost", by_rsa=True).files()
    health["tls"]["client_ca_file"] = str(ca.file)
    proxy = world.proxy(whole).wait_until("SERVING")
    own = ca.pair("scanner")
    REPORTS.mkdir(exist_ok=True)
    files = [REPORTS / f"sslyze-{name}.json" for name in ("default", "mutual")]
    shared = (
        *("--sni", "localhost", "--certinfo_ca_file", ca.file, "--mozilla_config"),
        *("intermediate", "--resum", "--early_data", "--json_out"),
    )
    program = INSTALLED / "venv/bin/sslyze"
    runs = (
        world.start(program, *shared, files[0], proxy["otlp"], proxy["tempo"]),
        world.start(
            *(program, *shared, files[1], "--cert", own.cert, "--key", own.key, proxy["health"])
        ),
    )
    for run, file in zip(runs, files, strict=True):
        code = run.wait(50)
        text = run.text()
        file.with_suffix(".txt").write_text(text)
        # It says by its exit code whether a server fits the profile.
        equal((code, text.count("OK - Compliant.")), (0, len(servers(file))), text)
        contains(text, '"intermediate" configuration')
    found = [scan for file in files for scan in servers(file)]
    scans = {f"127.0.0.1:{scan['server_location']['port']}": scan for scan in found}
    equal(scans.keys(), set(proxy.addresses.values()), "scanned servers")
    holds(scans[proxy["otlp"]], "ECDSA")
    holds(scans[proxy["tempo"]], "RSA")
    holds(scans[proxy["health"]], "ECDSA")
    equal(proxy.serving(), "SERVING")
    return f"{REPORTS}/sslyze-*"


def servers(file: Path) -> list[dict[str, Any]]:
    """What was found of each server."""
    return json.loads(file.read_text())["server_scan_results"]


def holds(scan: dict[str, Any], kind: str) -> None:
    equal(scan["connectivity_result"]["highest_tls_version_supported"], "TLS_1_3")
    found = {}
    for name, it in scan["scan_result"].items():
        if name != "http_headers":
            equal(it["status"], "COMPLETED", f"{name}: {it['error_trace']}")
            found[name] = it["result"]
    for version in OLD:
        equal(suites(found[f"{version}_cipher_suites"]), set(), version)
    strong = {f"TLS_ECDHE_{kind}_WITH_{it}" for it in STRONG}
    equal(suites(found["tls_1_2_cipher_suites"]), strong)
    equal(suites(found["tls_1_3_cipher_suites"]), {f"TLS_{it}" for it in STRONG})
    for (name, key), wanted in WANTED.items():
        got = found[name][key]
        if isinstance(wanted, set):
            got = {it["name"] for it in got}
        equal(got, wanted, f"{name}.{key}")
    # By tickets alone. Of these it cannot tell: it wants the same one back, and gets a newer one.
    resumption = found["session_resumption"]["session_id_resumption_result"]
    equal(resumption, "NOT_SUPPORTED")


def suites(result: dict[str, Any]) -> set[str]:
    return {it["cipher_suite"]["name"] for it in result["accepted_cipher_suites"]}

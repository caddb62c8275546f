"""Certificates, made for each case."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from suite import World, command, equal

# Of a client, as a service mesh names it.
SPIFFE = "spiffe://cluster.local/ns/tempo/sa/collector"
CURVE = ec.SECP256R1()


class Pair(NamedTuple):
    """A certificate and its key."""

    cert: Path
    key: Path

    def files(self) -> dict[str, str]:
        """As the configuration names them."""
        return {"cert_file": str(self.cert), "key_file": str(self.key)}

    def read(self) -> tuple[bytes, bytes]:
        """The key and the certificate, as grpcio wants them."""
        return self.key.read_bytes(), self.cert.read_bytes()


class Authority:
    """Issues certificates."""

    def __init__(self, world: World, name: str = "ca"):
        self.world, self.name = world, name
        self.issued = 0
        self.key = ec.generate_private_key(CURVE)
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = self._builder(self.subject, self.key.public_key(), days=90)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        signed = builder.add_extension(usage, True).sign(self.key, hashes.SHA256())
        # What those who trust it are given.
        self.file = world.file(f"{name}.pem", signed.public_bytes(Encoding.PEM))

    def pair(self, *names: str, expired: bool = False, by_rsa: bool = False) -> Pair:
        """One for names, IP addresses and URIs."""
        self.issued += 1
        key = rsa.generate_private_key(65537, 2048) if by_rsa else ec.generate_private_key(CURVE)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        own = x509.SubjectAlternativeName([_name(it) for it in names])
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        signed = (
            self._builder(subject, key.public_key(), days=-1 if expired else 90)
            .add_extension(own, False)
            .add_extension(x509.ExtendedKeyUsage(usage), False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .sign(self.key, hashes.SHA256())
        )
        stem = f"{self.name}-{self.issued}"
        return Pair(
            self.world.file(f"{stem}.crt", signed.public_bytes(Encoding.PEM)),
            self.world.file(f"{stem}.key", _private(key)),
        )

    def client(self, own: Pair | None = None) -> grpc.ChannelCredentials:
        """Of grpcio's clients that trust it."""
        key, cert = own.read() if own else (None, None)
        return grpc.ssl_channel_credentials(self.file.read_bytes(), key, cert)

    def server(self, own: Pair, clients: bool = False) -> grpc.ServerCredentials:
        """Of grpcio's servers, which want a certificate of its where `clients`."""
        roots = self.file.read_bytes() if clients else None
        return grpc.ssl_server_credentials([own.read()], roots, clients)

    def says_of(self, pair: Pair, revoked: bool = False) -> Path:
        """Its OCSP response about a certificate, by `openssl ocsp`."""
        self.issued += 1
        serial = x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number
        since = f"{datetime.now(UTC):%y%m%d%H%M%SZ}" if revoked else ""
        state = "R" if revoked else "V"
        stands = (state, "491231235959Z", since, f"{serial:X}", "unknown", "/CN=x")
        stem = f"{self.name}-{self.issued}"
        index = self.world.file(f"{stem}.index", "\t".join(stands) + "\n")
        signs = self.world.file(f"{stem}.signer", _private(self.key))
        response = self.world.directory / f"{stem}.ocsp"
        done = command(
            *("openssl", "ocsp", "-index", index, "-CA", self.file, "-issuer", self.file),
            *("-rsigner", self.file, "-rkey", signs, "-cert", pair.cert, "-ndays", "7"),
            *("-no_nonce", "-noverify", "-respout", response),
        )
        equal(done.code, 0, done.err)
        return response

    def _builder(self, subject: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        its_own = x509.SubjectKeyIdentifier.from_public_key(key)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(its_own, False)
            .add_extension(issuer, False)
        )


def _private(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def secured(whole: dict[str, Any], own: Pair, **more: Any) -> dict[str, Any]:
    """A configuration whose listeners all speak TLS."""
    for listener in whole["listeners"]:
        listener["tls"] = {**own.files(), **more}
    return whole

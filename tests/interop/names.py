"""Names that third-party clients insist on, as `docs/domains.md` tells users to set them up: a resolver, a certificate.

Programs see the resolver in a mount namespace of their own, so nothing of the machine is changed, and the clients
themselves are not touched either.
"""

import datetime
import os
import shutil
import socket
import subprocess
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.e2e.running_server import until

RESOLVER = "127.0.53.1"
ADDRESS = "127.0.53.2"
FIXED_HOST = "api.hopx.dev"
DOMAIN = "cove.test"
_DAY = datetime.timedelta(days=1)


class Certificates(NamedTuple):
    """Paths of a certificate with its key, and of the authority that clients have to trust."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path, names: Iterable[str]) -> Certificates:
    """An authority of our own, and a certificate of it for `names`."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
    authority = (
        _certificate(root, root, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A server under test")])
    certificate = (
        _certificate(subject, root, key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    paths = Certificates(directory / "authority.pem", directory / "server.pem", directory / "server.key")
    paths.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    paths.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    paths.key.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return paths


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def require_names() -> None:
    """Skip where programs cannot be shown another resolver."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a mount namespace and ports 53 and 443")
    missing = [name for name in ("dnsmasq", "unshare") if shutil.which(name, path=f"{os.defpath}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install dnsmasq-base util-linux)")


@contextmanager
def resolver(directory: Path) -> Generator[tuple[str, ...]]:
    """A resolver that knows `FIXED_HOST` and everything below `DOMAIN`, all at `ADDRESS`.

    Yields the words to put before a command, so that the command asks this resolver and no other.
    """
    configuration = directory / "resolv.conf"
    configuration.write_text(f"nameserver {RESOLVER}\n")
    process = subprocess.Popen(
        [
            *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="),
            *("--bind-interfaces", f"--listen-address={RESOLVER}", "--port=53", "--user=root"),
            *(f"--address=/{name}/{ADDRESS}" for name in (DOMAIN, FIXED_HOST)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": f"{os.defpath}:/usr/sbin"},
    )
    try:
        until(lambda: _answers(process), seconds=10, what="the resolver answers")
        enter = f"mount --bind '{configuration}' /etc/resolv.conf && exec \"$@\""
        yield ("unshare", "--mount", "sh", "-c", enter, "sh")
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _answers(process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        pytest.fail(f"dnsmasq ended: {process.stderr and process.stderr.read().decode()}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((RESOLVER, 53)) == 0

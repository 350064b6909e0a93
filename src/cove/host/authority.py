"""The authority that vouches for servers towards sandboxes with secrets, whose TLS connections the egress program ends.

One of each data directory, made when it is first needed. Its key signs for any host towards these sandboxes, and for
none towards anybody else: nothing outside of sandboxes trusts it.
"""

import datetime
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cove.keys.files import make_once
from cove.models.errors import CoveError, error

FILE_NAME: Final = "authority.pem"
_YEARS: Final = 10
_WARNING_DAYS: Final = 60
_BEGIN_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
_BEGIN_KEY: Final = "-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class Authority:
    """Both in PEM (RFC 7468)."""

    certificate: str
    key: str = field(repr=False)


def load_authority(directory: Path) -> Authority:
    """The authority of a data directory, which is made at first (directory mode 0700, file mode 0600).

    Raises:
        CoveError: INTERNAL_ERROR: its file cannot be read or made, or holds something else.
    """
    path = directory / FILE_NAME
    try:
        if not path.exists():
            made = _new_authority()
            make_once(path, (made.certificate + made.key).encode())
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as problem:
        raise error(
            "INTERNAL_ERROR",
            f"The keys in {directory} cannot be used: {problem.strerror}.",
            remedy="The directory belongs to the user that runs the host daemon, mode 0700.",
        ) from problem
    certificate, begin, key = text.partition(_BEGIN_KEY)
    if not begin or not certificate.startswith(_BEGIN_CERTIFICATE):
        raise error(
            "INTERNAL_ERROR",
            f"{path} does not hold a certificate and its key.",
            remedy="Restore it from a backup; or remove it and start the host daemon anew: it makes a new one then,"
            " which sandboxes trust that are started from then on.",
        )
    return Authority(certificate, begin + key)


def authority_problem(directory: Path) -> str:
    """What is wrong with the authority that is there, for people; empty when nothing is, or there is none yet."""
    if not (directory / FILE_NAME).exists():
        return ""
    from cryptography import x509

    try:
        end = x509.load_pem_x509_certificate(load_authority(directory).certificate.encode()).not_valid_after_utc
    except CoveError as problem:
        return problem.message
    except ValueError:
        return f"the certificate in {directory / FILE_NAME} is damaged"
    left = end - datetime.datetime.now(datetime.UTC)
    return f"it ends on {end:%Y-%m-%d}" if left < datetime.timedelta(days=_WARNING_DAYS) else ""


def _new_authority() -> Authority:
    """EC P-256; may sign certificates of servers only, and no other authority (RFC 5280 §4.2.1)."""
    # Loaded here: it takes far longer than reading what was made once.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Cove egress authority {secrets.token_hex(8)}")])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )

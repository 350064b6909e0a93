"""The certificate that the public port shows."""

import ssl
from pathlib import Path
from typing import NoReturn

from cove.models.errors import CoveError, error


class ServerCertificate:
    """A certificate chain and its private key, as PEM files.

    Attributes:
        context: for new connections.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Reads the files.

        Raises:
            CoveError: INVALID_REQUEST when a file cannot be read or used, or the two do not belong together.
        """
        self._certificate = certificate
        self._key = key
        self.context = _context(certificate, key)

    def reload(self) -> None:
        """Reads the files again: connections from now on get what is in them.

        Raises:
            CoveError: as at first; what was in force stays in force.
        """
        self.context = _context(self._certificate, self._key)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    for path in (certificate, key):
        _readable(path)
    # A new context each time: half a new pair must never be mixed with half of the old one.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as problem:
        raise _unusable(certificate, key, problem) from problem
    return context


def _readable(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as problem:
        raise error(
            "INVALID_REQUEST",
            f"Cannot read {path}: {problem.strerror}.",
            remedy="--tls-cert and --tls-key name PEM files that the server's user can read.",
        ) from problem


def _no_password() -> NoReturn:
    raise error(
        "INVALID_REQUEST",
        "The private key is encrypted.",
        remedy="Write it without a password: openssl pkey -in KEY -out PLAIN_KEY.",
    )


def _unusable(certificate: Path, key: Path, problem: ssl.SSLError) -> CoveError:
    if problem.reason == "KEY_VALUES_MISMATCH":
        return error(
            "INVALID_REQUEST",
            f"The key in {key} is not the key of the certificate in {certificate}.",
            remedy="Give the pair that was made together; the server's own certificate comes first in its file.",
        )
    return error(
        "INVALID_REQUEST",
        f"{certificate} and {key} are not a certificate and its key in PEM form ({problem.reason or problem}).",
        remedy="The first begins with BEGIN CERTIFICATE, the second with BEGIN PRIVATE KEY.",
    )

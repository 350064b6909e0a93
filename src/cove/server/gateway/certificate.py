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

    def __init__(self, certificate: Path, key: Path, *, named: tuple[Path, Path] | None = None) -> None:
        """Reads the files.

        Args:
            named: what they are called in messages, if not by their paths.

        Raises:
            CoveError: INVALID_REQUEST when a file cannot be read or used, or the two do not belong together.
        """
        self._files = certificate, key
        self._named = named or self._files
        self.context = _context(self._files, self._named)

    def reload(self, certificate: Path | None = None, key: Path | None = None) -> None:
        """Reads the files again, or others: connections from now on get what is in them.

        Raises:
            CoveError: as at first; what was in force stays in force.
        """
        first, second = self._files
        self.context = _context((certificate or first, key or second), self._named)


def _context(files: tuple[Path, Path], named: tuple[Path, Path]) -> ssl.SSLContext:
    for path in files:
        _readable(path)
    certificate, key = files
    # A new context each time: half a new pair must never be mixed with half of the old one.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as problem:
        raise _unusable(*named, problem) from problem
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

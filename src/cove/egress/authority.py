"""Certificates for the hosts whose TLS is taken off: made when they are needed, signed by this server's authority."""

import asyncio
import datetime
import os
import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEPT_LEAVES: Final = 512
"""Of 25 KiB each."""
_VALID: Final = datetime.timedelta(days=8)
_KEPT: Final = datetime.timedelta(days=1)
_SKEW: Final = datetime.timedelta(hours=1)
"""By which the clock of a sandbox may be slow."""


class Authority:
    """What sandboxes with secrets trust."""

    def __init__(self, certificate: str, key: str, clock: Callable[[], datetime.datetime] | None = None) -> None:
        """
        Args:
            certificate, key: in PEM form; an EC key.

        Raises:
            ValueError: they cannot be used.
        """
        self._certificate = x509.load_pem_x509_certificate(certificate.encode())
        loaded = serialization.load_pem_private_key(key.encode(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is not an EC key")  # noqa: TRY004 - a value of the host daemon's
        if loaded.public_key() != self._certificate.public_key():
            raise ValueError("the authority's key does not belong to its certificate")
        self._key = loaded
        self._clock = clock or (lambda: datetime.datetime.now(datetime.UTC))
        # One key for all leaves, which nobody but this process ever has.
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key_pem = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._leaves: OrderedDict[str, tuple[datetime.datetime, ssl.SSLContext]] = OrderedDict()
        self._making = asyncio.Lock()

    async def context(self, name: str) -> ssl.SSLContext:
        """For a server that calls itself `name`."""
        found = self._kept(name)
        if found:
            return found
        # In a thread, because reading a key takes OpenSSL 2 ms; one at a time, so that it never takes more than a core.
        async with self._making:
            found = self._kept(name) or await asyncio.to_thread(self._make, name)
            self._leaves[name] = (self._clock() + _KEPT, found)
            while len(self._leaves) > KEPT_LEAVES:
                self._leaves.popitem(last=False)
        return found

    def _kept(self, name: str) -> ssl.SSLContext | None:
        until, context = self._leaves.get(name, (None, None))
        if until is None or until < self._clock():
            return None
        self._leaves.move_to_end(name)
        return context

    def _make(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # OpenSSL is asked by way of a file; this one is in memory only.
        descriptor = os.memfd_create("leaf")
        try:
            os.write(descriptor, self._leaf(name).public_bytes(serialization.Encoding.PEM) + self._leaf_key_pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return context

    def _leaf(self, name: str) -> x509.Certificate:
        now = self._clock()
        issuer = self._certificate
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(issuer.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - _SKEW, issuer.not_valid_before_utc))
            .not_valid_after(min(now + _VALID, issuer.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(self._issuer_identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _issuer_identifier(self) -> x509.AuthorityKeyIdentifier:
        """As the authority's own certificate has it (RFC 5280 §4.2.1.1)."""
        try:
            own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)

"""Keeping what users confide to rows and files unreadable without a key that lies beside them, not in them.

Programs, their variables, callback headers and output are in rows, secrets in rows and files; a copy of these alone (a
backup, a database on another machine) shows none of them.
"""

import hashlib
import os
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cove.keys.files import make_once
from cove.models.errors import error

_KEY_BYTES = 32
_NONCE_BYTES = 12
_FORM = b"\x01"


class Sealer:
    """AES-256-GCM (NIST SP 800-38D) with a random nonce; what is sealed is bound to a name and opens under no other."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._digest_key = HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=b"digest").derive(key)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Use the key in a file, which is made at first (mode 0600).

        Raises:
            CoveError: INTERNAL_ERROR when the file holds something else.
        """
        make_once(path, os.urandom(_KEY_BYTES))
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise error(
                "INTERNAL_ERROR",
                f"{path} does not hold a key of {_KEY_BYTES} bytes.",
                remedy="Restore it from a backup; what was stored with it cannot be read without it.",
            )
        return cls(key)

    def digest(self, content: bytes) -> bytes:
        """32 bytes by which equal content is known; without the key nobody can try what it was."""
        return hashlib.blake2b(content, digest_size=32, key=self._digest_key).digest()

    def seal(self, name: str, content: bytes) -> bytes:
        """`content`, readable only with the key and under the same name."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORM + nonce + self._cipher.encrypt(nonce, content, _FORM + name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """What was sealed under this name.

        Raises:
            CoveError: INTERNAL_ERROR when it was changed, or sealed with another key or under another name.
        """
        start = len(_FORM) + _NONCE_BYTES
        nonce, text = sealed[len(_FORM) : start], sealed[start:]
        try:
            return self._cipher.decrypt(nonce, text, _FORM + name.encode())
        except (InvalidTag, ValueError) as failure:
            raise error(
                "INTERNAL_ERROR",
                "What was stored cannot be read: it was sealed with another key, or was changed.",
                remedy="Restore the key file in the data directory that belongs to it.",
            ) from failure

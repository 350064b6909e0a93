"""Archives for COPY steps: links that authorise themselves, and the files that came by them."""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cove.core.clock import Clock
from cove.models.errors import error

LINK_SECONDS: Final = 3600.0
KEPT_SECONDS: Final = 7 * 24 * 3600.0
MAX_FILES_OF_ONE: Final = 100
MAX_BYTES_OF_ONE: Final = 4 * 1024**3
_TAG_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Upload:
    """What a link is for. `size` in bytes is what was announced and is held to."""

    namespace: str
    files_hash: str
    size: int


class UploadShelf:
    """Files below one directory, a directory for each namespace.

    Links are signed with a key that lives as long as this process: after a restart clients ask for new ones.
    """

    def __init__(self, directory: Path, *, clock: Clock = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._coming: list[Upload] = []

    def find(self, namespace: str, files_hash: str) -> Path | None:
        """The archive, if it is there."""
        path = self._path(namespace, files_hash)
        return path if path.is_file() else None

    def link(self, namespace: str, files_hash: str, size: int) -> tuple[str, float]:
        """A token that lets its bearer put this one archive, and until when (unix seconds).

        Raises:
            CoveError: RESOURCE_LIMIT_EXCEEDED when the namespace has too much here already.
        """
        self.prune()
        self._admit(namespace, size)
        expires = self._clock() + LINK_SECONDS
        text = f"{expires:.0f}.{size}.{files_hash}.{namespace}".encode()
        return base64.urlsafe_b64encode(self._tag(text) + text).decode().rstrip("="), expires

    def open_link(self, token: str) -> Upload:
        """What a token is for.

        Raises:
            CoveError: FORBIDDEN.
        """
        try:
            raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except ValueError:
            raw = b""
        tag, text = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(text)):
            remedy = "POST /v1/templates/files/upload-link gives one."
            raise error("FORBIDDEN", "This link for an upload is not one of this server.", remedy=remedy)
        expires, size, files_hash, namespace = text.decode().split(".", 3)
        if float(expires) <= self._clock():
            raise error("FORBIDDEN", "This link for an upload has expired.", remedy="Ask for a new one.")
        return Upload(namespace, files_hash, int(size))

    async def take(self, upload: Upload, pieces: AsyncIterator[bytes]) -> None:
        """Write the archive; it is there when it is whole, and not before.

        Raises:
            CoveError: INVALID_REQUEST when it has another size than was announced, RESOURCE_LIMIT_EXCEEDED, DISK_FULL.
        """
        # Again: many links may have been given out before the first archive came.
        self._admit(upload.namespace, upload.size)
        self._coming.append(upload)
        try:
            await self._write(upload, pieces)
        finally:
            self._coming.remove(upload)

    async def _write(self, upload: Upload, pieces: AsyncIterator[bytes]) -> None:
        path = self._path(upload.namespace, upload.files_hash)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as file:
                taken = 0
                async for piece in pieces:
                    taken += len(piece)
                    if taken > upload.size:
                        break
                    file.write(piece)
            if taken != upload.size:
                raise error(
                    "INVALID_REQUEST",
                    f"The archive has not the {upload.size} bytes that were announced.",
                    remedy="Ask for a link with the archive's size.",
                )
            temporary.replace(path)
        except OSError as problem:
            raise error("DISK_FULL", f"The archive cannot be kept: {problem.strerror}.") from problem
        finally:
            temporary.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what is old."""
        before = self._clock() - KEPT_SECONDS
        for path in self._directory.glob("*/*"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _admit(self, namespace: str, size: int) -> None:
        kept = self._of(namespace).glob("*.tar.gz")
        sizes = [path.stat().st_size for path in kept]
        sizes += [upload.size for upload in self._coming if upload.namespace == namespace]
        taken = sum(sizes)
        if len(sizes) >= MAX_FILES_OF_ONE or taken + size > MAX_BYTES_OF_ONE:
            raise error(
                "RESOURCE_LIMIT_EXCEEDED",
                f"The limit of uploaded archives is reached: {MAX_FILES_OF_ONE} files, {MAX_BYTES_OF_ONE} bytes.",
                remedy="They are removed a week after they came; smaller contexts help too.",
                limit=MAX_BYTES_OF_ONE,
                current=taken,
                available=max(0, MAX_BYTES_OF_ONE - taken),
            )

    def _tag(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256")

    def _of(self, namespace: str) -> Path:
        # Hashed: a namespace's name is chosen by people.
        return self._directory / hashlib.sha256(namespace.encode()).hexdigest()[:32]

    def _path(self, namespace: str, files_hash: str) -> Path:
        return self._of(namespace) / f"{files_hash}.tar.gz"

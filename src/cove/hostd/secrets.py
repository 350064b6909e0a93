"""The secrets of this host's sandboxes: in memory, and sealed in files, for the next daemon."""

import contextlib
import errno
import os
from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pydantic
import structlog

from cove.models.errors import CoveError, error
from cove.models.identifiers import is_sandbox_id
from cove.models.secrets import MAX_SECRETS, EgressSecret

if TYPE_CHECKING:
    from cove.keys.sealing import Sealer

_MAX_BYTES: Final = 192 * 1024
"""Of one sandbox, as JSON: they go to the egress program in one packet."""
_SECRETS: Final = pydantic.TypeAdapter(tuple[EgressSecret, ...])
_log = structlog.get_logger(__name__)


class SandboxSecrets:
    """One file a sandbox that has any, apart from its record, which is shown. No value is readable without the key."""

    def __init__(self, directory: Path, *, key: Path) -> None:
        """
        Args:
            directory: of the files.
            key: the file of the key, made when the first secret comes.
        """
        self._directory = directory
        self._key = key
        self._secrets: dict[str, tuple[EgressSecret, ...]] = {}

    def of(self, sandbox_id: str) -> tuple[EgressSecret, ...]:
        """All that the sandbox has."""
        return self._secrets.get(sandbox_id, ())

    def keep(self, sandbox_id: str, secrets: Iterable[EgressSecret]) -> None:
        """In place of all that the sandbox has; on disk when this returns.

        Raises:
            CoveError: INVALID_REQUEST: too many; DISK_FULL, INTERNAL_ERROR: they cannot be written. Nothing has changed
                then.
        """
        secrets = tuple(secrets)
        content = _SECRETS.dump_json(secrets)
        if len(secrets) > MAX_SECRETS or len(content) > _MAX_BYTES:
            raise error("INVALID_REQUEST", f"A sandbox has at most {MAX_SECRETS} secrets, {_MAX_BYTES} bytes in all.")
        if not secrets:
            self.forget(sandbox_id)
            return
        try:
            self._write(self._path(sandbox_id), self._sealer.seal(sandbox_id, content))
        except OSError as problem:
            code = "DISK_FULL" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else "INTERNAL_ERROR"
            raise error(code, f"The sandbox's secrets cannot be kept: {problem.strerror}.") from problem
        self._secrets[sandbox_id] = secrets

    def merge(self, sandbox_id: str, changed: Iterable[EgressSecret], removed: Collection[str]) -> None:
        """Give the sandbox these, in place of those of the same names, and take away those that are named.

        Raises:
            CoveError: as `keep`.
        """
        kept = {secret.name: secret for secret in self.of(sandbox_id) if secret.name not in removed}
        self.keep(sandbox_id, {**kept, **{secret.name: secret for secret in changed}}.values())

    def forget(self, sandbox_id: str) -> None:
        """The sandbox is no more, or has none any more. Idempotent."""
        if self._secrets.pop(sandbox_id, None) is not None:
            self._path(sandbox_id).unlink(missing_ok=True)

    def load(self, known: Collection[str]) -> None:
        """Those of the sandboxes that there are, as an earlier daemon left them; all others are removed."""
        for path in self._directory.glob("*"):
            if path.stem in known and path.suffix == ".sealed":
                self._load(path)
            else:
                path.unlink(missing_ok=True)

    def _load(self, path: Path) -> None:
        """What cannot be read is left: whoever brings the key back has it again. Programs' placeholders stay what they
        are meanwhile."""
        try:
            content = self._sealer.open(path.stem, path.read_bytes())
            self._secrets[path.stem] = _SECRETS.validate_json(content)
        except (CoveError, OSError, pydantic.ValidationError) as problem:
            _log.error("secrets_unreadable", sandbox=path.stem, problem=type(problem).__name__)

    @cached_property
    def _sealer(self) -> "Sealer":
        from cove.keys.sealing import Sealer  # a host whose sandboxes have no secrets needs no cipher

        return Sealer.load(self._key)

    def _write(self, path: Path, content: bytes) -> None:
        """In one step (rename(2)), and not lost with the machine's power: the next start of the sandbox needs them."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            fresh.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise

    def _path(self, sandbox_id: str) -> Path:
        if not is_sandbox_id(sandbox_id):
            raise ValueError(f"{sandbox_id!r} is not a sandbox id")
        return self._directory / f"{sandbox_id}.sealed"

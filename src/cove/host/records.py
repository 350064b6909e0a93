"""One file a sandbox: what exists on this host, readable again after a crash of the daemon."""

import os
from pathlib import Path

import pydantic

from cove.models.hosts import SandboxRecord
from cove.models.identifiers import is_sandbox_id


class RecordStore:
    """Records as JSON files in one directory; each write replaces a file in one step (rename(2))."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, record: SandboxRecord, *, durable: bool = False) -> None:
        """Write or replace; `durable`: also for the case that the machine loses power right afterwards."""
        path = self._path(record.sandbox_id)
        fresh = path.with_suffix(".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(record.model_dump_json().encode())
        if durable:
            _sync(fresh)
        fresh.rename(path)
        if durable:
            _sync(self._directory)

    def remove(self, sandbox_id: str) -> None:
        """Forget. Idempotent."""
        self._path(sandbox_id).unlink(missing_ok=True)

    def load(self) -> tuple[SandboxRecord, ...]:
        """Every record; unreadable files are removed, since what they spoke of cannot be known."""
        for unfinished in self._directory.glob("*.new"):
            unfinished.unlink(missing_ok=True)
        records: list[SandboxRecord] = []
        for path in self._directory.glob("*.json"):
            try:
                records.append(SandboxRecord.model_validate_json(path.read_bytes()))
            except (pydantic.ValidationError, OSError):
                path.unlink(missing_ok=True)
        return tuple(records)

    def _path(self, sandbox_id: str) -> Path:
        if not is_sandbox_id(sandbox_id):
            raise ValueError(f"{sandbox_id!r} is not a sandbox id")
        return self._directory / f"{sandbox_id}.json"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

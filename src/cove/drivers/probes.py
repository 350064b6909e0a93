"""Boot probes of drivers: tried once in a process, and what went well is remembered for the next processes.

A verdict on disk counts for the very same kernel, boot, user, version and program of the driver, for a day. That a
probe failed is kept by nobody but the process: whoever repairs the machine and tries again is not told old news.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cove.models.errors import CoveError, error
from cove.models.isolation import ISOLATION_SUMMARY, Capabilities, DriverReport, Isolation
from cove.models.version import VERSION

_MAX_AGE_SECONDS: Final = 86400.0
_MAX_BYTES: Final = 4096
_PACKAGE: Final = Path(__file__).resolve().parents[1]
_CODE: Final = ("drivers", "host", "linux")


@dataclass(frozen=True)
class Verdict:
    """That a probe went well.

    Attributes:
        seconds: how long it took.
        notes: what it found out beside that, for later starts.
    """

    seconds: float
    notes: Mapping[str, str]


class VerdictFile:
    """The last good verdict of one driver and one user. Whatever is wrong with the file, there is none.

    The directory above may be another user's, who gains nothing by putting something else in place of ours: both the
    directory and the file have to be this user's own, and are opened without following links.
    """

    def __init__(self, directory: Path, isolation: Isolation) -> None:
        self._directory = directory
        self._name = f"{isolation}-{os.geteuid()}.json"

    def read(self, key: str) -> Verdict | None:
        """The verdict, if it was given under this key, not long ago, by this user."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError), self._opened() as directory:
            content = self._content(directory)
            age = time.time() - float(content["at"])
            if content["key"] == key and 0 <= age <= _MAX_AGE_SECONDS:
                notes = {str(name): str(value) for name, value in dict(content["notes"]).items()}
                return Verdict(float(content["seconds"]), notes)
        return None

    def write(self, key: str, verdict: Verdict) -> None:
        """Keep it; where that cannot be, it is not kept."""
        text = {"key": key, "at": time.time(), "seconds": verdict.seconds, "notes": dict(verdict.notes)}
        fresh = f"{self._name}.{secrets.token_hex(4)}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(FileExistsError):
                self._directory.mkdir(mode=0o700, parents=True)
            with self._opened() as directory:
                with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=directory), "w", encoding="utf-8") as file:
                    json.dump(text, file)
                os.rename(fresh, self._name, src_dir_fd=directory, dst_dir_fd=directory)

    def forget(self) -> None:
        """Idempotent."""
        with contextlib.suppress(OSError, ValueError), self._opened() as directory:
            os.unlink(self._name, dir_fd=directory)

    @contextlib.contextmanager
    def _opened(self) -> Generator[int]:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _expect_own(directory)
            yield directory
        finally:
            os.close(directory)

    def _content(self, directory: int) -> Any:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(self._name, flags, dir_fd=directory), "rb") as file:
            _expect_own(file.fileno())
            return json.loads(file.read(_MAX_BYTES))


def _expect_own(handle: int) -> None:
    about = os.fstat(handle)
    if about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise ValueError("others could have written this")


class BootProbe:
    """The probe of one driver."""

    def __init__(
        self,
        isolation: Isolation,
        *,
        facts: Callable[[], Awaitable[tuple[str, ...]]],
        attempt: Callable[[], Awaitable[Mapping[str, str]]],
        verdicts: Path | None,
    ) -> None:
        """
        Args:
            facts: what the verdict depends on, beside machine, user and version; raises CoveError where it is clear
                without an attempt that there can be no sandbox.
            attempt: starts a tiny sandbox, and gives `Verdict.notes`; raises CoveError or OSError.
            verdicts: the directory that remembers; None: nothing is.
        """
        self._isolation = isolation
        self._facts = facts
        self._attempt = attempt
        self._file = VerdictFile(verdicts, isolation) if verdicts else None
        self._outcome: Verdict | CoveError | None = None
        self._seconds = 0.0
        self._probing = asyncio.Lock()

    async def outcome(self, *, fresh: bool = False) -> Verdict | CoveError:
        """The verdict, or why there can be no sandbox; `fresh`: tried now, whatever is remembered."""
        async with self._probing:
            if self._outcome is None or fresh:
                started = time.monotonic()
                try:
                    self._outcome = await self._found(started, fresh=fresh)
                except CoveError as failed:
                    self._outcome = failed
                except OSError as failed:
                    self._outcome = error("SANDBOX_START_FAILED", f"The boot probe failed: {failed}.")
                self._seconds = round(time.monotonic() - started, 3)
                if self._file and isinstance(self._outcome, CoveError):
                    self._file.forget()
            return self._outcome

    def report(
        self, outcome: Verdict | CoveError, *, capabilities: Capabilities, lost: tuple[str, ...]
    ) -> DriverReport:
        """The outcome, as hosts tell it."""
        problem = outcome if isinstance(outcome, CoveError) else None
        return DriverReport(
            isolation=self._isolation,
            available=problem is None,
            summary=ISOLATION_SUMMARY[self._isolation],
            seconds=outcome.seconds if isinstance(outcome, Verdict) else self._seconds,
            capabilities=capabilities,
            problems=(problem.message,) if problem else (),
            remedies=(problem.remedy,) if problem and problem.remedy else (),
            lost=lost,
        )

    def doubt(self) -> None:
        """A start has failed: the next process tries for itself."""
        if self._file:
            self._file.forget()

    async def _found(self, started: float, *, fresh: bool) -> Verdict:
        key = await asyncio.to_thread(_key, await self._facts())
        remembered = self._file.read(key) if self._file and not fresh else None
        if remembered:
            return remembered
        notes = await self._attempt()
        verdict = Verdict(round(time.monotonic() - started, 3), notes)
        if self._file:
            await asyncio.to_thread(self._file.write, key, verdict)
        return verdict


def _key(facts: tuple[str, ...]) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    code = max(path.stat().st_mtime_ns for name in _CODE for path in (_PACKAGE / name).rglob("*.py"))
    here = (platform.release(), boot, str(os.geteuid()), VERSION, str(code), sys.executable, str(_PACKAGE))
    return hashlib.blake2b("\0".join((*here, *facts)).encode(), digest_size=16).hexdigest()

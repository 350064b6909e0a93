"""Bounded collection of a program's output."""

import codecs
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cove.agent.engine import OutputFlow

MAX_FILE_BYTES = 64 * 1024 * 1024
ENDING_BYTES = 2048
KEPT_EXECUTIONS = 20
OUTPUT_DIRECTORY = Path("/tmp/.cove/output")


@dataclass(frozen=True, slots=True)
class Captured:
    """One stream of one program.

    Attributes:
        truncated: more was printed than `text` holds.
        file: where the rest lies inside the sandbox, if it could be written.
    """

    text: str = ""
    truncated: bool = False
    file: str | None = None


class OutputFiles:
    """Files for output that is too long for an answer; those of the last `KEPT_EXECUTIONS` executions stay.

    Programs of the sandbox can write to the directory too. So nothing is followed or reused here: a file that cannot
    be created freshly is not written at all.
    """

    def __init__(self, directory: Path = OUTPUT_DIRECTORY) -> None:
        self._directory = directory
        self._names: deque[list[str]] = deque()
        self._execution = ""

    def create(self, execution_id: str, stream: str) -> tuple[int, str] | None:
        """A new file's descriptor and path; None when that is impossible."""
        name = f"{execution_id}.{stream}"
        try:
            folder = self._open_directory()
        except OSError:
            return None
        try:
            self._remember(execution_id, name, folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, 0o600, dir_fd=folder), str(self._directory / name)
        except OSError:
            return None
        finally:
            os.close(folder)

    def _open_directory(self) -> int:
        parent = self._directory.parent
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        above = os.open(parent, flags)
        try:
            _require_private(above)
            with suppress(FileExistsError):
                os.mkdir(self._directory.name, 0o700, dir_fd=above)
            folder = os.open(self._directory.name, flags, dir_fd=above)
        finally:
            os.close(above)
        try:
            _require_private(folder)
        except OSError:
            os.close(folder)
            raise
        return folder

    def _remember(self, execution_id: str, name: str, folder: int) -> None:
        if execution_id == self._execution and self._names:
            self._names[-1].append(name)
            return
        self._execution = execution_id
        self._names.append([name])
        while len(self._names) > KEPT_EXECUTIONS:
            for old in self._names.popleft():
                try:
                    os.unlink(old, dir_fd=folder)
                except OSError:
                    continue


def _require_private(folder: int) -> None:
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError("the directory for output files belongs to someone else or is open to others")


class Capture:
    """Keeps the first `limit` bytes; from there on everything goes to a file, at most `MAX_FILE_BYTES` of it."""

    def __init__(
        self,
        limit: int,
        create_file: Callable[[], tuple[int, str] | None],
        listener: Callable[[bytes], None] | None = None,
    ) -> None:
        """`listener` is told of each piece that is kept, as it comes."""
        self._listener = listener
        self._limit = limit
        self._create_file = create_file
        self._kept = bytearray()
        self._descriptor: int | None = None
        self._path: str | None = None
        self._in_file = 0
        self._ending = b""
        self.total = 0

    def ending(self) -> bytes:
        """The last `ENDING_BYTES` of the stream."""
        return self._ending if self.total > len(self._kept) else bytes(self._kept[-ENDING_BYTES:])

    @property
    def full(self) -> bool:
        """Whether the program has to wait before it prints more."""
        return False

    def when_room(self, resume: Callable[[], None]) -> None:
        """Call `resume` when it is no longer full."""

    @property
    def truncated(self) -> bool:
        """More was printed than is kept."""
        return self.total > self._limit

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        overflowed = self.total > self._limit
        self.total += len(chunk)
        room = self._limit - len(self._kept)
        if room > 0:
            self._kept += chunk[:room]
            if self._listener:
                self._listener(chunk[:room])
        if self.total <= self._limit:
            return
        self._note_ending(chunk if overflowed else self._kept[-ENDING_BYTES:] + chunk[max(room, 0) :])
        if not overflowed:
            self._open_file()
            chunk = chunk[max(room, 0) :]
        self._write_file(chunk)

    def finish(self, stream: str) -> Captured:
        """Close the file and return what was collected; `stream` names it in the mark of truncation."""
        truncated = self.truncated
        self._close_file()
        text = _decode(self._kept, whole=not truncated)
        if truncated:
            shown = f"the first {len(self._kept)} of {self.total} bytes"
            place = f"more in {self._path}" if self._path else "the rest was discarded"
            if self._path and self._in_file >= MAX_FILE_BYTES:
                place = f"the first {MAX_FILE_BYTES} bytes in {self._path}"
            text += f"\n[{stream} truncated: {shown} shown; {place}]\n"
        return Captured(text, truncated, self._path)

    def _note_ending(self, chunk: bytes | bytearray) -> None:
        self._ending = bytes((self._ending + chunk[-ENDING_BYTES:])[-ENDING_BYTES:])

    def _open_file(self) -> None:
        created = self._create_file()
        if created is not None:
            self._descriptor, self._path = created
            self._write_file(self._kept)

    def _write_file(self, chunk: bytes | bytearray) -> None:
        rest = memoryview(chunk)[: MAX_FILE_BYTES - self._in_file]
        while self._descriptor is not None and rest:
            try:
                written = os.write(self._descriptor, rest)
            except OSError:  # no space left: what is in the file stays
                self._close_file()
                return
            self._in_file += written
            rest = rest[written:]

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Passage(Capture):
    """Keeps nothing: passes everything on to a flow."""

    def __init__(self, flow: OutputFlow, stream: str) -> None:
        super().__init__(0, lambda: None)
        self._flow = flow
        self._stream = stream

    @property
    def full(self) -> bool:
        """As the flow says."""
        return self._flow.full

    @property
    def truncated(self) -> bool:
        """Never: what it does not keep is not lost."""
        return False

    def when_room(self, resume: Callable[[], None]) -> None:
        """As the flow says."""
        self._flow.when_room(resume)

    def write(self, chunk: bytes) -> None:
        """Pass the next bytes of the stream on."""
        self.total += len(chunk)
        self._note_ending(chunk)
        self._flow.take(self._stream, chunk)


def _decode(data: bytearray, *, whole: bool) -> str:
    """UTF-8 with replacement characters; a character that the cut went through is left out."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(data), whole)

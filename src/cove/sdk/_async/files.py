"""Files inside a sandbox."""

import builtins
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from cove.models.errors import InvalidRequest, LimitExceeded, NotFound, error
from cove.models.files import ArchiveExtracted, FileContent, FileEntry, FileList, FileWritten
from cove.sdk import _requests as requests
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._async.primitives import blocking
from cove.sdk._failures import parse, parse_object
from cove.sdk._local_files import PIECE_BYTES, Progress, mode_for, open_regular, report
from cove.sdk._multipart import Multipart, multipart_for
from cove.sdk._requests import SandboxPath

if TYPE_CHECKING:
    from cove.sdk._async.watching import AsyncWatch
    from cove.sdk._transfers import DirectoryTransfer

WORKSPACE = "/workspace"


class AsyncFiles:
    """Files of one sandbox. Paths are those inside; relative ones are below /workspace.

    Every method raises `CoveError`; FILE_NOT_FOUND and FORBIDDEN are about files in the sandbox. Trouble with
    local files raises `OSError`.
    """

    def __init__(self, link: AsyncAgentLink) -> None:
        self._link = link

    async def read(self, path: SandboxPath) -> str:
        """The text of a file.

        Raises:
            InvalidRequest: the file is not UTF-8; `read_bytes` takes any.
            LimitExceeded: it is larger than 64 MiB; `download` takes any size.
        """
        content = await self.read_bytes(path)
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise error("INVALID_REQUEST", f"{path} is not UTF-8 text.", remedy="Use files.read_bytes().") from None

    async def read_bytes(self, path: SandboxPath) -> bytes:
        """The bytes of a file.

        Raises:
            LimitExceeded: it is larger than 64 MiB; `download` takes any size.
        """
        call = replace(requests.of_file("download", path), max_answer_bytes=requests.MAX_READ_BYTES)
        try:
            return await self._link.send(call)
        except LimitExceeded as failure:
            if failure.code == "REQUEST_TOO_LARGE":
                failure.remedy = "Use files.download(), which streams it to a local file."
            raise

    async def read_range(self, path: SandboxPath, *, offset: int = 0, limit: int) -> FileContent:
        """A part of a file: at most `limit` bytes from the byte `offset` on, fewer at its end.

        The content is base64 where the part is not UTF-8, as it is when the cut goes through a character.

        Raises:
            LimitExceeded: the part is larger than 64 MiB.
        """
        call = replace(
            requests.of_file("read", path, offset=offset, limit=limit), max_answer_bytes=2 * requests.MAX_READ_BYTES
        )
        return parse(FileContent, await self._link.send(call))

    async def write(
        self, path: SandboxPath, content: str, mode: str = "0644", *, overwrite: bool = True
    ) -> FileWritten:
        """Create or replace a file with text (UTF-8); missing directories are created. `mode` is octal.

        Raises:
            Conflict: it exists, and `overwrite` is false.
            LimitExceeded: more than 64 MiB; `upload` takes any size.
        """
        call = requests.write_file(path, content, mode=mode, overwrite=overwrite)
        return parse(FileWritten, await self._link.send(call))

    async def write_bytes(
        self, path: SandboxPath, content: bytes, mode: str = "0644", *, overwrite: bool = True
    ) -> FileWritten:
        """As `write`, for bytes."""
        call = requests.write_file(path, content, mode=mode, overwrite=overwrite)
        return parse(FileWritten, await self._link.send(call))

    async def list(self, path: SandboxPath = WORKSPACE) -> builtins.list[FileEntry]:
        """What a directory holds.

        Raises:
            LimitExceeded: more entries than the agent lists.
        """
        found = parse(FileList, await self._link.send(requests.of_file("list", path)))
        if found.truncated:
            raise error(
                "REQUEST_TOO_LARGE",
                f"{path} holds more than the {len(found.files)} entries that can be listed.",
                remedy="Use commands.run() with `ls` or `find`.",
            )
        return [*found.files]

    async def list_page(self, path: SandboxPath = WORKSPACE, *, offset: int = 0, limit: int) -> FileList:
        """A part of what a directory holds: at most `limit` entries after the first `offset`.

        `truncated` says that there are more, and `next_offset` where they begin.
        """
        return parse(FileList, await self._link.send(requests.of_file("list", path, offset=offset, limit=limit)))

    async def exists(self, path: SandboxPath) -> bool:
        """Whether there is something at `path`."""
        return parse_object(await self._link.send(requests.of_file("exists", path))).get("exists") is True

    async def remove(self, path: SandboxPath) -> None:
        """Remove a file, or a directory with all that is in it.

        Raises:
            NotFound: there is nothing at `path`.
        """
        await self._link.send(requests.of_file("remove", path, method="DELETE"))

    async def mkdir(self, path: SandboxPath) -> None:
        """Create a directory and its parents; one that exists is fine."""
        await self._link.send(requests.make_directory(path))

    async def upload(
        self,
        local_path: str | os.PathLike[str],
        remote_path: SandboxPath,
        *,
        timeout: float = requests.TRANSFER_SECONDS,
        on_progress: Progress | None = None,
    ) -> FileWritten:
        """Copy a local file into the sandbox, piece by piece, whatever its size; or a directory, as `upload_dir` does.

        Args:
            timeout: seconds for the whole.
            on_progress: told how many bytes have gone, again and again.

        Raises:
            OSError: the local file cannot be read.
            InvalidRequest: it is not a regular file, or it was cut while being read.
        """
        if Path(local_path).is_dir():
            return await self.upload_dir(local_path, remote_path, timeout=timeout, on_progress=on_progress)
        seconds = requests.check_seconds("timeout", timeout)
        frame = multipart_for(requests.checked_path(remote_path))
        file, size = open_regular(local_path)
        with file:
            call = requests.Call(
                method="POST",
                path="/files/upload",
                timeout=seconds,
                headers=(
                    ("Content-Type", frame.content_type),
                    ("Content-Length", str(frame.length(size))),
                ),
            )
            deadline = time.monotonic() + seconds
            body = partial(_pieces, file, frame, size=size, deadline=deadline, on_progress=on_progress)
            return parse(FileWritten, await self._link.send(call, body=body))

    async def download(
        self,
        remote_path: SandboxPath,
        local_path: str | os.PathLike[str],
        *,
        timeout: float = requests.TRANSFER_SECONDS,
        max_bytes: int = requests.MAX_DOWNLOAD_BYTES,
        on_progress: Progress | None = None,
    ) -> Path:
        """Copy a file out of the sandbox, piece by piece; or a directory, as `download_dir` does.

        The local file is replaced once all of it has come.

        Args:
            timeout: seconds for the whole.
            max_bytes: more is refused, for the sandbox decides how much it sends.
            on_progress: told how many bytes have come, again and again.

        Raises:
            OSError: the local file cannot be written.
            LimitExceeded: there are more than `max_bytes`.
        """
        try:
            await self._download_file(
                remote_path, Path(local_path), timeout=timeout, max_bytes=max_bytes, on_progress=on_progress
            )
        except InvalidRequest as refusal:
            if refusal.code != "INVALID_PATH":
                raise
            try:
                await self.download_dir(
                    remote_path, local_path, timeout=timeout, max_bytes=max_bytes, on_progress=on_progress
                )
            except (InvalidRequest, NotFound):
                raise refusal from None
        return Path(local_path)

    async def upload_dir(
        self,
        local_path: str | os.PathLike[str],
        remote_path: SandboxPath,
        *,
        timeout: float = requests.TRANSFER_SECONDS,
        on_progress: Progress | None = None,
    ) -> "DirectoryTransfer":
        """Copy what a local directory holds into a directory of the sandbox, as one stream.

        Executable bits, empty directories and symbolic links are kept. FIFOs, sockets, devices and links that lead
        outside are left out, and named in the answer.

        Args:
            remote_path: made if need be; what else is in it stays.
            timeout: seconds for the whole.
            on_progress: told how many bytes have gone, again and again.

        Raises:
            OSError: something of it cannot be read.
        """
        from cove.sdk._async.directories import upload_directory

        return await upload_directory(
            self._link, Path(local_path), remote_path, timeout=timeout, on_progress=on_progress
        )

    async def download_dir(
        self,
        remote_path: SandboxPath,
        local_path: str | os.PathLike[str],
        *,
        timeout: float = requests.TRANSFER_SECONDS,
        max_bytes: int = requests.MAX_DOWNLOAD_BYTES,
        on_progress: Progress | None = None,
    ) -> "DirectoryTransfer":
        """Copy what a directory of the sandbox holds into a local one, as one stream.

        Nothing is ever written outside of `local_path`, whatever the sandbox sends. Links that lead outside are left
        out, and named in the answer; so is what is neither file, directory nor link.

        Args:
            local_path: made if need be; what else is in it stays.
            timeout: seconds for the whole.
            max_bytes: more is refused, for the sandbox decides how much it sends.
            on_progress: told how many bytes have come, again and again.

        Raises:
            NotFound: there is no such directory.
            OSError: something cannot be written.
            LimitExceeded: there are more than `max_bytes`; what came before is there.
        """
        from cove.sdk._async.directories import download_directory

        return await download_directory(
            self._link, remote_path, Path(local_path), timeout=timeout, max_bytes=max_bytes, on_progress=on_progress
        )

    async def write_many(
        self, files: Mapping[str, str | bytes] | Iterable[tuple[SandboxPath, str | bytes]], mode: str = "0644"
    ) -> ArchiveExtracted:
        """Create or replace many files in one request, by their paths. They are not written as one: after a failure
        some may be there.

        Raises:
            InvalidRequest: a path holds `..`.
            LimitExceeded: more than 64 MiB together.
        """
        from cove.sdk._async.directories import write_files

        pairs = cast(Mapping[str, str | bytes], files).items() if isinstance(files, Mapping) else files
        return await write_files(self._link, pairs, mode=mode)

    def watch(
        self, path: SandboxPath = WORKSPACE, *, recursive: bool = True, timeout: float | None = None
    ) -> "AsyncWatch":
        """Changes of files below `path` as they happen, until it is removed or the caller has enough: iterate over
        what this returns, or enter it first to be sure that it watches.

        An `overflow` among them says that changes were lost: list the directory then.

        Args:
            timeout: seconds after which the loop ends.

        Raises:
            NotFound: there is no such path.
            LimitExceeded: the sandbox is watched too often.
        """
        from cove.sdk._async.watching import AsyncWatch

        return AsyncWatch(self._link, path, recursive=recursive, timeout=timeout)

    async def _download_file(
        self,
        remote_path: SandboxPath,
        target: Path,
        *,
        timeout: float,
        max_bytes: int,
        on_progress: Progress | None,
    ) -> None:
        call = replace(
            requests.of_file("download", remote_path),
            timeout=requests.check_seconds("timeout", timeout),
            max_answer_bytes=max_bytes,
        )
        async with self._link.stream(call) as pieces:
            handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
            part, done = Path(name), 0
            try:
                with os.fdopen(handle, "wb") as file:
                    async for piece in pieces:
                        await blocking(file.write, piece)
                        done += len(piece)
                        report(on_progress, done)
                part.chmod(mode_for(target))
                part.replace(target)
            finally:
                with suppress(FileNotFoundError):
                    part.unlink()


async def _pieces(
    file: BinaryIO, frame: Multipart, *, size: int, deadline: float, on_progress: Progress | None
) -> AsyncGenerator[bytes, None]:
    """The body of an upload: exactly as many bytes as were announced, though the file may grow meanwhile."""
    file.seek(0)
    yield frame.head
    left = size
    while left:
        piece = await blocking(file.read, min(left, PIECE_BYTES))
        if not piece:
            raise error("INVALID_REQUEST", "The local file was cut while it was being uploaded.")
        if time.monotonic() > deadline:
            raise error("TIMEOUT", "The upload took too long.", remedy="Give a longer timeout.")
        left -= len(piece)
        yield piece
        report(on_progress, size - left)
    yield frame.tail

"""The server of this machine's data directory: found, or started on demand.

It is begun before anything heavy is imported, so this imports little.
"""

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cove.host.claims import owners_only
from cove.models.errors import CoveError, error
from cove.models.version import VERSION
from cove.server.local_address import LocalAddress, living_server, log_path

if TYPE_CHECKING:
    from typing import BinaryIO

START_SECONDS: Final = 45.0
"""Assistants give up after a minute."""
_PARENT_SECONDS: Final = 5.0
_GONE_SECONDS: Final = 12.0
"""For a server of another version that nobody uses any more: it ends by itself."""
_PAUSE: Final = 0.02


@dataclass
class Start:
    """A server that is being started by this process. The lock keeps others from starting another one meanwhile."""

    lock: "BinaryIO"
    parent: subprocess.Popen[bytes]
    ready: int

    async def over(self, seconds: float) -> None:
        """Wait until it serves.

        Raises:
            CoveError: as it says itself; HOST_UNAVAILABLE when it says nothing.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        loop.add_reader(self.ready, told.set)
        try:
            async with asyncio.timeout(seconds):
                await told.wait()
            line = os.read(self.ready, 65536)
        except TimeoutError:
            line = b""
        finally:
            loop.remove_reader(self.ready)
            self.forget()
        _raise_if_failed(line)

    def forget(self) -> None:
        """Let go of it; it goes on."""
        os.close(self.ready)
        self.lock.close()
        self.parent.wait(_PARENT_SECONDS)


def begin(data_dir: Path) -> Start | None:
    """Start a server unless one runs already, or somebody else is starting one.

    Raises:
        CoveError: the data directory cannot be used.
    """
    run = data_dir / "run"
    try:
        if living_server(data_dir) is not None:
            return None
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = open(run / "local-start.lock", "a+b", opener=owners_only)  # noqa: SIM115 (held until the start is over)
    except OSError as problem:
        raise _unusable(data_dir, problem) from problem
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Somebody else may have finished a start between the look and the lock.
        if living_server(data_dir) is None:
            return _launch(data_dir, lock)
    except BlockingIOError:
        pass
    except OSError as problem:
        lock.close()
        raise _unusable(data_dir, problem) from problem
    lock.close()
    return None


async def find(data_dir: Path) -> LocalAddress:
    """The server of this data directory, which is started if there is none.

    Raises:
        CoveError: it does not start; CONFLICT when it is of another version of Cove.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    started = loop.time()
    while (left := START_SECONDS - (loop.time() - started)) > 0:
        address = _look(data_dir)
        if address is not None and address.version == VERSION:
            return address
        if address is not None and (not address.on_demand or loop.time() - started > _GONE_SECONDS):
            raise _other_version(address)
        begun = begin(data_dir)
        if begun is not None:
            await begun.over(left)
        else:
            await asyncio.sleep(_PAUSE)
    raise error(
        "HOST_UNAVAILABLE",
        f"The local server is not ready after {START_SECONDS:.0f} s.",
        remedy=f"Try again; {log_path(data_dir)} says what it does.",
    )


def _look(data_dir: Path) -> LocalAddress | None:
    try:
        return living_server(data_dir)
    except OSError as problem:
        raise _unusable(data_dir, problem) from problem


def _launch(data_dir: Path, lock: "BinaryIO") -> Start:
    ready, ready_for_child = os.pipe()
    try:
        descriptor = os.open(log_path(data_dir), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            parent = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cove.server.on_demand"),
                    *("--data-dir", str(data_dir), "--ready-fd", str(ready_for_child)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=descriptor,
                pass_fds=(ready_for_child,),
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(ready_for_child)
    return Start(lock, parent, ready)


def _raise_if_failed(line: bytes) -> None:
    try:
        told: dict[str, Any] = json.loads(line)
        failure = told["error"]
        if failure is not None:
            raise error(str(failure["code"]), str(failure["message"]), remedy=str(failure["remedy"]))
    except (ValueError, TypeError, KeyError):
        raise error(
            "HOST_UNAVAILABLE",
            "The local server did not start.",
            remedy="local-server.log in the data directory and `cove doctor` say why.",
        ) from None


def _other_version(address: LocalAddress) -> CoveError:
    what = "A local server that other assistants use" if address.on_demand else "The server of this data directory"
    remedy = (
        "Close the other assistants, or start them anew; it ends some seconds after the last."
        if address.on_demand
        else "Start it again, or use another data directory (--data-dir)."
    )
    return error(
        "CONFLICT", f"{what} is Cove {address.version} (process {address.pid}); this is {VERSION}.", remedy=remedy
    )


def _unusable(data_dir: Path, problem: OSError) -> CoveError:
    return error(
        "INVALID_REQUEST",
        f"The data directory {data_dir} cannot be used: {problem.strerror or problem}.",
        remedy="Choose another with --data-dir or COVE_DATA_DIR.",
    )

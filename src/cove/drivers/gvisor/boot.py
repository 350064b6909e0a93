"""From a kit to a running kernel: one call of the launcher, whether a sandbox starts or goes on from a checkpoint."""

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cove.drivers.guests import launcher_environment
from cove.drivers.gvisor.bundle import CONTAINER, Box
from cove.drivers.gvisor.guest import protocol
from cove.drivers.gvisor.launcher import FAILED, Launch
from cove.drivers.gvisor.pipes import GuestPipes
from cove.drivers.gvisor.runsc import Runsc
from cove.drivers.kits import Kit
from cove.host.identities import host_id
from cove.linux.clone import open_process, start_time_of
from cove.models.errors import CoveError, error
from cove.models.templates import TemplateManifest, is_ownable

_LAUNCH_SECONDS: Final = 60.0
_READY_SECONDS: Final = 120.0
_END_SECONDS: Final = 10.0
_PROGRAM: Final = "cove.drivers.gvisor.launcher"


@dataclass(frozen=True)
class Boot:
    """What is started.

    Attributes:
        slot: its range of user ids.
        template: what it will be a sandbox of.
        image: the checkpoint that it goes on from; None: the guest program starts anew.
        owned: directories of its user, beside the usual ones.
        lifeline: see `Launch`.
    """

    runsc: Runsc
    box: Box
    kit: Kit
    slot: int
    template: TemplateManifest
    image: Path | None
    owned: tuple[str, ...] = ()
    lifeline: int = -1


def host_user(slot: int, template: TemplateManifest) -> int:
    """The host's id of a sandbox's user. That of a root inside is the template owner's, as which gVisor's file server
    writes to the sandbox's own files; programs are nobody on the host, they run on gVisor's kernel."""
    return host_id(slot, 0 if template.run_as_root else protocol.USER_ID)


class RestoreFailedError(Exception):
    """`runsc` itself could not restore; `cause` is for whoever asked."""

    def __init__(self, cause: CoveError) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def boot(what: Boot, pipes: GuestPipes) -> None:
    """Start `runsc` and wait until the kernel runs.

    Raises:
        CoveError: SANDBOX_START_FAILED. Processes may be left in the kit's cgroups then.
        RestoreFailedError: the checkpoint may be broken.
    """
    kit = what.kit
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-m", _PROGRAM, _launch(what).to_json()),
        stdin=pipes.theirs[0],
        stdout=pipes.theirs[1],
        stderr=pipes.theirs[2],
        env=launcher_environment(),
        pass_fds=[handle for handle in (kit.disk, what.lifeline) if handle is not None and handle >= 0],
        cwd="/",
        start_new_session=True,
    )
    try:
        pipes.started()
        async with asyncio.timeout(_LAUNCH_SECONDS):
            code = await process.wait()
    except BaseException as problem:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
        if isinstance(problem, TimeoutError):
            raise error("SANDBOX_START_FAILED", f"gVisor did not start in {_LAUNCH_SECONDS:.0f} s.") from problem
        raise
    if code != 0:
        if what.image is not None and code != FAILED:
            raise RestoreFailedError(_failed(code, pipes.errors))
        raise _failed(code, pipes.errors)


def _launch(what: Boot) -> Launch:
    box, kit = what.box, what.kit
    common = ("--detach", f"--pid-file={box.pid_file}", f"--bundle={box.directory}")
    start = ("run", *common) if what.image is None else ("restore", f"--image-path={what.image}", *common)
    owned = {*what.template.owned_directories, *what.owned}
    return Launch(
        groups=kit.groups,
        stage=str(box.stage),
        root=str(box.root),
        layers=what.template.layers,
        disk=-1 if kit.disk is None else kit.disk,
        disk_mb=kit.limits.disk_mb,
        user=host_user(what.slot, what.template),
        owned=tuple(sorted(name.strip("/") for name in owned if is_ownable(name))),
        placeholder=protocol.PLACEHOLDER if what.image is None else "",
        lifeline=what.lifeline,
        command=what.runsc.command(box.state, *start, CONTAINER),
    )


def _failed(code: int, text: str) -> CoveError:
    last = " | ".join(text.splitlines()[-3:]) or f"exit status {code}"
    what = "The sandbox's root filesystem cannot be set up" if code == FAILED else "gVisor did not start"
    return error(
        "SANDBOX_START_FAILED",
        f"{what}: {last[:700]}.",
        remedy="`cove doctor` tries gVisor and says what is missing; `cove templates build` makes templates anew.",
    )


def kernel_of(box: Box) -> int:
    """A pidfd of the sandbox's kernel; its death is the sandbox's.

    Raises:
        CoveError: SANDBOX_START_FAILED: it has ended.
    """
    try:
        pid = int(box.pid_file.read_text(encoding="ascii"))
        pidfd = open_process(pid, start_time_of(pid))
    except (OSError, ValueError) as problem:
        raise error("SANDBOX_START_FAILED", "gVisor ended at its start.") from problem
    if pidfd is None:
        raise error("SANDBOX_START_FAILED", "gVisor ended at its start.")
    return pidfd


async def await_ready(pipes: GuestPipes) -> dict[str, Any]:
    """What the guest program says when it has imported everything.

    Raises:
        CoveError: SANDBOX_START_FAILED.
    """
    try:
        async with asyncio.timeout(_READY_SECONDS):
            message = await pipes.receive()
    except TimeoutError as problem:
        raise error(
            "SANDBOX_START_FAILED", f"The template's program was not ready in {_READY_SECONDS:.0f} s."
        ) from problem
    if message is None or not message.get("ready"):
        last = " | ".join(pipes.errors.splitlines()[-3:])
        raise error("SANDBOX_START_FAILED", f"The template's program ended at its start: {last[:700]}.")
    return message


async def end_program(process: asyncio.subprocess.Process) -> None:
    """Kill a command of runsc that takes too long."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(_END_SECONDS):
        await process.wait()

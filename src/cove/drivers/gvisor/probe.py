"""The boot probe: start one kernel with the driver's own steps, and have a tiny program say that it runs.

It needs no template: the program is `runsc` itself, which needs no libraries and tells its version.
"""

import asyncio
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cove.drivers.gvisor.runsc import Runsc
from cove.drivers.gvisor.workshop import Workshop
from cove.host.identities import TEMPLATE_OWNER
from cove.models.errors import error
from cove.models.limits import Limits
from cove.models.templates import TemplateManifest

_PROBE_SECONDS: Final = 20.0
_SKELETON: Final = ("proc", "dev", "sys", "tmp", "run", "workspace", "home")
_PROGRAM: Final = "probe"


async def probe(runsc: Runsc, workshop: Workshop, directory: Path) -> None:
    """Boot.

    Raises:
        CoveError: SANDBOX_START_FAILED, LIMIT_NOT_ENFORCEABLE.
    """
    template = await asyncio.to_thread(_template, runsc, directory)
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await _boot(runsc, workshop, template)
    except TimeoutError as problem:
        raise error("SANDBOX_START_FAILED", f"gVisor's boot probe took more than {_PROBE_SECONDS:.0f} s.") from problem
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _boot(runsc: Runsc, workshop: Workshop, template: TemplateManifest) -> None:
    limits = Limits(disk_mb=64)
    member = await workshop.make(runsc, template, limits, image=None, program=(f"/{_PROGRAM}", "--version"))
    try:
        said = await member.pipes.read_line()
    finally:
        await workshop.discard_finally(member)
    if not said.startswith(b"runsc version"):
        raise error("SANDBOX_START_FAILED", f"A probe sandbox started, but its program said nothing: {said[:80]!r}.")


def _template(runsc: Runsc, directory: Path) -> TemplateManifest:
    """A root filesystem of mount points and one program."""
    for name in ("", *_SKELETON):
        path = directory / name
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chown(path, TEMPLATE_OWNER, TEMPLATE_OWNER)
    program = directory / _PROGRAM
    shutil.copyfile(runsc.path, program)
    program.chmod(0o755)
    os.chown(program, TEMPLATE_OWNER, TEMPLATE_OWNER)
    return TemplateManifest(
        name="probe",
        display_name="boot probe",
        description="",
        digest="probe",
        layers=(str(directory),),
        python=f"/{_PROGRAM}",
        built_at=datetime.now(UTC),
    )

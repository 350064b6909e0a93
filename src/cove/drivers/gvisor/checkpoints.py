"""Memory images of templates: the guest program with all its imports, waiting for its birth message.

An image is made once, of a sandbox that nobody used, and every sandbox of the template goes on from it. Layers of a
user's build are not in it: a template that was derived has the image of its base, so nothing that a user made has run
in what others go on from.
"""

import asyncio
import contextlib
import hashlib
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from cove.drivers.gvisor.boot import end_program
from cove.drivers.gvisor.bundle import CONTAINER, Box
from cove.drivers.gvisor.runsc import Runsc
from cove.models.errors import error
from cove.models.templates import TemplateManifest

_SAVE_SECONDS: Final = 120.0
_KEPT: Final = 8
_COMPLETE: Final = "checkpoint.img"
_PIECE: Final = 4096


Fresh = Callable[[Runsc, TemplateManifest], AbstractAsyncContextManager[Box]]
"""Runs the guest program of a template anew until it is ready; at the end of the context all of it is gone."""


class Checkpoints:
    """Finds, makes and removes images below one directory, which is root's alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._making: dict[str, asyncio.Lock] = {}

    async def image(self, runsc: Runsc, template: TemplateManifest, fresh: Fresh) -> Path:
        """The directory of the template's image, made if need be.

        Raises:
            CoveError: SANDBOX_START_FAILED, and what making a sandbox raises.
        """
        trusted = without_builds(template)
        path = self._directory / await asyncio.to_thread(_key, runsc, trusted)
        async with self._making.setdefault(path.name, asyncio.Lock()):
            if not (path / _COMPLETE).is_file():
                await self._make(runsc, trusted, path, fresh)
                await asyncio.to_thread(self._prune, path)
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    def forget(self, image: Path) -> None:
        """Remove an image that cannot be used; the next sandbox makes it anew."""
        shutil.rmtree(image, ignore_errors=True)

    async def _make(self, runsc: Runsc, template: TemplateManifest, path: Path, fresh: Fresh) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = self._directory / f"{path.name}.{secrets.token_hex(4)}.new"
        scratch.mkdir(mode=0o700)
        try:
            async with fresh(runsc, template) as box:
                await _save(runsc, box, scratch)
            with contextlib.suppress(OSError):  # another host on this data directory was faster
                scratch.rename(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if not (path / _COMPLETE).is_file():
            raise error("SANDBOX_START_FAILED", "gVisor saved no checkpoint.")

    def _prune(self, newest: Path) -> None:
        """The least recently used go, and what was never finished."""
        day_ago = time.time() - 86400
        entries = sorted(self._directory.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
        finished = [entry for entry in entries if entry.suffix != ".new"]
        abandoned = [entry for entry in entries if entry.suffix == ".new" and entry.stat().st_mtime < day_ago]
        for entry in (*finished[_KEPT:], *abandoned):
            if entry != newest:
                shutil.rmtree(entry, ignore_errors=True)


def without_builds(template: TemplateManifest) -> TemplateManifest:
    """The template as its base's recipe made it: no layer and no variable of a user's build."""
    trusted = {name: value for name, value in template.environment.items() if name not in template.own_environment}
    return template.model_copy(
        update={
            "layers": template.layers[len(template.own_layers) :],
            "own_layers": (),
            "environment": trusted,
            "own_environment": {},
        }
    )


async def _save(runsc: Runsc, box: Box, directory: Path) -> None:
    """`runsc checkpoint`; uncompressed, since reading it is on the way to each sandbox."""
    process = await asyncio.create_subprocess_exec(
        *runsc.command(box.state, "checkpoint", "--compression=none", f"--image-path={directory}", CONTAINER),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        cwd="/",
    )
    assert process.stderr
    try:
        async with asyncio.timeout(_SAVE_SECONDS):
            text = await process.stderr.read(_PIECE)
            code = await process.wait()
    except BaseException:
        await asyncio.shield(end_program(process))
        raise
    if code != 0:
        raise error("SANDBOX_START_FAILED", f"gVisor saved no checkpoint: {text.decode(errors='replace').strip()}.")


def _key(runsc: Runsc, template: TemplateManifest) -> str:
    """Everything that an image depends on: what is in it, what made it, and the machine."""
    facts = (
        *template.layers,
        *(
            f"{template.python} {template.run_as_root}",
            *template.preload,
            *sorted(f"{name}={value}" for name, value in template.environment.items()),
        ),
        *(runsc.path, str(runsc.version), *runsc.flags, platform.release(), _processor()),
    )
    return hashlib.blake2b("\0".join(facts).encode(), digest_size=16).hexdigest()


def _processor() -> str:
    """A program in memory has chosen its code for this processor's features."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return line
    return platform.machine()

"""The boot probe: start one tiny sandbox with the driver's own steps, and have it say what it sees.

It needs no template: its root filesystem is an empty skeleton, and the process in it is the launcher's own Python,
which carries all it needs in memory.
"""

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from cove.linux.clone import CLONE_NEWUSER, unshare
from cove.models.agent import AgentBoot
from cove.models.errors import error
from cove.models.templates import TemplateManifest

_ANSWER_SECONDS: Final = 5.0
_SKELETON: Final = ("proc", "dev", "mnt", "tmp", "workspace", "home")


def probe_template(directory: Path, owner: int | None) -> TemplateManifest:
    """A template of nothing but mount points, owned by `owner` (None: by this process's user)."""
    for name in ("", *_SKELETON):
        path = directory / name
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        if owner is not None:
            os.chown(path, owner, owner)
    return TemplateManifest(
        name="probe",
        display_name="boot probe",
        description="",
        digest="probe",
        layers=(str(directory),),
        python="",
        built_at=datetime.now(UTC),
    )


def report_self(listener: socket.socket, boot: AgentBoot, _counters: Mapping[str, int]) -> NoReturn:
    """What the probe's sandbox does: answer its one client with what it can see and may do."""
    facts = {
        "sandbox_id": boot.sandbox_id,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "root": sorted(os.listdir("/")),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "may_unshare": _may_unshare(),
        "status": _status(),
    }
    with suppress(OSError):
        connection, _ = listener.accept()
        connection.sendall(json.dumps(facts).encode())
        connection.close()
    os._exit(0)


async def read_facts(socket_path: str) -> dict[str, Any]:
    """Ask the probe's sandbox.

    Raises:
        CoveError: SANDBOX_START_FAILED when it does not answer in time, or not truly isolated.
    """
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                facts = json.loads(await reader.read(65536))
            finally:
                writer.close()
        broken = _broken(facts)
    except (OSError, TimeoutError, ValueError, KeyError, TypeError, RecursionError) as problem:
        raise error("SANDBOX_START_FAILED", f"The probe's sandbox does not answer: {problem}.") from problem
    if broken:
        raise error("SANDBOX_START_FAILED", f"A probe sandbox started, but it is not true that it {broken[0]}.")
    return facts


def _broken(facts: dict[str, Any]) -> list[str]:
    status = facts["status"]
    expectations = {
        "is the first process of its own pid namespace": facts["pid"] == 1,
        "has a network of its own with nothing but loopback": facts["interfaces"] == ["lo"],
        "may not create namespaces (seccomp)": not facts["may_unshare"],
        "has no capabilities": set(status["CapEff"] + status["CapPrm"] + status["CapBnd"]) == {"0"},
        "cannot gain privileges": status["NoNewPrivs"] == "1",
        "runs behind a seccomp filter": status["Seccomp"] == "2",
    }
    return [text for text, holds in expectations.items() if not holds]


def _may_unshare() -> bool:
    try:
        unshare(CLONE_NEWUSER)
    except OSError:
        return False
    return True


def _status() -> dict[str, str]:
    with open("/proc/self/status", "rb") as file:  # bytes: no codec can be imported any more here
        pairs = (line.decode().split(":", 1) for line in file)
        return {name: value.strip() for name, value in pairs}

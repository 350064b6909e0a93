"""Records of sandboxes: what drivers write into them, and find in them after a restart."""

import time
from collections.abc import Mapping
from pathlib import Path

from cove.drivers.kits import Kit
from cove.linux.clone import start_time_of
from cove.models.errors import error
from cove.models.hosts import HostState, SandboxRecord, SandboxSpec
from cove.models.isolation import Isolation
from cove.models.templates import TemplateManifest


def record_of(
    spec: SandboxSpec,
    template: TemplateManifest,
    isolation: Isolation,
    *,
    socket_file: Path,
    pid: int,
    slot: int,
    kit: Kit,
) -> SandboxRecord:
    """The record of a sandbox that has just started.

    Raises:
        CoveError: SANDBOX_START_FAILED: its first process has ended already.
    """
    try:
        started = start_time_of(pid)
    except OSError as problem:
        raise error("SANDBOX_START_FAILED", "A new sandbox ended at its start.") from problem
    return SandboxRecord(
        sandbox_id=spec.sandbox_id,
        template=template.name,
        template_digest=template.digest,
        isolation=isolation,
        limits=spec.limits,
        state=HostState.RUNNING,
        socket_path=str(socket_file),
        pid=pid,
        pid_started=started,
        created=time.time(),
        deadline=spec.deadline,
        pooled=spec.pooled,
        driver_state={"slot": str(slot), "kit": kit.name, "groups": "\n".join(kit.groups)},
    )


def stopped_record(record: SandboxRecord) -> SandboxRecord:
    """The record of a sandbox whose processes have ended, and that may be started again."""
    return record.model_copy(update={"state": HostState.STOPPED, "pid": 0, "pid_started": 0})


def restart_spec(record: SandboxRecord, env_vars: Mapping[str, str]) -> SandboxSpec:
    """What the next start of a stopped sandbox makes."""
    return SandboxSpec(
        sandbox_id=record.sandbox_id,
        template=record.template,
        limits=record.limits,
        env_vars=dict(env_vars),
        deadline=record.deadline,
    )


def groups_in(record: SandboxRecord) -> tuple[str, ...]:
    """Directories of its cgroups."""
    groups = record.driver_state.get("groups")
    return tuple(groups.split("\n")) if groups else ()


def slot_in(record: SandboxRecord) -> int:
    """Its user id range."""
    return int(record.driver_state.get("slot", "0"))


def kit_in(record: SandboxRecord) -> str:
    """Name of its cgroups and its disk."""
    return record.driver_state.get("kit", record.sandbox_id)

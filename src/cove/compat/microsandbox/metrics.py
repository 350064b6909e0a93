"""Figures of sandboxes."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from cove.compat.microsandbox.sandboxes import NamedSandboxes
from cove.models.errors import CoveError
from cove.models.sandboxes import SandboxInfo, SandboxStatus
from cove.models.scopes import EVERY_NAMESPACE
from cove.sdk import AsyncControlPlane, AsyncSandbox

MAX_SANDBOXES = 1000
_AT_ONCE = 8
_SECONDS = 5.0
_MIB = 1024 * 1024
_NULLABLE_NUMBER = WithJsonSchema({"type": ["number", "null"]})


class Metrics(BaseModel):
    """Of one sandbox. What is not known of it, for it does not run, is null.

    Attributes:
        cpu_usage: percent of its processors since somebody asked before.
        memory_usage: MiB.
        disk_usage: bytes.
    """

    model_config = ConfigDict(frozen=True)

    namespace: str
    name: str
    running: bool
    cpu_usage: Annotated[float | None, _NULLABLE_NUMBER] = None
    memory_usage: Annotated[int | None, _NULLABLE_NUMBER] = None
    disk_usage: Annotated[int | None, _NULLABLE_NUMBER] = None


class MetricsResult(BaseModel):
    """Of `sandbox.metrics.get`."""

    model_config = ConfigDict(frozen=True)

    sandboxes: list[Metrics]


async def metrics(control: AsyncControlPlane, namespace: str | None, name: str | None) -> MetricsResult:
    """Of one sandbox, of those of a namespace, or with `*` of all namespaces: of at most `MAX_SANDBOXES`.

    Raises:
        NotFound: there is none with that name.
        PermissionRefused: the key is of another namespace.
    """
    found = await _found(control, namespace, name)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def of(info: SandboxInfo) -> Metrics:
        async with slots:
            return await _metrics_of(control, info)

    return MetricsResult(sandboxes=[*await asyncio.gather(*map(of, found))])


async def _found(control: AsyncControlPlane, namespace: str | None, name: str | None) -> Sequence[SandboxInfo]:
    if namespace == EVERY_NAMESPACE:
        everywhere = control.in_namespace(EVERY_NAMESPACE)
        return await _first(info async for info in everywhere.sandboxes(name=name) if info.name)
    named = NamedSandboxes(control, namespace)
    return await _first(named.all()) if name is None else [await named.get(name)]


async def _first(found: AsyncIterator[SandboxInfo]) -> Sequence[SandboxInfo]:
    kept: list[SandboxInfo] = []
    async for info in found:
        kept.append(info)
        if len(kept) == MAX_SANDBOXES:
            break
    return kept


async def _metrics_of(control: AsyncControlPlane, info: SandboxInfo) -> Metrics:
    running = info.status is SandboxStatus.RUNNING
    namespace = info.namespace or ""
    known = Metrics(namespace=namespace, name=info.name or "", running=running)
    if not running:
        return known
    sandbox = AsyncSandbox(info, control.in_namespace(namespace) if namespace else control)
    try:
        async with asyncio.timeout(_SECONDS):
            system = _fields(await sandbox.get_metrics_snapshot(), "system")
    except (CoveError, TimeoutError):
        # It has ended meanwhile, does not answer, or the key may only look.
        return known
    memory, disk = (_number(_fields(system, part), "used_mb") for part in ("memory", "disk"))
    return known.model_copy(
        update={
            "cpu_usage": _number(_fields(system, "cpu"), "usage_percent"),
            "memory_usage": None if memory is None else round(memory),
            "disk_usage": None if disk is None else round(disk * _MIB),
        }
    )


def _fields(within: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a sandbox says is not trusted to have any form."""
    found = within.get(name)
    return cast(Mapping[str, Any], found) if isinstance(found, dict) else {}


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    found = fields.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e15:
        return None
    return float(found)

"""A host behind the daemon's socket."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pydantic

from cove.hostd import wire
from cove.models.errors import CoveError, error
from cove.models.hosts import HostCapacity, HostChanges, HostUsage, SandboxRecord, SandboxSpec
from cove.models.isolation import DriverReport
from cove.models.network import EgressPolicy, EgressTotals, NetworkReport
from cove.models.secrets import EgressSecret
from cove.models.templates import BuildProgress, TemplateDerivation, TemplateManifest

_CALL_SECONDS: Final = 60.0
_WARM_SECONDS: Final = 180.0
_DERIVE_SECONDS: Final = 600.0
_BUILD_STEP_SECONDS: Final = 1800.0

_Answer = tuple[str, Any]
"""What kind of message came ("ok", "item", "error"), and its raw value."""


class RemoteHost:
    """Implements `core.ports.Host` over one connection; a lost connection is made anew at the next call."""

    def __init__(self, path: Path, *, call_seconds: float = _CALL_SECONDS) -> None:
        """`call_seconds` bounds the wait for every call that does not start, probe or build something."""
        self._path = path
        self._call_seconds = call_seconds
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def close(self) -> None:
        """Drop the connection."""
        if self._connection:
            await self._connection.close()

    async def capacity(self) -> HostCapacity:
        """See `core.ports.Host`, as for all methods here."""
        return await self._call("capacity", {}, seconds=_WARM_SECONDS)

    async def check(self) -> tuple[DriverReport, ...]:
        """Probing takes seconds the first time."""
        return await self._call("check", {}, seconds=_WARM_SECONDS)

    async def create(self, spec: SandboxSpec) -> SandboxRecord:
        """The first create of a template may have to warm it."""
        return await self._call("create", {"spec": spec.model_dump(mode="json")}, seconds=_WARM_SECONDS)

    async def destroy(self, sandbox_id: str) -> None:
        """Idempotent."""
        await self._call("destroy", {"sandbox_id": sandbox_id})

    async def claim(self, sandbox_id: str, deadline: float | None) -> SandboxRecord:
        """Pool member to sandbox."""
        return await self._call("claim", {"sandbox_id": sandbox_id, "deadline": deadline})

    async def set_deadline(self, sandbox_id: str, deadline: float | None) -> None:
        """Unix seconds."""
        await self._call("set_deadline", {"sandbox_id": sandbox_id, "deadline": deadline})

    async def set_network(self, sandbox_id: str, policy: EgressPolicy | None) -> None:
        """In force when this returns."""
        wanted = None if policy is None else policy.model_dump(mode="json")
        await self._call("set_network", {"sandbox_id": sandbox_id, "policy": wanted})

    async def set_secrets(self, sandbox_id: str, changed: tuple[EgressSecret, ...], removed: tuple[str, ...]) -> None:
        """In force when this returns."""
        given = [secret.model_dump(mode="json") for secret in changed]
        await self._call("set_secrets", {"sandbox_id": sandbox_id, "changed": given, "removed": list(removed)})

    async def network(self, sandbox_id: str, after: int) -> NetworkReport:
        """Of one sandbox."""
        return await self._call("network", {"sandbox_id": sandbox_id, "after": after})

    async def pause(self, sandbox_id: str) -> None:
        """Idempotent."""
        await self._call("pause", {"sandbox_id": sandbox_id})

    async def resume(self, sandbox_id: str) -> None:
        """Idempotent."""
        await self._call("resume", {"sandbox_id": sandbox_id})

    async def stop(self, sandbox_id: str, env_vars: Mapping[str, str]) -> None:
        """Idempotent."""
        await self._call("stop", {"sandbox_id": sandbox_id, "env_vars": dict(env_vars)})

    async def start(self, sandbox_id: str) -> SandboxRecord:
        """May have to warm the template, as `create`."""
        return await self._call("start", {"sandbox_id": sandbox_id}, seconds=_WARM_SECONDS)

    async def changes(self, cursor: str, seconds: float) -> HostChanges:
        """Waits on the host's side."""
        patience = seconds + self._call_seconds
        return await self._call("changes", {"cursor": cursor, "seconds": seconds}, seconds=patience)

    async def list(self) -> tuple[SandboxRecord, ...]:
        """All records."""
        return await self._call("list", {})

    async def usage(self, sandbox_id: str) -> HostUsage:
        """Of one sandbox."""
        return await self._call("usage", {"sandbox_id": sandbox_id})

    async def network_totals(self) -> EgressTotals:
        """Of all."""
        return await self._call("network_totals", {})

    async def templates(self) -> tuple[TemplateManifest, ...]:
        """Those that are built."""
        return await self._call("templates", {})

    async def warm(self, template: str) -> None:
        """Takes as long as the template's imports do."""
        await self._call("warm", {"name": template}, seconds=_WARM_SECONDS)

    async def derive_template(self, derivation: TemplateDerivation) -> TemplateManifest:
        """Copies what the build left."""
        arguments = {"derivation": derivation.model_dump(mode="json")}
        return await self._call("derive_template", arguments, seconds=_DERIVE_SECONDS)

    async def remove_template(self, name: str) -> None:
        """Idempotent."""
        await self._call("remove_template", {"name": name}, seconds=_DERIVE_SECONDS)

    async def build_template(self, name: str) -> AsyncIterator[BuildProgress]:
        """Steps as they come."""
        async with self._asked("build_template", {"name": name}) as answers:
            while True:
                kind, value = await _next(answers, _BUILD_STEP_SECONDS, "build_template")
                if kind == "ok":
                    return
                yield BuildProgress.model_validate(value)

    async def _call(self, call: str, arguments: dict[str, Any], *, seconds: float | None = None) -> Any:
        async with self._asked(call, arguments) as answers:
            _, value = await _next(answers, seconds or self._call_seconds, call)
        try:
            return wire.CALLS[call][1].validate_python(value, strict=False)
        except pydantic.ValidationError as problem:
            raise error("HOST_UNAVAILABLE", f"The host daemon's answer to {call} makes no sense.") from problem

    @contextlib.asynccontextmanager
    async def _asked(self, call: str, arguments: dict[str, Any]) -> AsyncGenerator[asyncio.Queue[_Answer]]:
        connection = await self._connect()
        number = next(self._numbers)
        answers = connection.waiting[number] = asyncio.Queue()
        try:
            connection.writer.write(wire.encode({"id": number, "call": call, "args": arguments}))
            yield answers
        finally:
            del connection.waiting[number]

    async def _connect(self) -> "_Connection":
        async with self._connecting:
            if self._connection is None or self._connection.lost:
                try:
                    reader, writer = await asyncio.open_unix_connection(self._path, limit=wire.MAX_LINE)
                except OSError as problem:
                    raise error(
                        "HOST_UNAVAILABLE",
                        f"The host daemon does not answer at {self._path}: {problem.strerror}.",
                        remedy="Is `cove serve` (or `cove hostd`) running on this data directory?",
                    ) from problem
                self._connection = _Connection(reader, writer)
            return self._connection


class _Connection:
    """One connection to the daemon, and the calls that wait for answers on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.waiting: dict[int, asyncio.Queue[_Answer]] = {}
        self._reading = asyncio.create_task(self._read(reader))

    @property
    def lost(self) -> bool:
        """Whether no answer can come any more."""
        return self._reading.done() or self.writer.is_closing()

    async def close(self) -> None:
        """Hang up; calls that wait fail."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self.writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._hand_on(json.loads(line))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # not our protocol, or nobody there: both mean that the connection is of no use
        finally:
            self.writer.close()
            lost = error("HOST_UNAVAILABLE", "The connection to the host daemon was lost.")
            for answers in self.waiting.values():
                answers.put_nowait(("error", wire.error_to_wire(lost)))

    def _hand_on(self, message: dict[str, Any]) -> None:
        answers = self.waiting.get(message.pop("id"))
        if answers:
            answers.put_nowait(message.popitem())


async def _next(answers: asyncio.Queue[_Answer], seconds: float, call: str) -> _Answer:
    try:
        async with asyncio.timeout(seconds):
            kind, value = await answers.get()
    except TimeoutError as problem:
        raise error("HOST_UNAVAILABLE", f"The host daemon did not answer {call} in {seconds:.0f} s.") from problem
    if kind == "error":
        raise _failure(value)
    return kind, value


def _failure(value: Any) -> CoveError:
    return wire.error_from_wire(value if isinstance(value, dict) else {})  # pyright: ignore[reportUnknownArgumentType]

"""The egress program: serves the sandboxes whose sockets it is given, for as long as a host needs it."""

import asyncio
import contextlib
import functools
import os
import socket
import struct
from typing import Any, Final

import pydantic
import structlog

from cove.egress import wire
from cove.egress.captured import CapturedSandbox
from cove.egress.carrying import Pipes
from cove.egress.log_file import LogFile
from cove.egress.resolving import Upstream
from cove.egress.termination import Termination
from cove.models.network import EgressTotals, EnforcedPolicy
from cove.models.secrets import EgressSecret

LONELY_SECONDS: Final = 30.0
"""Without a sandbox and without a host daemon it ends after so long."""
_SECRETS: Final = pydantic.TypeAdapter(tuple[EgressSecret, ...])
_log = structlog.get_logger("cove.egress")


class EgressProgram:
    """Takes calls of the host daemon; sandboxes go on while there is none, so that one can be replaced."""

    def __init__(self, upstream: Upstream, termination: Termination) -> None:
        self._upstream = upstream
        self._termination = termination
        self._secrets: dict[str, tuple[EgressSecret, ...]] = {}
        self._pipes = Pipes()
        self._log = LogFile()
        self._sandboxes: dict[str, CapturedSandbox] = {}
        self._ended = EgressTotals()
        self._callers: set[asyncio.Task[None]] = set()
        self._end = asyncio.Event()
        self._changed = asyncio.Event()

    async def run(self, listener: socket.socket) -> None:
        """Take calls on `listener`, which is bound, until told to end, or nobody is left."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        listener.listen(16)
        loop.add_reader(listener, self._accept, listener)
        try:
            await self._until_needed_no_more()
        finally:
            loop.remove_reader(listener)
            listener.close()
            for caller in self._callers:
                caller.cancel()
            await asyncio.gather(*self._callers, return_exceptions=True)
            await asyncio.gather(*(one.end() for one in self._sandboxes.values()), return_exceptions=True)
            await self._log.close()
            self._pipes.close()

    def end(self) -> None:
        """End soon."""
        self._end.set()
        self._changed.set()

    async def _until_needed_no_more(self) -> None:
        while not self._end.is_set():
            self._changed.clear()
            lonely = not self._callers and not self._sandboxes
            try:
                async with asyncio.timeout(LONELY_SECONDS if lonely else None):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _accept(self, listener: socket.socket) -> None:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        caller.setblocking(False)
        if not _is_own(caller):
            caller.close()
            return
        wire.widen(caller)
        task = asyncio.create_task(self._serve(caller))
        self._callers.add(task)
        task.add_done_callback(self._callers.discard)
        task.add_done_callback(lambda _: self._changed.set())

    async def _serve(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(EOFError, OSError, ValueError):
            while True:
                message, descriptors = await wire.receive(caller)
                await wire.send(caller, await self._answer(message, descriptors))

    async def _answer(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        if message.get("call") == "log":
            return self._keep_log(message, descriptors)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            return {"ok": await self._call(message, sockets)}
        except pydantic.ValidationError as problem:
            # Without what was given: that may be a secret.
            wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problem.errors(include_input=False)]
            return {"error": f"not a call: {'; '.join(wrong)}"[:500]}
        except (KeyError, TypeError, ValueError) as problem:
            return {"error": f"not a call: {problem}"[:500]}
        except OSError as problem:
            return {"error": f"the sandbox's sockets cannot be used: {problem.strerror}"}
        finally:
            for sock in sockets:
                sock.close()

    def _keep_log(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """The one call that comes with a file."""
        try:
            self._log.write_to(descriptors[0] if descriptors else None, max_bytes=int(message["max_bytes"]))
        except (KeyError, TypeError, ValueError, OSError) as problem:
            return {"error": f"this log cannot be kept: {problem}"}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return {"ok": None}

    async def _call(self, message: dict[str, Any], sockets: list[socket.socket]) -> Any:
        match message["call"]:
            case "open":
                await self._open(str(message["sandbox"]), EnforcedPolicy.model_validate(message["policy"]), sockets)
            case "apply":
                self._sandboxes[str(message["sandbox"])].apply(EnforcedPolicy.model_validate(message["policy"]))
            case "authority":
                await self._termination.become(str(message["certificate"]), str(message["key"]))
            case "secrets":
                self._use(str(message["sandbox"]), _SECRETS.validate_python(message["secrets"]))
            case "close":
                await self._close(str(message["sandbox"]))
                self._secrets.pop(str(message["sandbox"]), None)
            case "report":
                report = self._sandboxes[str(message["sandbox"])].report(after=int(message["after"]))
                return report.latest(wire.REPORTED_ENTRIES).model_dump(mode="json")
            case "totals":
                return self._totals(message.get("sandbox")).model_dump(mode="json")
            case "list":
                return sorted(self._sandboxes)
            case "end":
                self.end()
            case _:
                raise KeyError(message["call"])
        return None

    async def _open(self, sandbox_id: str, policy: EnforcedPolicy, sockets: list[socket.socket]) -> None:
        await self._close(sandbox_id)
        note = functools.partial(self._log.add, sandbox_id)
        sandbox = CapturedSandbox(
            [sock.dup() for sock in sockets], self._upstream, self._pipes, self._termination, note=note
        )
        try:
            sandbox.use(self._secrets.get(sandbox_id, ()))
            sandbox.apply(policy)
        except BaseException:
            await sandbox.end()
            raise
        self._sandboxes[sandbox_id] = sandbox
        self._changed.set()

    def _use(self, sandbox_id: str, secrets: tuple[EgressSecret, ...]) -> None:
        """From now on, or from when it is opened."""
        self._secrets[sandbox_id] = secrets
        if not secrets:
            del self._secrets[sandbox_id]
        if sandbox_id in self._sandboxes:
            self._sandboxes[sandbox_id].use(secrets)

    async def _close(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.pop(sandbox_id, None)
        if sandbox:
            await sandbox.end()
            self._ended = self._ended.plus(sandbox.totals())
            self._changed.set()

    def _totals(self, sandbox_id: str | None) -> EgressTotals:
        """Of one sandbox, or of all since this program runs."""
        if sandbox_id is not None:
            return self._sandboxes[sandbox_id].totals()
        return functools.reduce(EgressTotals.plus, (one.totals() for one in self._sandboxes.values()), self._ended)


def _is_own(caller: socket.socket) -> bool:
    """Whether root, or this program's own user, calls (SO_PEERCRED, unix(7))."""
    credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())

"""The egress program as the host daemon sees it: started when it is needed, called, started again when it has died."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from cove.egress import wire
from cove.host.authority import Authority
from cove.hostd.egress_log import EgressLogFile
from cove.models.errors import CoveError, error
from cove.models.network import EgressPolicy, EgressTotals, NetworkReport
from cove.models.secrets import EgressSecret

Capture = Callable[[str], Awaitable[Sequence[socket.socket]]]
_Message = dict[str, Any]

_CALL_SECONDS: Final = 10.0
_LOG_SECONDS: Final = 2.0
_SECRETS: Final = "secrets"
_log = structlog.get_logger(__name__)


class Egress:
    """Opens the way out for sandboxes, each within its policy.

    The program outlives this daemon, so that connections survive its replacement; the next one finds it by its socket.
    One that died is replaced, and goes on with what it is told here.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        capture: Capture,
        secrets_of: Callable[[str], tuple[EgressSecret, ...]],
        authority: Callable[[], Authority],
        user: int | None,
        nameservers: Sequence[str] = (),
        trust: Path | None = None,
        log_file: EgressLogFile | None = None,
        outlives: bool = True,
    ) -> None:
        """
        Args:
            capture: the sockets to which everything goes that a sandbox sends, as `cove.host.capturing` makes them.
            secrets_of: the secrets that a sandbox has now.
            authority: that signs for servers towards sandboxes with secrets; asked for when there is one.
            user: that the program takes on, where this is root.
            nameservers: that it asks instead of this machine's.
            trust: a file with certificates of authorities that it trusts for servers, beside this machine's.
            log_file: where everything is noted that sandboxes do; closed with this.
            outlives: whether it goes on when this process is gone.
        """
        self._path = run_dir / wire.SOCKET_NAME
        self._log = run_dir / "logs" / "egress.log"
        self._capture = capture
        self._secrets_of = secrets_of
        self._authority = authority
        self._user = user
        self._nameservers = tuple(nameservers)
        self._trust = trust
        self._log_file = log_file
        self._outlives = outlives
        self._tether: int | None = None
        self._channel: socket.socket | None = None
        self._has_authority = False
        self._watched: socket.socket | None = None
        self._mending: asyncio.Task[None] | None = None
        self._keeping_log: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._policies: dict[str, EgressPolicy] = {}

    async def apply(self, sandbox_id: str, policy: EgressPolicy) -> None:
        """Put a policy in force, at once and also for what is connected.

        Raises:
            CoveError: what capturing raises; HOST_UNAVAILABLE.
        """
        if sandbox_id in self._policies:
            await self._call(_applying(sandbox_id, policy))
        elif policy.is_closed:
            return
        else:
            await self._open(sandbox_id, policy)
        self._policies[sandbox_id] = policy

    async def refresh_secrets(self, sandbox_id: str) -> None:
        """What `secrets_of` says about a sandbox has changed: in force when this returns.

        Raises:
            CoveError: HOST_UNAVAILABLE; it is told with the next call.
        """
        if sandbox_id in self._policies:
            await self._call(self._secrets_message(sandbox_id))

    async def report(self, sandbox_id: str, *, after: int) -> NetworkReport:
        """What a sandbox did; entries with a sequence above `after`.

        Raises:
            CoveError: HOST_UNAVAILABLE.
        """
        if sandbox_id not in self._policies:
            return NetworkReport()
        answer = await self._call({"call": "report", "sandbox": sandbox_id, "after": after})
        return NetworkReport.model_validate(answer)

    async def totals(self, sandbox_id: str | None = None) -> EgressTotals:
        """What a sandbox did since it has its network; or all of them, since the program runs.

        Raises:
            CoveError: HOST_UNAVAILABLE.
        """
        unknown = sandbox_id is not None and sandbox_id not in self._policies
        if unknown or (self._channel is None and not self._policies):
            return EgressTotals()
        return EgressTotals.model_validate(await self._call({"call": "totals", "sandbox": sandbox_id}))

    async def forget(self, sandbox_id: str) -> None:
        """The sandbox has ended. Idempotent."""
        if self._policies.pop(sandbox_id, None) is not None:
            with contextlib.suppress(CoveError):
                await self._call({"call": "close", "sandbox": sandbox_id})

    async def adopt(self, policies: Mapping[str, EgressPolicy]) -> None:
        """Find the program of an earlier daemon: what it serves goes on, and it forgets everything else.

        Args:
            policies: of the sandboxes that there are.
        """
        self._hang_up()
        if self._log_file is not None and self._keeping_log is None:
            self._keeping_log = asyncio.create_task(self._keep_log(self._log_file))
        self._channel = await self._connect()
        served: list[str] = await self._call({"call": "list"}) if self._channel else []
        for sandbox_id in served:
            if sandbox_id in policies:
                self._policies[sandbox_id] = policies[sandbox_id]
            else:
                await self._call({"call": "close", "sandbox": sandbox_id})
        for sandbox_id, policy in policies.items():
            await self._adopt_one(sandbox_id, policy)

    async def close(self, *, end: bool) -> None:
        """Hang up; with `end`, the program ends."""
        self._watch_no_more()
        if end and self._channel is not None:
            with contextlib.suppress(CoveError):
                await self._call({"call": "end"})
            self._path.unlink(missing_ok=True)
        self._hang_up()
        for task in (self._mending, self._keeping_log):
            if task:
                task.cancel()
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None
        if self._tether is not None:
            os.close(self._tether)
            self._tether = None

    async def _adopt_one(self, sandbox_id: str, policy: EgressPolicy) -> None:
        """Closed, if it cannot be opened: everything else of the sandbox goes on."""
        try:
            if sandbox_id in self._policies:
                await self._call(*self._secrets_before(sandbox_id), _applying(sandbox_id, policy))
                return
            await self.apply(sandbox_id, policy)
        except CoveError as problem:
            _log.warning("not_captured", sandbox=sandbox_id, problem=str(problem))

    async def _open(self, sandbox_id: str, policy: EgressPolicy) -> None:
        """Its secrets are there before its first connection."""
        async with self._captured(sandbox_id) as descriptors:
            await self._call(*self._secrets_before(sandbox_id), _opening(sandbox_id, policy), descriptors=descriptors)

    async def _call(self, *messages: _Message, descriptors: Sequence[int] = ()) -> Any:
        """One program takes all of them, one after the other; the answer to the last."""
        async with self._turn:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    return await self._exchange(messages, descriptors)
            except (OSError, EOFError, TimeoutError) as problem:
                self._hang_up()
                raise error("HOST_UNAVAILABLE", "The egress program does not answer.") from problem

    async def _exchange(self, messages: Sequence[_Message], descriptors: Sequence[int]) -> Any:
        try:
            return await self._ask(messages, descriptors)
        except (OSError, EOFError):
            # It has died: the next one is told all that this one was.
            self._hang_up()
            return await self._ask(messages, descriptors)

    async def _ask(self, messages: Sequence[_Message], descriptors: Sequence[int]) -> Any:
        """Descriptors belong to the last message."""
        if self._channel is None:
            self._channel = await self._connect() or await self._launch()
        *first, last = messages
        for message in first:
            await self._ask_one(self._channel, message)
        return await self._ask_one(self._channel, last, descriptors)

    async def _ask_one(self, channel: socket.socket, message: _Message, descriptors: Sequence[int] = ()) -> Any:
        private = message["call"] == _SECRETS
        if private and not self._has_authority:
            await _told(channel, _vouching(self._authority()), private=True)
            self._has_authority = True
        return await _told(channel, message, descriptors, private=private)

    def _secrets_message(self, sandbox_id: str) -> _Message:
        secrets = [secret.model_dump(mode="json") for secret in self._secrets_of(sandbox_id)]
        return {"call": _SECRETS, "sandbox": sandbox_id, "secrets": secrets}

    def _secrets_before(self, sandbox_id: str) -> list[_Message]:
        return [self._secrets_message(sandbox_id)] if self._secrets_of(sandbox_id) else []

    def _hang_up(self) -> None:
        self._watch_no_more()
        self._has_authority = False
        if self._channel:
            self._channel.close()
            self._channel = None

    async def _connect(self) -> socket.socket | None:
        """A connection for calls; a second one tells when the program has died."""
        channel, watched = wire.new_socket(), wire.new_socket()
        try:
            channel.connect(str(self._path))
            watched.connect(str(self._path))
        except OSError:
            channel.close()
            watched.close()
            return None
        self._watch_no_more()
        self._watched = watched
        asyncio.get_running_loop().add_reader(watched, self._died)
        try:
            await self._hand_log_in(channel)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _hand_log_in(self, channel: socket.socket) -> None:
        """Without one, a program that an earlier daemon told of its own stops writing."""
        message: _Message = {"call": "log", "max_bytes": 0}
        descriptors: list[int] = []
        if self._log_file is not None:
            message["max_bytes"] = self._log_file.max_bytes
            descriptors.append(self._log_file.descriptor)
        try:
            await _told(channel, message, descriptors, private=False)
        except CoveError as problem:  # networks do not depend on it; a program of an older version has none
            _log.error("egress_log_not_kept", problem=str(problem))

    async def _keep_log(self, log_file: EgressLogFile) -> None:
        """Until cancelled: the file is moved away when it is full, and made anew when somebody else has done so."""
        while True:
            await asyncio.sleep(_LOG_SECONDS)
            try:
                if not log_file.renew():
                    continue
            except OSError as problem:
                _log.error("egress_log_not_renewed", problem=str(problem))
                continue
            async with self._turn:
                with contextlib.suppress(OSError, EOFError, TimeoutError):
                    if self._channel is not None:  # one that is made later gets it at once
                        async with asyncio.timeout(_CALL_SECONDS):
                            await self._hand_log_in(self._channel)

    def _watch_no_more(self) -> None:
        if self._watched:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched.close()
            self._watched = None

    def _died(self) -> None:
        """Nothing is ever said on that connection: it has ended."""
        _log.warning("egress_died", sandboxes=len(self._policies))
        self._hang_up()
        if self._policies:
            self._mending = asyncio.create_task(self._mend())

    async def _mend(self) -> None:
        with contextlib.suppress(CoveError):
            await self._call({"call": "list"})

    async def _launch(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        with wire.new_socket() as listener, contextlib.ExitStack() as held:
            mask = os.umask(0o177)
            try:
                listener.bind(str(self._path))
            finally:
                os.umask(mask)
            listener.listen(16)
            theirs = [listener.fileno()]
            words = ["--for", str(self._path), "--listen-fd", str(listener.fileno())]
            if not self._outlives:
                tether, self._tether = os.pipe()
                held.callback(os.close, tether)
                theirs.append(tether)
                words += ["--tether-fd", str(tether)]
            if self._user is not None:
                words += ["--user", str(self._user)]
            for nameserver in self._nameservers:
                words += ["--nameserver", nameserver]
            if self._trust is not None:
                words += ["--trust", str(self._trust)]
            log = held.enter_context(self._log.open("ab"))
            starter = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cove.egress", *words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=theirs,
                start_new_session=True,
                cwd="/",
            )
            if await starter.wait():
                raise error("HOST_UNAVAILABLE", "The egress program did not start.", remedy=f"See {self._log}.")
        _log.info("egress_started")
        channel = await self._connect()
        if channel is None:
            raise error("HOST_UNAVAILABLE", "The egress program did not start.")
        self._channel = channel
        await self._tell_all(channel)
        return channel

    async def _tell_all(self, channel: socket.socket) -> None:
        """To a new program: everything that the one before it served."""
        for sandbox_id, policy in list(self._policies.items()):
            try:
                async with self._captured(sandbox_id) as descriptors:
                    for message in self._secrets_before(sandbox_id):
                        await self._ask_one(channel, message)
                    await self._ask_one(channel, _opening(sandbox_id, policy), descriptors)
            except CoveError as problem:
                _log.warning("not_captured", sandbox=sandbox_id, problem=str(problem))
                self._policies.pop(sandbox_id)

    @contextlib.asynccontextmanager
    async def _captured(self, sandbox_id: str) -> AsyncGenerator[list[int]]:
        """Descriptors to be sent along."""
        sockets = await self._capture(sandbox_id)
        try:
            yield [sock.fileno() for sock in sockets]
        finally:
            for sock in sockets:
                sock.close()


async def _told(channel: socket.socket, message: _Message, descriptors: Sequence[int] = (), *, private: bool) -> Any:
    """`private`: what the program says to it may repeat what nobody else is to see."""
    await wire.send(channel, message, descriptors)
    answer, _ = await wire.receive(channel)
    if "error" in answer:
        why = "" if private else f": {str(answer['error'])[:300]}"
        raise error("INTERNAL_ERROR", f"The egress program refuses {message['call']!r}{why}")
    return answer.get("ok")


def _opening(sandbox_id: str, policy: EgressPolicy) -> _Message:
    return {"call": "open", "sandbox": sandbox_id, "policy": policy.model_dump(mode="json")}


def _applying(sandbox_id: str, policy: EgressPolicy) -> _Message:
    return {"call": "apply", "sandbox": sandbox_id, "policy": policy.model_dump(mode="json")}


def _vouching(authority: Authority) -> _Message:
    return {"call": "authority", "certificate": authority.certificate, "key": authority.key}

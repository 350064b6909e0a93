"""The part of a server that stays root, where root starts it: small, and with no door of its own.

    cove serve (root) = supervisor          binds the port, prepares the data directory, reads the certificate,
      |                                     starts and watches the host daemon; knows no client
      |-- the server, as a user of its own  everything else: fork(2), then no privileges, for good
      `-- host daemon (root)

It takes one message, the plan, from the child while that is still root, before anybody could talk to it; from then on
it only tells: that the host daemon is ready, a new certificate, what goes into the log. It ends when the server ends;
when it is killed, the kernel ends the server (PR_SET_PDEATHSIG), and the host daemon waits for the next one.
"""

import contextlib
import gc
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cove.models.errors import CoveError, error
from cove.server.host_options import HostOptions
from cove.server.server_user import ServerUser

if TYPE_CHECKING:
    from cove.server.host_process import HostProcess

MAX_MESSAGE: Final = 64 * 1024
_MAX_CERTIFICATE: Final = 1024 * 1024
_ENDING_SECONDS: Final = 35.0
_SERVER_LOST: Final = 70
"""Exit code (sysexits(3), EX_SOFTWARE) when the server was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the server needs of its supervisor.

    Attributes:
        data_dir, host, port: as in the settings.
        certificate: the files of certificate and key, or nothing.
        role: noted in the claim on the data directory.
        log: a file of root's that is kept short meanwhile; empty for none.
    """

    data_dir: str
    host: str
    port: int
    daemon: HostOptions
    certificate: Sequence[str] = ()
    role: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class Supervised:
    """The server's end, right after the fork.

    Attributes:
        link: to the supervisor; a packet a message.
        supervisor: its process id.
    """

    user: ServerUser
    link: socket.socket
    supervisor: int

    def ask(self, plan: Plan) -> "Grant":
        """Have the supervisor do what takes root; once it was done there is nothing more to be asked.

        Raises:
            CoveError: it cannot be done, as the supervisor says; then it may be asked again.
        """
        self.link.send(json.dumps(asdict(plan)).encode())
        message, descriptors = receive(self.link)
        if "error" in message:
            raise _failure(message["error"])
        listener, lock, *certificate = descriptors
        return Grant(socket.socket(fileno=listener), lock, tuple(certificate))


@dataclass(frozen=True, slots=True)
class Grant:
    """What the supervisor has made ready.

    Attributes:
        listener: the bound port.
        lock: holds the claim on the data directory as long as it is open.
        certificate: descriptors of the contents of certificate and key, or nothing.
    """

    listener: socket.socket
    lock: int
    certificate: tuple[int, ...]


def divide(user: ServerUser, *, childs: Sequence[int] = ()) -> Supervised:
    """Go on twice: this returns in a child, still root, which is to become the server. The calling process supervises
    it and does not return.

    Args:
        childs: descriptors that the calling process closes, since they are for the server.

    Raises:
        SystemExit: in the calling process, at the end, with the server's exit code.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # What is there so far stays shared with the child.
    gc.freeze()
    child = os.fork()
    if child == 0:
        ours.close()
        return Supervised(user, theirs, supervisor)
    theirs.close()
    for descriptor in childs:
        os.close(descriptor)
    with ours:
        code = _supervise(user, ours, child)
    sys.stderr.flush()
    if code == _SERVER_LOST:
        # At once: to end in order would take the host daemon along, and sandboxes with it.
        os._exit(code)
    sys.exit(code)


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors.

    Raises:
        EOFError: nobody is there any more.
    """
    text, descriptors, _, _ = socket.recv_fds(link, MAX_MESSAGE, 4)
    if not text:
        raise EOFError
    return json.loads(text), descriptors


def failure_message(problem: CoveError) -> dict[str, Any]:
    """For `error` in a message."""
    return {"error": {"code": problem.code, "message": problem.message, "remedy": problem.remedy}}


def _failure(fields: Mapping[str, str]) -> CoveError:
    return error(fields["code"], fields["message"], remedy=fields["remedy"])


def failure_in(message: Mapping[str, Any]) -> CoveError | None:
    """What a message reports, if it reports a failure."""
    return _failure(message["error"]) if "error" in message else None


def _supervise(user: ServerUser, link: socket.socket, child: int) -> int:
    # While the child reads its settings.
    import asyncio

    from cove.server.host_process import HostProcess

    with contextlib.ExitStack() as held:
        try:
            plan = _agreed(held, user, link)
        except (EOFError, ConnectionError):
            return _code(os.waitpid(child, 0)[1])
        supervisor = _Supervisor(plan, link, child)
        daemon = HostProcess(Path(plan.data_dir), plan.daemon, server_uid=user.uid, report=supervisor.report)
        return asyncio.run(supervisor.run(daemon))


def _agreed(held: contextlib.ExitStack, user: ServerUser, link: socket.socket) -> Plan:
    """Take plans until one can be granted.

    Raises:
        EOFError, ConnectionError: the child has given up.
    """
    while True:
        asked = receive(link)[0]
        plan = Plan(daemon=HostOptions(**asked.pop("daemon")), **asked)
        try:
            descriptors = _granted(held, plan, user)
        except CoveError as problem:
            link.send(json.dumps(failure_message(problem)).encode())
            continue
        socket.send_fds(link, [json.dumps({"granted": True}).encode()], descriptors)
        for descriptor in descriptors[2:]:
            os.close(descriptor)
        return plan


def _granted(held: contextlib.ExitStack, plan: Plan, user: ServerUser) -> list[int]:
    """The descriptors of a `Grant`.

    Raises:
        CoveError: the data directory or the port is taken or cannot be used; the certificate cannot be read.
    """
    from cove.server.listening import bind
    from cove.server.ownership import give_to_server

    data_dir = Path(plan.data_dir)
    certificate = _contents(plan.certificate)
    with contextlib.ExitStack() as trying:
        lock = trying.enter_context(_claimed(data_dir, plan.role))
        give_to_server(data_dir, user.uid, user.gid)
        listener = trying.enter_context(contextlib.closing(bind(plan.host, plan.port)))
        held.enter_context(trying.pop_all())
    return [listener.fileno(), lock, *certificate]


def _claimed(data_dir: Path, role: str) -> contextlib.AbstractContextManager[int]:
    from cove.server.claiming import claim_server

    return claim_server(data_dir, role=role, wait_seconds=_ENDING_SECONDS)


def _contents(paths: Sequence[str]) -> list[int]:
    """The files' contents in memory of the kernel's (memfd_create(2)): root reads them, the server gets no more."""
    descriptors: list[int] = []
    try:
        for path in paths:
            descriptors.append(_content(path))
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return descriptors


def _content(path: str) -> int:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_CERTIFICATE)
    except OSError as problem:
        raise error(
            "INVALID_REQUEST",
            f"Cannot read {path}: {problem.strerror}.",
            remedy="--tls-cert and --tls-key name PEM files.",
        ) from problem
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as memory:
        memory.write(text)
    return descriptor


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SERVER_LOST


class _Supervisor:
    """While the server runs."""

    def __init__(self, plan: Plan, link: socket.socket, child: int) -> None:
        self._plan = plan
        self._link = link
        self._child = child

    async def run(self, daemon: "HostProcess") -> int:
        """Until the server has ended; returns the exit code."""
        import asyncio
        import signal

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        beside = [asyncio.create_task(work) for work in (self._start(daemon), self._keep_log_short())]
        try:
            status = await self._ended()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        code = _code(status)
        if code == _SERVER_LOST:
            number = os.WTERMSIG(status)
            sys.stderr.write(f"cove: the server was killed by signal {number}; its sandboxes wait for the next one.\n")
            return code
        await daemon.close()
        return code

    def report(self, event: str, facts: Mapping[str, str | float]) -> None:
        """Into the server's log."""
        self._tell({"log": event, "facts": dict(facts)})

    async def _start(self, daemon: "HostProcess") -> None:
        try:
            await daemon.start()
        except CoveError as problem:
            self._tell(failure_message(problem))
        else:
            self._tell({"ready": True})

    async def _keep_log_short(self) -> None:
        from cove.server.bounded_log import keep_short

        if self._plan.log:
            await keep_short(Path(self._plan.log))

    async def _ended(self) -> int:
        from cove.linux.readiness import readable

        descriptor = os.pidfd_open(self._child)
        try:
            await readable(descriptor)
        finally:
            os.close(descriptor)
        return os.waitpid(self._child, 0)[1]  # noqa: ASYNC222 (it has ended)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, number)

    def _hang_up(self) -> None:
        """With a certificate: read it again. Without: the terminal is gone."""
        import signal

        if not self._plan.certificate:
            self._signal(signal.SIGTERM)
            return
        try:
            descriptors = _contents(self._plan.certificate)
        except CoveError as problem:
            self.report("certificate not reloaded", {"reason": str(problem)})
            return
        self._tell({"certificate": True}, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _tell(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Never waits: a server that does not listen is told nothing."""
        with contextlib.suppress(OSError):
            socket.send_fds(self._link, [json.dumps(message).encode()], list(descriptors), socket.MSG_DONTWAIT)

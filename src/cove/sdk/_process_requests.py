"""Requests about programs that run without the client: in the background of a sandbox, or watched by the server."""

import secrets
from collections.abc import Mapping

from cove.models.async_executions import ExecuteAsync
from cove.models.errors import error
from cove.models.execution import MAX_EXECUTION_SECONDS
from cove.models.processes import MAX_LOG_WAIT_SECONDS, BackgroundCommand, BackgroundExecute, KillProcess
from cove.sdk import _requests as requests
from cove.sdk._execution_requests import check_code_size, directory
from cove.sdk._requests import Call, SandboxPath
from cove.sdk._retry import Retry

POLL_SECONDS = 30.0
"""How long the agent is asked to wait for news; it may take `MAX_LOG_WAIT_SECONDS`."""

STREAMS = ("stdout", "stderr")


def execute_background(
    code: str,
    *,
    language: str,
    timeout: float,
    env: Mapping[str, str] | None,
    name: str | None,
    working_dir: SandboxPath | None,
) -> Call:
    """`POST /execute/background`. May be repeated: the id that is chosen here starts the program once."""
    body = requests.checked(
        BackgroundExecute,
        code=code,
        language=language,
        timeout=timeout,
        env=None if env is None else dict(env),
        name=name,
        workdir=directory(working_dir),
        execution_id=f"exec_{secrets.token_hex(16)}",
    )
    check_code_size(body.code)
    content = requests.as_json(body)
    return Call(method="POST", path="/execute/background", content=content, retry=Retry.IDEMPOTENT)


def command_background(
    command: str,
    *,
    timeout: float,
    env: Mapping[str, str] | None,
    name: str | None,
    working_dir: SandboxPath | None,
) -> Call:
    """`POST /commands/background`: never repeated once a byte of it may have left."""
    body = requests.checked(
        BackgroundCommand,
        command=command,
        timeout=timeout,
        env=None if env is None else dict(env),
        name=name,
        workdir=directory(working_dir),
    )
    check_code_size(body.command)
    return Call(method="POST", path="/commands/background", content=requests.as_json(body))


def execute_async(
    code: str,
    callback_url: str,
    *,
    callback_headers: Mapping[str, str] | None,
    callback_signature_secret: str | None,
    language: str,
    timeout: float,
    env: Mapping[str, str] | None,
    working_dir: SandboxPath | None,
) -> Call:
    """`POST /execute/async`: never repeated once a byte of it may have left."""
    body = requests.checked(
        ExecuteAsync,
        code=code,
        language=language,
        timeout=timeout,
        env=None if env is None else dict(env),
        workdir=directory(working_dir),
        callback_url=callback_url,
        callback_headers=None if callback_headers is None else dict(callback_headers),
        callback_signature_secret=callback_signature_secret,
    )
    check_code_size(body.code)
    return Call(method="POST", path="/execute/async", content=requests.as_json(body))


def list_processes() -> Call:
    """`GET /execute/processes`."""
    return requests.get("/execute/processes")


def process(process_id: str, *, wait: float | None = None) -> Call:
    """`GET /execute/processes/{id}`; with `wait` the answer comes when it has ended, or after so many seconds."""
    path = requests.with_query(_process_path(process_id), wait=None if wait is None else _wait(wait))
    return requests.get(path, timeout=requests.CONTROL_SECONDS + (wait or 0.0))


def process_logs(process_id: str, stream: str, *, offset: int, wait: float | None = None) -> Call:
    """`GET .../logs`; with `wait` the answer comes when there is more, or after so many seconds."""
    if stream not in STREAMS:
        raise error("INVALID_REQUEST", f"stream is {stream[:40]!r}; it must be stdout or stderr.")
    parameters: dict[str, str | int | None] = {"stream": stream, "offset": offset}
    path = requests.with_query(
        _process_path(process_id, "/logs"), **parameters, wait=None if wait is None else _wait(wait)
    )
    return requests.get(path, timeout=requests.CONTROL_SECONDS + (wait or 0.0))


def process_events(process_id: str) -> Call:
    """`GET .../events`: what was printed so far, then what comes. Closing the connection leaves the program alone."""
    limit = MAX_EXECUTION_SECONDS + requests.GRACE_SECONDS
    return Call(
        method="GET",
        path=_process_path(process_id, "/events"),
        timeout=limit,
        stall=limit,
        max_answer_bytes=requests.MAX_STREAM_BYTES,
    )


def kill_process(process_id: str, signal: int | str | None) -> Call:
    """`POST /execute/kill/{id}`. Not repeated: a second signal may mean something else to the program."""
    body = requests.checked(KillProcess, signal=signal)
    path = f"/execute/kill/{requests.quoted(_process_id(process_id))}"
    retry = Retry.IDEMPOTENT if signal is None else Retry.UNLESS_SENT
    return Call(method="POST", path=path, content=requests.as_json(body), retry=retry)


def _wait(seconds: float) -> str:
    return f"{min(seconds, MAX_LOG_WAIT_SECONDS):.3f}"


def _process_path(process_id: str, suffix: str = "") -> str:
    return f"/execute/processes/{requests.quoted(_process_id(process_id))}{suffix}"


def _process_id(process_id: str) -> str:
    """Refuses what would become another path."""
    if not process_id or process_id in (".", "..") or len(process_id) > 200:
        raise error("INVALID_REQUEST", f"{process_id[:80]!r} is not the id of a process.")
    return process_id

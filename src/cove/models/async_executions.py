"""Asynchronous executions: started at once, their result sent to a URL of the caller's (contract §4.2)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from cove.models.base import Contract
from cove.models.callbacks import CallbackHeaders
from cove.models.environment import EnvVars
from cove.models.execution import MAX_EXECUTION_SECONDS, WorkingDirectory

DEFAULT_ASYNC_SECONDS = 1800.0
MAX_CALLBACK_URL_CHARACTERS = 2048
MAX_SECRET_CHARACTERS = 512


def _filled(text: str | None) -> str | None:
    """An empty secret means that none was given: a signature with it would protect nothing."""
    return text or None


class ExecutionStatus(StrEnum):
    """How far the program has got. `starting` may have begun already; it is never begun a second time. `interrupted`
    is gone with its sandbox's processes, and about to be `failed`."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"


class DeliveryState(StrEnum):
    """How far the webhook has got: it waits for the program's end, is tried, has arrived, or was given up."""

    WAITING = "waiting"
    PENDING = "pending"
    DELIVERED = "delivered"
    UNDELIVERABLE = "undeliverable"


class ExecuteAsync(Contract):
    """Body of `POST /execute/async`.

    Attributes:
        timeout: seconds; the program and all that it started are ended then.
        callback_url: gets the result by POST.
        callback_headers: sent along.
        callback_signature_secret: signs the result (`cove.models.callbacks`).
    """

    code: str
    language: str = "python"
    timeout: float = Field(default=DEFAULT_ASYNC_SECONDS, gt=0, le=MAX_EXECUTION_SECONDS)
    workdir: WorkingDirectory = ""
    env: EnvVars | None = None
    callback_url: str = Field(min_length=1, max_length=MAX_CALLBACK_URL_CHARACTERS)
    callback_headers: CallbackHeaders | None = None
    callback_signature_secret: Annotated[
        str | None, Field(max_length=MAX_SECRET_CHARACTERS), AfterValidator(_filled)
    ] = None


class AsyncExecutionAccepted(Contract):
    """Answer to `POST /execute/async`: it is written down, and will be started and delivered."""

    execution_id: str
    status: ExecutionStatus = ExecutionStatus.QUEUED
    callback_url: str
    message: str
    timestamp: str


class CallbackBody(Contract):
    """What is POSTed to the callback URL, as JSON.

    Attributes:
        status: completed (exit code 0), failed or timeout.
        stdout, stderr: the first part of each where `..._truncated` says so.
        error: why it failed, for a person; absent when it did not.
        attempt: 1 for the first one; a receiver may see a result more than once.
        timestamp: when the program ended, RFC 3339.
    """

    execution_id: str
    sandbox_id: str
    status: ExecutionStatus
    success: bool
    stdout: str
    stderr: str
    exit_code: int
    execution_time: float
    timestamp: str
    language: str
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    error: str | None = None
    attempt: int = 1


class DeliveryInfo(Contract):
    """The webhook of an asynchronous execution.

    Attributes:
        attempts: how often it was tried.
        last_error: what came of the last attempt that failed.
        next_attempt_at: when it is tried again; None when it is not.
    """

    state: DeliveryState
    attempts: int = 0
    last_error: str | None = None
    next_attempt_at: datetime | None = None
    delivered_at: datetime | None = None


class AsyncExecutionInfo(Contract):
    """One asynchronous execution, as `GET /v1/executions` shows it."""

    object: str = "execution"
    execution_id: str
    sandbox_id: str
    status: ExecutionStatus
    language: str
    timeout: float
    callback_url: str
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    delivery: DeliveryInfo
    request_id: str | None = None


class AsyncExecutionPage(Contract):
    """One page of a list, newest first. `next_cursor` is set whenever `has_more` is true."""

    object: str = "list"
    data: tuple[AsyncExecutionInfo, ...]
    has_more: bool = False
    next_cursor: str | None = None
    url: str = "/v1/executions"
    request_id: str | None = None

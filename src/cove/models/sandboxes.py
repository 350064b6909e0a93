"""Sandboxes as the control plane speaks of them (REST, SDK, CLI)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictInt, model_validator

from cove.models.base import Contract
from cove.models.environment import EnvVars
from cove.models.errors import CoveError, error
from cove.models.isolation import Isolation
from cove.models.limits import MAX_CPU_SHARE, MAX_NETWORK_MBPS, Limits
from cove.models.network import EgressPolicy, EgressTotals, NetworkPolicy
from cove.models.previews import PreviewAccess
from cove.models.secrets import SandboxSecrets, SecretUse

MAX_TIMEOUT_SECONDS = 30 * 24 * 3600
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
"""Of a sandbox's name, and of a namespace's."""


class SandboxStatus(StrEnum):
    """Where a sandbox is in its life."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    ERROR = "error"
    DELETED = "deleted"


class EndReason(StrEnum):
    """Why a sandbox is no more."""

    KILLED = "killed"
    EXPIRED = "expired"
    CRASHED = "crashed"
    FAILED_TO_START = "failed_to_start"
    HOST_STOPPED = "host_stopped"


def _text_id(value: str | int | None) -> str | None:
    return None if value is None else str(value)


def _printable(text: str | None) -> str | None:
    if text is not None and not text.isprintable():
        raise ValueError("it holds characters that cannot be printed")
    return text


class Resources(Contract):
    """Limits as Hopx clients read them: all three or none."""

    vcpu: int
    memory_mb: int
    disk_mb: int


class ResourcesRequest(Contract):
    """Limits asked for at creation; absent ones take the template's default. See `Limits`.

    A limit that is not known is refused: whoever asks for one relies on it.
    """

    vcpu: int | None = Field(default=None, ge=1, le=256)
    memory_mb: int | None = Field(default=None, ge=64, le=1024 * 1024)
    disk_mb: int | None = Field(default=None, ge=64, le=1024 * 1024)
    pids: int | None = Field(default=None, ge=16, le=65536)
    open_files: int | None = Field(default=None, ge=64, le=1048576)
    inodes: int | None = Field(default=None, ge=256, le=2**31)
    cpu_share: int | None = Field(default=None, ge=1, le=MAX_CPU_SHARE)
    max_execution_seconds: int | None = Field(default=None, ge=1, le=MAX_TIMEOUT_SECONDS)
    max_output_bytes: int | None = Field(default=None, ge=1024, le=2**40)
    network_mbps: int | None = Field(default=None, ge=1, le=MAX_NETWORK_MBPS)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, dict):
            names = [str(name) for name in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            unknown = [name[:40] for name in names if name not in cls.model_fields]
            if unknown:
                known = ", ".join(cls.model_fields)
                raise ValueError(f"no such limit: {', '.join(map(repr, unknown[:5]))}; there are {known}")
        return value  # pyright: ignore[reportUnknownVariableType]


class CreateSandbox(Contract):
    """Body of `POST /v1/sandboxes`.

    Attributes:
        template_id: decimal id of a template; or
        template_name: its name. One of the two must be given.
        timeout_seconds: seconds until it is killed; 0 means never; absent means the server's default.
        internet_access: whether the public internet should be reachable; the answer says what is in force. Where the
            isolation has no networks it is not, and that is no error.
        network: what should be reachable instead; refused where that cannot be enforced.
        preview_access: who may reach programs inside; absent means the server's default.
        env_vars: environment of everything that runs inside.
        secrets: variables that hold placeholders, which become values only on their way to the hosts that they are
            for; the network policy has to allow these.
        isolation: a driver to insist on; absent means the server's choice.
        name: finds it again; no two sandboxes of a namespace that have not ended have the same.
    """

    template_id: Annotated[str | StrictInt | None, AfterValidator(_text_id)] = None
    template_name: str | None = Field(default=None, max_length=200)
    region: Annotated[str | None, AfterValidator(_printable)] = Field(default=None, max_length=100)
    timeout_seconds: int | None = Field(default=None, ge=0, le=MAX_TIMEOUT_SECONDS, strict=True)
    internet_access: bool | None = None
    network: NetworkPolicy | None = None
    preview_access: PreviewAccess | None = None
    env_vars: EnvVars | None = None
    secrets: SandboxSecrets | None = None
    resources: ResourcesRequest | None = None
    isolation: Isolation | None = None
    name: str | None = Field(default=None, pattern=NAME_PATTERN)


def name_taken(name: str, holder: str) -> CoveError:
    """Why a sandbox cannot have a name; `holder` is the id of the one that has it."""
    return error(
        "CONFLICT",
        f"The name {name!r} is taken by sandbox {holder}.",
        remedy="Use that sandbox, end it, or choose another name.",
        name=name,
        sandbox_id=holder,
    )


class SetTimeout(Contract):
    """Body of `PUT /v1/sandboxes/{id}/timeout`: seconds from now; 0 switches the deadline off."""

    timeout_seconds: int = Field(ge=0, le=MAX_TIMEOUT_SECONDS, strict=True)


class SandboxInfo(Contract):
    """One sandbox. Field names and types are those that Hopx clients parse (contract: Sandbox object).

    Attributes:
        public_host, direct_url: base URL of the agent.
        preview_url: URL of a port of the sandbox, with `{port}` (RFC 6570) in place of its number.
        preview_access: who may use it.
        internet_access: whether the whole public internet is allowed.
        network: the policy in force; None without a network.
        secrets: by the variables that hold their placeholders; values are never shown.
        limits: all that are in force, those of `resources` among them.
        limits_not_enforced: names of those that its host cannot enforce, which its operator has allowed.
    """

    object: str = "sandbox"
    id: str
    name: str | None = None
    namespace: str | None = None
    status: SandboxStatus
    template_id: str | None = None
    template_name: str | None = None
    organization_id: int = 0
    node_id: str | None = None
    region: str | None = None
    public_host: str
    direct_url: str
    preview_url: str | None = None
    preview_access: PreviewAccess | None = None
    resources: Resources | None = None
    internet_access: bool = False
    network: EgressPolicy | None = None
    secrets: dict[str, SecretUse] = {}
    live_mode: bool = True
    timeout_seconds: int | None = None
    expires_at: datetime | None = None
    created_at: datetime
    isolation: Isolation
    isolation_summary: str = ""
    limits: Limits | None = None
    limits_not_enforced: tuple[str, ...] = ()
    request_id: str | None = None


class AgentToken(Contract):
    """A bearer token for one sandbox's agent."""

    auth_token: str
    token_expires_at: datetime


class CreatedSandbox(SandboxInfo):
    """Answer to a create: the sandbox and its first token."""

    auth_token: str
    token_expires_at: datetime


class UsageFigure(Contract):
    """How much of one thing is in use.

    Attributes:
        used: now, or since the start for what adds up.
        limit: how much may be; None where nothing bounds it but the host.
        peak: the most at any time, where that is known.
    """

    used: float
    limit: float | None = None
    peak: float | None = None


class SandboxUsage(Contract):
    """Answer to `GET /v1/sandboxes/{id}/usage`: what the host has counted; nothing of it is the sandbox's word.

    Attributes:
        memory_bytes: page cache included, as for the limit.
        cpu_seconds: since its start; its limit is `vcpu` such seconds in a second.
        disk_bytes: used on its disk; with gVisor and while it is stopped, what the disk's image takes of the host,
            which does not shrink. None where the disk is memory that the host cannot look into.
        inodes: files and directories on it; None where the host cannot see that (gVisor, a stopped sandbox).
        oom_kills: processes that were ended for memory.
        network: what went out and came back; None without a network.
        limits_not_enforced: limits that are only said here.
    """

    id: str
    status: SandboxStatus
    memory_bytes: UsageFigure
    cpu_seconds: UsageFigure
    pids: UsageFigure
    disk_bytes: UsageFigure | None = None
    inodes: UsageFigure | None = None
    oom_kills: int = 0
    network: EgressTotals | None = None
    limits: Limits
    limits_not_enforced: tuple[str, ...] = ()
    request_id: str | None = None


class SandboxPage(Contract):
    """One page of a list. `next_cursor` is set whenever `has_more` is true."""

    object: str = "list"
    data: tuple[SandboxInfo, ...]
    has_more: bool = False
    next_cursor: str | None = None
    url: str = "/v1/sandboxes"
    request_id: str | None = None


class StatusAnswer(Contract):
    """Answer to a lifecycle call."""

    id: str
    status: SandboxStatus
    request_id: str | None = None


class TimeoutAnswer(Contract):
    """Answer to a change of the deadline."""

    id: str
    timeout_seconds: int
    expires_at: datetime | None
    request_id: str | None = None

"""What a sandbox's agent says of itself, and what it is told at its start."""

from typing import Any

from cove.models.base import Contract
from cove.models.limits import Limits

AGENT_NAME = "cove-agent"
AGENT_PORT = 7777


class AgentBoot(Contract):
    """Given to the agent by its driver, once, before any code runs.

    Attributes:
        env_vars: the sandbox-wide variables (`/env`).
        base_environment: what the template sets (PATH, HOME, ...); `/env` and requests win over it.
        languages: what `/execute` may run here.
        preloaded: module names that are already imported.
        isolation: for `/info`.
        start_command: shell text to run in the background from the start; empty: none.
    """

    sandbox_id: str
    template: str
    isolation: str
    env_vars: dict[str, str] = {}
    base_environment: dict[str, str] = {}
    languages: tuple[str, ...] = ("python", "bash")
    workspace: str = "/workspace"
    limits: Limits = Limits()
    start_command: str = ""


class AgentHealth(Contract):
    """Answer to `GET /health`."""

    status: str = "healthy"
    agent: str = AGENT_NAME
    version: str
    uptime: float
    go_version: str = ""
    vm_id: str
    features: dict[str, Any]
    active_streams: int = 0


class AgentInfo(Contract):
    """Answer to `GET /info`."""

    vm_id: str
    agent: str = AGENT_NAME
    agent_version: str
    version: str
    os: str
    arch: str
    platform: str
    vm_ip: str = "127.0.0.1"
    vm_port: int = AGENT_PORT
    ip: str = "127.0.0.1"
    port: int = AGENT_PORT
    start_time: str
    uptime: float
    endpoints: dict[str, str]
    features: dict[str, Any]
    template: str = ""
    isolation: str = ""


class ProcessEntry(Contract):
    """One process inside the sandbox, as `GET /processes` lists it."""

    pid: int
    name: str
    command: str
    user: str
    status: str
    cpu_percent: float
    memory_mb: float
    ppid: int = 0


class ProcessList(Contract):
    """Answer to `GET /processes`."""

    processes: tuple[ProcessEntry, ...]
    count: int

"""What the routes share: one object, made once, in `build_app`."""

import os
import shutil
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from starlette.requests import Request

from cove.agent.clock import timestamp
from cove.agent.engine import Engine, Variables
from cove.agent.execution.reaper import Reaper
from cove.agent.http.traffic import Traffic
from cove.agent.http.websocket_routes import WebSockets
from cove.agent.metrics import ResourceUsage
from cove.agent.processes import read_bounded
from cove.agent.terminals.registry import Terminals
from cove.models.agent import AgentBoot
from cove.models.execution import Language


@dataclass
class AgentState:
    """One sandbox's agent.

    Attributes:
        last_python: when python code ran last, or the start (RFC 3339).
        watches: directory trees that are watched now.
    """

    boot: AgentBoot
    engine: Engine
    variables: Variables
    traffic: Traffic
    usage: ResourceUsage
    sockets: WebSockets = field(default_factory=WebSockets)
    reaper: Reaper = field(default_factory=Reaper)
    watches: int = 0
    started_at: str = field(default_factory=timestamp)
    started_clock: float = field(default_factory=time.monotonic)
    last_python: str = field(default_factory=timestamp)

    @cached_property
    def terminals(self) -> Terminals:
        """The terminals of the sandbox; made when the first one is asked for."""
        boot, variables = self.boot, self.variables
        return Terminals(self.reaper, lambda: {**boot.base_environment, **variables.get()}, boot.workspace)

    async def close(self) -> None:
        """End what the routes have started."""
        if "terminals" in self.__dict__:
            await self.terminals.close()

    @property
    def uptime(self) -> float:
        """Seconds since the agent started."""
        return time.monotonic() - self.started_clock

    @cached_property
    def go_version(self) -> str:
        """What Go's VERSION file says, for example `go1.27.3`; empty when the sandbox has no Go."""
        program = shutil.which("go", path=self.boot.base_environment.get("PATH", os.defpath))
        if program is None or not self.offers(Language.GO):
            return ""
        found = read_bounded(str(Path(program).resolve().parent.parent / "VERSION"), 64)
        return found.partition(b"\n")[0].decode("ascii", "replace")

    def offers(self, language: Language) -> bool:
        """Whether `/execute` may run `language` here."""
        return language.value in self.boot.languages


def state_of(request: Request) -> AgentState:
    """The agent that answers `request`."""
    return request.app.state.agent

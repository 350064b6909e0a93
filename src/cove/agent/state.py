"""What the routes share: one object, made once, in `build_app`."""

import time
from dataclasses import dataclass, field

from starlette.requests import Request

from cove.agent.clock import timestamp
from cove.agent.engine import Engine, Variables
from cove.agent.http.traffic import Traffic
from cove.agent.http.websocket_routes import WebSockets
from cove.agent.metrics import ResourceUsage
from cove.models.agent import AgentBoot
from cove.models.execution import Language


@dataclass
class AgentState:
    """One sandbox's agent.

    Attributes:
        last_python: when python code ran last, or the start (RFC 3339).
    """

    boot: AgentBoot
    engine: Engine
    variables: Variables
    traffic: Traffic
    usage: ResourceUsage
    sockets: WebSockets = field(default_factory=WebSockets)
    started_at: str = field(default_factory=timestamp)
    started_clock: float = field(default_factory=time.monotonic)
    last_python: str = field(default_factory=timestamp)

    @property
    def uptime(self) -> float:
        """Seconds since the agent started."""
        return time.monotonic() - self.started_clock

    def offers(self, language: Language) -> bool:
        """Whether `/execute` may run `language` here."""
        return language.value in self.boot.languages


def state_of(request: Request) -> AgentState:
    """The agent that answers `request`."""
    return request.app.state.agent

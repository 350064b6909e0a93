"""The life of a sandbox, as data.

    creating --> running <--> paused
                  |  ^          |
                  v  |          v
                stopped ----> deleted   (from every state; `error` too)

A sandbox is stored once it runs, so `creating` is never seen unless a host takes long over a start.
"""

from dataclasses import dataclass
from enum import StrEnum

from cove.models.errors import CoveError, error
from cove.models.sandboxes import SandboxStatus


class Action(StrEnum):
    """What can be asked of a sandbox that exists."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    START = "start"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Transition:
    """The states that an action starts from, and the one it leads to. It is idempotent if `target` is a source."""

    sources: frozenset[SandboxStatus]
    target: SandboxStatus


LIVE = frozenset(SandboxStatus) - {SandboxStatus.DELETED}
"""Every state in which a sandbox still holds something on a host."""

TRANSITIONS: dict[Action, Transition] = {
    Action.PAUSE: Transition(frozenset({SandboxStatus.RUNNING, SandboxStatus.PAUSED}), SandboxStatus.PAUSED),
    Action.RESUME: Transition(frozenset({SandboxStatus.RUNNING, SandboxStatus.PAUSED}), SandboxStatus.RUNNING),
    Action.STOP: Transition(
        frozenset({SandboxStatus.RUNNING, SandboxStatus.PAUSED, SandboxStatus.STOPPED}), SandboxStatus.STOPPED
    ),
    Action.START: Transition(frozenset({SandboxStatus.RUNNING, SandboxStatus.STOPPED}), SandboxStatus.RUNNING),
    Action.DELETE: Transition(LIVE, SandboxStatus.DELETED),
}

_WAYS_BACK = {SandboxStatus.PAUSED: Action.RESUME, SandboxStatus.STOPPED: Action.START}


def way_back(status: SandboxStatus) -> str:
    """The call that makes a sandbox in this state run again, as a sentence; empty where there is none."""
    action = _WAYS_BACK.get(status)
    return f"POST /v1/sandboxes/{{id}}/{action} lets it run again." if action else ""


def not_running(sandbox_id: str, status: SandboxStatus | None) -> CoveError:
    """Why a sandbox in this state (None: unknown) answers nobody."""
    if status is None or status is SandboxStatus.DELETED:
        return error("SANDBOX_NOT_FOUND", f"Sandbox {sandbox_id} was not found: it does not run (any more).")
    return error(
        "INVALID_STATE",
        f"Sandbox {sandbox_id} is {status}: {_WAYS_BACK.get(status, 'wait for')} it first.",
        remedy=way_back(status),
        sandbox_id=sandbox_id,
        status=status.value,
    )

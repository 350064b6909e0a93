"""The life of a sandbox, as data.

    creating --> running <--> paused
                  |  ^          |
                  v  |          v
                stopped ----> deleted   (from every state; `error` too)

A sandbox is stored once it runs, so `creating` is never seen unless a host takes long over a start.
"""

from dataclasses import dataclass
from enum import StrEnum

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

"""Whose a session is, how many there may be, and when they have ended."""

import pytest

from cove.models.errors import CoveError
from cove.server.mcp.sessions import McpSessions

IDLE = 100.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> McpSessions[str]:
    return McpSessions(idle_seconds=IDLE, most_of_caller=2, most=3, clock=clock)


def open_one(sessions: McpSessions[str], name: str, owner: str) -> None:
    with sessions.opening(owner, "manager") as opened:
        opened(name)


def code_of(sessions: McpSessions[str], name: str, owner: str) -> str:
    try:
        with sessions.used(name, owner) as manager:
            return manager
    except CoveError as failure:
        return failure.code


def test_only_its_owner_may_use_a_session(sessions: McpSessions[str]) -> None:
    open_one(sessions, "one", "ann")
    assert code_of(sessions, "one", "ann") == "manager"
    assert code_of(sessions, "one", "bob") == "RESOURCE_NOT_FOUND"
    assert code_of(sessions, "two", "ann") == "RESOURCE_NOT_FOUND"
    sessions.ended("one")
    sessions.ended("one")
    assert code_of(sessions, "one", "ann") == "RESOURCE_NOT_FOUND"


def test_one_caller_cannot_take_all_sessions(sessions: McpSessions[str]) -> None:
    open_one(sessions, "one", "ann")
    open_one(sessions, "two", "ann")
    with pytest.raises(CoveError, match="limit of 2"):
        open_one(sessions, "three", "ann")
    open_one(sessions, "four", "bob")
    with pytest.raises(CoveError, match="limit of 3"):
        open_one(sessions, "five", "bob")
    sessions.ended("one")
    open_one(sessions, "six", "ann")


def test_those_that_are_being_opened_count(sessions: McpSessions[str]) -> None:
    with sessions.opening("ann", "manager"), sessions.opening("ann", "manager") as opened:
        opened("one")
        with pytest.raises(CoveError, match="limit of 2"):
            open_one(sessions, "two", "ann")
    open_one(sessions, "two", "ann")


def test_unused_ones_make_room_and_those_in_use_do_not(sessions: McpSessions[str], clock: Clock) -> None:
    open_one(sessions, "unused", "ann")
    open_one(sessions, "streaming", "ann")
    with sessions.used("streaming", "ann"):
        clock.now = IDLE + 1
        open_one(sessions, "new", "ann")
        assert code_of(sessions, "unused", "ann") == "RESOURCE_NOT_FOUND"
        assert code_of(sessions, "streaming", "ann") == "manager"

"""Sessions of the older revisions: whose each is, and how many one caller may have.

The library keeps them too. But to it a session id is all that is needed to use one, and one caller could open all that
there may be.
"""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from cove.models.errors import CoveError, error

MOST_OF_CALLER = 100
MOST = 5000

T = TypeVar("T")


@dataclass(slots=True)
class _Session(Generic[T]):
    owner: str
    served_by: T
    in_flight: int
    last_used: float


class McpSessions(Generic[T]):
    """The sessions there are, each with `T`, which serves it. One without a request for `idle_seconds` has ended."""

    def __init__(
        self,
        *,
        idle_seconds: float,
        most_of_caller: int = MOST_OF_CALLER,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle_seconds = idle_seconds
        self._most_of_caller = most_of_caller
        self._most = most
        self._clock = clock
        self._sessions: dict[str, _Session[T]] = {}
        self._opening: dict[str, int] = {}

    @contextmanager
    def opening(self, owner: str, served_by: T) -> Generator[Callable[[str], None]]:
        """Room for one more, while it is being opened. To be called with its id when it exists.

        Raises:
            CoveError: RESOURCE_LIMIT_EXCEEDED.
        """
        self._forget_idle()
        own = sum(session.owner == owner for session in self._sessions.values()) + self._opening.get(owner, 0)
        if own >= self._most_of_caller:
            raise _too_many("API key", self._most_of_caller)
        if len(self._sessions) + sum(self._opening.values()) >= self._most:
            raise _too_many("server", self._most)
        self._opening[owner] = self._opening.get(owner, 0) + 1
        with ExitStack() as room:
            room.callback(self._opened_or_not, owner)

            def opened(session_id: str) -> None:
                self._sessions[session_id] = _Session(owner, served_by, 0, self._clock())
                room.close()

            yield opened

    def _opened_or_not(self, owner: str) -> None:
        self._opening[owner] -= 1
        if not self._opening[owner]:
            del self._opening[owner]

    @contextmanager
    def used(self, session_id: str, owner: str) -> Generator[T]:
        """Whoever serves the session, for one request.

        Raises:
            CoveError: RESOURCE_NOT_FOUND; for somebody else's session too.
        """
        session = self._sessions.get(session_id)
        if session is None or session.owner != owner:
            raise error(
                "RESOURCE_NOT_FOUND", "There is no such MCP session.", remedy="Begin a new one with `initialize`."
            )
        session.in_flight += 1
        try:
            yield session.served_by
        finally:
            session.in_flight -= 1
            session.last_used = self._clock()

    def ended(self, session_id: str) -> None:
        """The session does not exist any more. Idempotent."""
        self._sessions.pop(session_id, None)

    def _forget_idle(self) -> None:
        oldest = self._clock() - self._idle_seconds
        idle = [name for name, one in self._sessions.items() if not one.in_flight and one.last_used < oldest]
        for name in idle:
            del self._sessions[name]


def _too_many(whose: str, most: int) -> CoveError:
    return error(
        "RESOURCE_LIMIT_EXCEEDED",
        f"This {whose} has reached its limit of {most} MCP sessions.",
        remedy="End those that are not needed any more (DELETE); unused ones end by themselves after half an hour.",
        limit=most,
    )

"""What the agent keeps to be quicker."""

from typing import Any

from cove.sdk import _requests as requests
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._failures import parse_object


class AsyncCache:
    """The agent's cache."""

    def __init__(self, link: AsyncAgentLink) -> None:
        self._link = link

    async def stats(self) -> dict[str, Any]:
        """Hits, misses, size."""
        return parse_object(await self._link.send(requests.get("/cache/stats")))

    async def clear(self) -> dict[str, Any]:
        """Forget all of it; says how much that was."""
        return parse_object(await self._link.send(requests.Call(method="POST", path="/cache/clear")))
